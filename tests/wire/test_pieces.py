"""Bytes in pieces: whatever way they came, they come out whole and in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.pieces import Pieces


def test_taken_across_pieces() -> None:
    pieces = Pieces()
    pieces.add(b"")
    pieces.add(b"abc")
    pieces.add(memoryview(b"defgh"))
    assert pieces.size == 8
    assert pieces.take(0) == b""
    assert pieces.peek(5) == b"abcde"
    assert pieces.peek(100) == b"abcdefgh"
    assert pieces.take(4) == b"abcd"
    assert pieces.peek(2) == b"ef"
    assert bytes(pieces.some(100)) == b"efgh"
    assert pieces.size == 0
    assert pieces.peek(1) == b""


def test_a_whole_piece_is_handed_on_as_it_is() -> None:
    pieces = Pieces()
    data = b"x" * 100
    pieces.add(data)
    assert pieces.take(100) is data
    view = memoryview(data)
    pieces.add(view)
    assert pieces.some(100) is view


def test_views_that_stay_are_copied() -> None:
    buffer = bytearray(b"0123456789")
    pieces = Pieces()
    pieces.add(memoryview(buffer)[:4])
    pieces.add(b"kept")
    pieces.add(memoryview(buffer)[4:])
    pieces.take(2)
    pieces.keep()
    buffer[:] = b"----------"  # fails while a view of it is alive, and shows in one that is
    pieces.keep()
    assert pieces.peek(5) == b"23kep"
    assert pieces.take(12) == b"23kept456789"


def test_clear() -> None:
    pieces = Pieces()
    pieces.add(b"abc")
    pieces.take(1)
    pieces.clear()
    assert pieces.size == 0
    pieces.add(b"de")
    assert pieces.take(2) == b"de"


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 30)), st.booleans())
def test_every_byte_once_and_in_order(parts: list[bytes], sizes: list[int], views: bool) -> None:
    whole = b"".join(parts)
    pieces = Pieces()
    for part in parts:
        pieces.add(memoryview(part) if views else part)
    out = b""
    for size in sizes:
        size = min(size, pieces.size)
        assert pieces.peek(size) == whole[len(out) : len(out) + size]
        out += bytes(pieces.take(size))
        pieces.keep()
    while pieces.size:
        out += bytes(pieces.some(7))
    assert out == whole
