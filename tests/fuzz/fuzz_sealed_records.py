"""The sealed-stream handshake on both sides, and the records after it: only their own errors.

The first byte of an input chooses what it is fed to, and where it is cut.
"""

from __future__ import annotations

import contextlib
import hashlib

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from underpass.wire.sealed_records import Sealer, Tampered, Unsealer
from underpass.wire.sealing import MAGIC, SealingAgent, SealingClient, SealingError

TARGET = "tcp:db:5432"
SECRET = bytes(range(32))
PRIVATE = X25519PrivateKey.from_private_bytes(SECRET)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # in no seed
PLAIN = b"one" + b"two" * 100 + b"3"


def _noise(size: int) -> bytes:
    return hashlib.shake_128(b"seed").digest(size)


def _answer() -> bytes:
    """An agent's answer of the right shape; a signature would differ in each run."""
    modulus = int.from_bytes(b"\xc1" + _noise(254) + b"\x01", "big")
    der = (
        rsa.RSAPublicNumbers(65537, modulus)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    fields = {"public": SECRET, "key": der, "signature": _noise(256), "proof": SECRET}
    body = msgspec.msgpack.encode(fields)
    return MAGIC + len(body).to_bytes(2, "big") + body


_hello = SealingClient(TARGET, private=PRIVATE).hello
_sealer = Sealer(SECRET, rekey_after=2)
_records = b"".join([*_sealer.seal(b"one"), *_sealer.seal(b"two" * 100), *_sealer.seal(b"3")])
_end = _sealer.end()

SEEDS: list[bytes] = [
    b"\x00" + _records + _end, b"\x30" + _records, b"\x60" + _end, b"\x01" + _answer(),
    b"\x31" + _answer() + _records, b"\x02" + _hello, b"\x32" + _hello + _records, b"",
]  # fmt: skip


def one_input(data: bytes) -> None:
    """Feed the records, the client or the agent in two pieces."""
    first = data[0] if data else 0
    middle = 1 + first // 3
    pieces = (memoryview(data)[1:middle], memoryview(data)[max(1, middle) :])
    if first % 3 == 0:
        _feed_records(pieces)
        return
    side = (
        SealingClient(TARGET, private=PRIVATE)
        if first % 3 == 1
        else SealingAgent(TARGET, KEY, private=PRIVATE)
    )
    with contextlib.suppress(SealingError):
        for piece in pieces:
            if side.feed(piece) is not None:
                assert isinstance(side, SealingAgent)  # nobody signs by chance
                return


def _feed_records(pieces: tuple[memoryview, memoryview]) -> None:
    unsealer = Unsealer(SECRET, rekey_after=2)
    taken = b""
    with contextlib.suppress(Tampered):
        for piece in pieces:
            unsealer.feed(piece)
            while (plain := unsealer.next()) is not None:
                taken += plain
            unsealer.keep()
        unsealer.finish()
        assert taken == PLAIN
    # Whatever was changed: what came out is the beginning of what was sealed.
    assert PLAIN.startswith(taken)
