"""Sealed records: every change on the way is found, every key and nonce is used once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire import sealed_records
from underpass.wire.sealed_records import MAX_PLAIN, OVERHEAD, Sealer, Tampered, Unsealer

SECRET = bytes(range(32))


def opened(wire: bytes, piece: int = 1 << 20, **options: Any) -> bytes:
    unsealer = Unsealer(SECRET, **options)
    out = b""
    for start in range(0, len(wire), piece):
        unsealer.feed(memoryview(wire)[start : start + piece])
        while (plain := unsealer.next()) is not None:
            out += plain
        unsealer.keep()
    unsealer.finish()
    return out


def sealed(*parts: bytes, **options: Any) -> list[bytes]:
    sealer = Sealer(SECRET, **options)
    records = [record for part in parts for record in sealer.seal(part)]
    return [*records, sealer.end()]


@pytest.mark.parametrize("size", [1, 1000, MAX_PLAIN, MAX_PLAIN + 1, 3 * MAX_PLAIN + 7])
def test_there_and_back(size: int) -> None:
    data = os.urandom(size)
    records = sealed(data)
    assert len(records) == -(-size // MAX_PLAIN) + 1
    assert max(map(len, records)) <= MAX_PLAIN + OVERHEAD
    wire = b"".join(records)
    assert len(wire) == size + len(records) * OVERHEAD
    assert opened(wire) == opened(wire, 1000) == data
    assert data[:100] not in wire or size < 8


def test_an_empty_flow_has_an_end() -> None:
    assert opened(b"".join(sealed())) == b""


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 400), st.integers(1, 5))
def test_any_writes_any_cuts_any_rekeying(parts: list[bytes], piece: int, every: int) -> None:
    wire = b"".join(sealed(*parts, rekey_after=every))
    assert opened(wire, piece, rekey_after=every) == b"".join(parts)


def test_every_record_has_a_key_and_nonce_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []

    class Watched:
        def __init__(self, key: bytes) -> None:
            self.key, self.cipher = key, AESGCM(key)

        def encrypt(self, nonce: bytes, data: Any, aad: Any) -> bytes:
            used.append((self.key, nonce))
            return self.cipher.encrypt(nonce, data, aad)

    monkeypatch.setattr(sealed_records, "AESGCM", Watched)
    records = sealed(*[b"x"] * 20, rekey_after=7)
    assert len(set(used)) == len(records) == 21
    assert len({key for key, _ in used}) == 3
    assert len(set(records)) == 21
    monkeypatch.undo()
    assert opened(b"".join(records), rekey_after=7) == b"x" * 20


def test_keys_change_long_before_the_cipher_wears_out() -> None:
    assert sealed_records.REKEY_AFTER < 1 << 32


def test_both_sides_must_agree_when() -> None:
    with pytest.raises(Tampered):
        opened(b"".join(sealed(*[b"x"] * 20, rekey_after=7)), rekey_after=8)


PLAIN = [b"first", b"second", b"third"]


def test_every_flipped_bit_is_found() -> None:
    wire = b"".join(sealed(*PLAIN))
    for at in range(len(wire)):
        for bit in (1, 128):
            changed = bytearray(wire)
            changed[at] ^= bit
            with pytest.raises(Tampered):
                opened(bytes(changed))


def test_every_cut_is_found() -> None:
    wire = b"".join(sealed(*PLAIN))
    for at in range(len(wire)):
        with pytest.raises(Tampered) as caught:
            opened(wire[:at])
        assert caught.value.code == "truncated"


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "dropped": lambda r: r[1:],
    "dropped within": lambda r: [r[0], *r[2:]],
    "repeated": lambda r: [r[0], *r],
    "swapped": lambda r: [r[1], r[0], *r[2:]],
    "end first": lambda r: [r[3], *r[:3]],
    "end twice": lambda r: [*r, r[3]],
    "after the end": lambda r: [*r, b"x"],
    "joined": lambda r: [r[0][:-1], *r[1:]],
    "another flow's": lambda r: [*r[:3], Sealer(os.urandom(32)).end()],
    "an end made of data": lambda r: [*r[:2], b"\x01" + r[2][1:]],
    "data made of the end": lambda r: [*r[:3], b"\x00" + r[3][1:]],
    "nothing sealed": lambda r: [b"\x00\x00\x00\x10" + bytes(16), *r],
    "too long": lambda r: [b"\x00\x01\x00\x11" + bytes(MAX_PLAIN + 17)],
    "an end that is too long": lambda r: [b"\x01\x00\x00\x11" + bytes(17)],
    "unknown": lambda r: [b"\x02\x00\x00\x20" + bytes(32)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_records_can_not_be_moved(change: str) -> None:
    records = sealed(*PLAIN)
    with pytest.raises(Tampered) as caught:
        opened(b"".join(CHANGES[change](records)))
    assert caught.value.code == "tampered"


def test_a_header_that_nobody_wrote_is_refused_before_its_record_came() -> None:
    unsealer = Unsealer(SECRET)
    unsealer.feed(b"\x00\xff\xff\xff")
    with pytest.raises(Tampered):
        unsealer.next()


def test_another_secret() -> None:
    unsealer = Unsealer(os.urandom(32))
    unsealer.feed(sealed(b"x")[0])
    with pytest.raises(Tampered):
        unsealer.next()


def test_nothing_follows_the_end() -> None:
    sealer = Sealer(SECRET)
    sealer.end()
    assert sealer.ended
    with pytest.raises(RuntimeError):
        sealer.seal(b"x")
    with pytest.raises(RuntimeError):
        sealer.end()


def test_a_secret_has_32_bytes() -> None:
    for side in (Sealer, Unsealer):
        with pytest.raises(ValueError):
            side(b"short")
