"""Sealed records: one direction of an end-to-end encrypted stream.

A record is ``type u8 | length u24`` (big-endian) and *length* bytes of AES-256-GCM ciphertext with
its tag, at most 64 KiB of plain bytes; the header is authenticated with it. Types: 0 data, 1 end.
The nonce is the direction's IV xor the record's number (as in RFC 8446, section 5.3), so no record
can be dropped, repeated, moved or carried over to the other direction. An end that is not sealed
is no end: whoever cuts the flow is found out. Both sides take the next key after 2^24 records by
themselves (HKDF-Expand, RFC 5869), long before AES-GCM's bounds.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from underpass.core.errors import UnderpassError
from underpass.wire.pieces import Buffer, Pieces

__all__ = ["MAX_PLAIN", "OVERHEAD", "REKEY_AFTER", "SECRET_BYTES", "Sealer", "Tampered", "Unsealer"]

MAX_PLAIN: Final = 64 << 10
"""Plain bytes of a record at most."""
HEADER: Final = 4
TAG: Final = 16
OVERHEAD: Final = HEADER + TAG
"""Bytes a record is longer than what is in it."""
SECRET_BYTES: Final = 32
REKEY_AFTER: Final = 1 << 24
"""Records under one key: a tebibyte of full ones."""
DATA, END = 0, 1


class Tampered(UnderpassError):
    """What came is not what the peer sealed: changed, repeated, moved, cut off or made up.

    Codes: ``tampered``, and ``truncated`` for a flow that ended without its sealed end.
    """

    code, status, close_code = "tampered", 502, 4502


class _Keys:
    """The keys of one direction, one after the other."""

    __slots__ = ("_iv", "_left", "_number", "_rekey_after", "_secret", "cipher")

    def __init__(self, secret: bytes, rekey_after: int) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
        self._secret = secret
        self._rekey_after = rekey_after
        self._number = 0
        self.cipher: AESGCM
        self._take_up()

    def _take_up(self) -> None:
        self._left = self._rekey_after
        self.cipher = AESGCM(_expand(self._secret, b"key", 32))
        self._iv = int.from_bytes(_expand(self._secret, b"iv", 12), "big")

    def nonce(self) -> bytes:
        """The next record's nonce, with ``cipher`` being its key."""
        if self._left == 0:
            self._secret = _expand(self._secret, b"next", SECRET_BYTES)
            self._take_up()
        self._left -= 1
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return nonce


def _expand(secret: bytes, name: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, b"underpass e2e 1 " + name).derive(secret)


class Sealer:
    """The sending side of one direction.

    Args:
        secret: 32 bytes that only the two ends know, for this direction of this stream alone.
        rekey_after: records under one key (tests lower it); the same on both sides.
    """

    def __init__(self, secret: bytes, *, rekey_after: int = REKEY_AFTER) -> None:
        self._keys = _Keys(secret, rekey_after)
        self.ended = False

    def seal(self, data: Buffer) -> list[bytes]:
        """*data* as records.

        Raises:
            RuntimeError: after :meth:`end`.
        """
        if len(data) <= MAX_PLAIN:
            return [self._record(DATA, data)]
        view = memoryview(data)
        return [
            self._record(DATA, view[start : start + MAX_PLAIN])
            for start in range(0, len(view), MAX_PLAIN)
        ]

    def end(self) -> bytes:
        """The record that says that nothing follows.

        Raises:
            RuntimeError: when called again.
        """
        record = self._record(END, b"")
        self.ended = True
        return record

    def _record(self, kind: int, plain: Buffer) -> bytes:
        if self.ended:
            raise RuntimeError("the end is sealed already")
        header = _header(kind, len(plain) + TAG)
        nonce = self._keys.nonce()
        return header + self._keys.cipher.encrypt(nonce, plain, header)


class Unsealer:
    """The receiving side of one direction.

    Args:
        secret: the sealer's.
        rekey_after: the sealer's.
    """

    def __init__(self, secret: bytes, *, rekey_after: int = REKEY_AFTER) -> None:
        self._keys = _Keys(secret, rekey_after)
        self._input = Pieces()
        self.ended = False
        """The sealed end came."""

    def feed(self, data: Buffer) -> None:
        """Take bytes; a view is kept as it is until :meth:`keep`."""
        self._input.add(data)

    def keep(self) -> None:
        """Copy what is kept of views."""
        self._input.keep()

    def next(self) -> bytes | None:
        """What is in the next record; None when more has to come, or nothing comes any more.

        Raises:
            Tampered: the record is not the next one that the peer sealed. The stream is over: a
                later record may not be taken.
        """
        if self.ended:
            if self._input.size:
                raise Tampered("Bytes came after the sealed end of the stream.")
            return None
        if self._input.size < HEADER:
            return None
        header = self._input.peek(HEADER)
        kind, length = header[0], int.from_bytes(header[1:], "big")
        if not _is_sound(kind, length):
            raise Tampered("A sealed record has a header that nobody wrote.")
        if self._input.size < HEADER + length:
            return None
        self._input.take(HEADER)
        nonce = self._keys.nonce()
        try:
            plain = self._keys.cipher.decrypt(nonce, self._input.take(length), header)
        except InvalidTag:
            raise Tampered("A sealed record was changed on its way.") from None
        if kind == END:
            self.ended = True
            return self.next()
        return plain

    def finish(self) -> None:
        """The flow is over.

        Raises:
            Tampered: code ``truncated``: the peer did not say so.
        """
        if not self.ended:
            raise Tampered("The stream was cut off before its sealed end.", code="truncated")


def _is_sound(kind: int, length: int) -> bool:
    if kind == DATA:
        return TAG < length <= MAX_PLAIN + TAG
    return kind == END and length == TAG


def _header(kind: int, length: int) -> bytes:
    return (kind << 24 | length).to_bytes(HEADER, "big")
