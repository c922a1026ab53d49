"""The ring keeps exactly the newest bytes, by absolute offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.ring import ByteRing


def test_offsets_go_on_for_ever() -> None:
    ring = ByteRing(4, block=2)
    assert ring.append(b"ab") == 0
    assert (ring.start, ring.end, len(ring)) == (0, 2, 2)
    assert ring.append(b"cdef") == 2
    assert (ring.start, ring.end) == (2, 6)
    assert ring.read(2, 100) == b"cdef"
    assert ring.read(3, 2) == b"de"
    assert ring.read(6, 100) == b""


def test_more_than_fits_keeps_the_tail() -> None:
    ring = ByteRing(4)
    ring.append(b"xy")
    assert ring.append(b"0123456789") == 8
    assert ring.read(ring.start, 10) == b"6789"
    assert ring.end == 12


def test_clamp_says_what_is_lost() -> None:
    ring = ByteRing(4)
    ring.append(b"0123456789")
    assert ring.clamp(0) == 6
    assert ring.clamp(7) == 7
    assert ring.clamp(99) == 10


def test_reading_what_is_not_there_is_a_bug() -> None:
    ring = ByteRing(4)
    ring.append(b"0123456789")
    for offset in (0, 5, 11):
        with pytest.raises(ValueError, match="outside"):
            ring.read(offset, 1)


def test_release_forgets_but_keeps_counting() -> None:
    ring = ByteRing(100, start=1000, block=4)
    ring.append(b"abcdefghij")
    assert ring.release(1003) == 3
    assert ring.release(1003) == 0
    assert ring.read(1003, 100) == b"defghij"
    assert ring.release(10**9) == 7
    assert (ring.start, ring.end, len(ring)) == (1010, 1010, 0)
    ring.append(b"k")
    assert ring.read(1010, 5) == b"k"


@pytest.mark.parametrize(("capacity", "start", "block"), [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_absurd_rings_are_refused(capacity: int, start: int, block: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        ByteRing(capacity, start=start, block=block)


def test_memory_follows_use() -> None:
    ring = ByteRing(2 * 1024 * 1024)
    for _ in range(200):
        ring.append(bytes(40_000))
    assert len(ring) == ring.capacity
    assert sum(map(len, ring._blocks)) <= ring.capacity + 2 * 65536


@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 50))),
)
def test_it_is_a_window_on_everything_written(
    capacity: int, block: int, steps: list[tuple[bytes, int, int]]
) -> None:
    ring = ByteRing(capacity, block=block)
    everything = b""
    for data, offset, limit in steps:
        ring.append(memoryview(data))
        everything += data
        assert ring.end == len(everything)
        assert len(ring) == min(capacity, len(everything))
        where = ring.clamp(offset)
        assert ring.read(where, limit) == everything[where : where + limit]
