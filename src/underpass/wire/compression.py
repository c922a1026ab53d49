"""Compressed records: a byte flow cut into pieces that are each stored or compressed.

A record is ``kind u8 | plain length u24 | body length u24`` (big-endian) and its body. A body holds
at most 64 KiB of plain bytes, so no record expands above 64 KiB, whatever it says: one that claims
more, that is not smaller than what it stands for, or that gives another length than it claims is
an error. Every record stands for itself; no stream keeps a window in memory.

Writers put bytes in and flush at the end of a burst: nothing waits for a record to fill.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal

import lz4.block  # pyright: ignore[reportMissingTypeStubs]
import zstandard

from underpass.core.errors import UnderpassError
from underpass.wire.pieces import Buffer, Pieces

__all__ = ["HEADER", "MAX_PLAIN", "BadRecord", "Codec", "Decoder", "Encoder"]

Codec = Literal["zstd", "lz4", "gzip", "adaptive"]

MAX_PLAIN: Final = 64 << 10
"""Plain bytes of a record at most."""
HEADER: Final = 7
STORED, ZSTD, LZ4, GZIP = range(4)
_KINDS: Final[dict[Codec, int]] = {"zstd": ZSTD, "lz4": LZ4, "gzip": GZIP, "adaptive": ZSTD}

SMALLEST: Final = 96
"""Bytes below which nothing is tried: a keystroke does not get shorter."""
PAYS: Final = 0.9
"""A record has to shrink to this part of itself, else it is stored; half the work is the peer's."""

# The adaptive codec:
TRIES: Final = 4
"""Full records in a row that do not pay before it stops compressing."""
SAMPLE: Final = 8 << 10
"""Bytes of the sample that decides whether to begin again."""
FIRST_REST: Final = 1 << 20
"""Bytes stored before the first sample; doubled with each one that does not pay."""
LONGEST_REST: Final = 16 << 20

_JOIN: Final = 4096
"""Bytes above which copying costs more than one more buffer."""

_pack = struct.Struct(">BBHBH").pack
_local = threading.local()  # zstandard's objects are for one thread each, and cost a megabyte


class BadRecord(UnderpassError):
    """What came is no record; the stream can't go on."""

    code, status, close_code = "bad_compression", 502, 4502


class Encoder:
    """Makes records of what is put in.

    Args:
        codec: how.
    """

    def __init__(self, codec: Codec) -> None:
        self._kind = _KINDS[codec]
        self._compress = _COMPRESS[self._kind]
        self._adaptive = codec == "adaptive"
        self._waiting = Pieces()
        self._useless = 0  # full records in a row that did not pay
        self._rest = FIRST_REST
        self._stored = 0  # bytes to store before the next sample

    @property
    def waiting(self) -> int:
        """Bytes that :meth:`flush` would send."""
        return self._waiting.size

    def put(self, data: Buffer) -> list[Buffer]:
        """Add *data*; gives what is to be sent of full records."""
        self._waiting.add(data)
        out: list[Buffer] = []
        while self._waiting.size >= MAX_PLAIN:
            self._record(self._waiting.take(MAX_PLAIN), out)
        return out

    def flush(self) -> list[Buffer]:
        """What is to be sent of everything put in so far."""
        out: list[Buffer] = []
        if self._waiting.size:
            self._record(self._waiting.take(self._waiting.size), out)
        return out

    def _record(self, plain: Buffer, out: list[Buffer]) -> None:
        size = len(plain)
        if size >= SMALLEST and self._worth_trying(plain):
            body = self._compress(plain)
            pays = len(body) < size * PAYS
            if self._adaptive:
                self._learn(size, pays)
            if pays:
                out.append(_header(self._kind, size, len(body)) + body)
                return
        header = _header(STORED, size, size)
        if size < _JOIN:
            out.append(header + plain)
        else:
            out += (header, plain)

    def _worth_trying(self, plain: Buffer) -> bool:
        if self._stored <= 0:
            return True
        self._stored -= len(plain)
        if self._stored > 0:
            return False
        sample = plain[:SAMPLE]
        if len(self._compress(sample)) < len(sample) * PAYS:
            self._useless = 0
            self._stored = 0
            self._rest = FIRST_REST
            return True
        self._rest = min(self._rest * 2, LONGEST_REST)
        self._stored = self._rest
        return False

    def _learn(self, size: int, pays: bool) -> None:
        if pays:
            self._useless = 0
        elif size == MAX_PLAIN:
            self._useless += 1
            if self._useless >= TRIES:
                self._stored = self._rest


class Decoder:
    """Gives back what an :class:`Encoder` was given.

    Args:
        codec: the encoder's.
    """

    def __init__(self, codec: Codec) -> None:
        self._kind = _KINDS[codec]
        self._input = Pieces()
        self._stored = 0  # bytes left of a stored record

    def feed(self, data: Buffer) -> None:
        """Take bytes; a view is kept as it is until :meth:`keep`."""
        self._input.add(data)

    def keep(self) -> None:
        """Copy what is kept of views."""
        self._input.keep()

    def next(self) -> Buffer | None:
        """The next plain bytes; None when more has to come.

        Raises:
            BadRecord: what came is no record.
        """
        if self._stored:
            return self._some_stored()
        if self._input.size < HEADER:
            return None
        head = self._input.peek(HEADER)
        kind = head[0]
        size, length = int.from_bytes(head[1:4], "big"), int.from_bytes(head[4:], "big")
        if not 0 < size <= MAX_PLAIN:
            raise BadRecord(f"A compressed record stands for {size} bytes.")
        if kind == STORED:
            if length != size:
                raise BadRecord("A stored record has two lengths.")
            self._input.take(HEADER)
            self._stored = size
            return self._some_stored()
        if kind != self._kind:
            raise BadRecord(f"A compressed record is of kind {kind}, agreed was {self._kind}.")
        if not 0 < length < size:
            raise BadRecord(f"A compressed record has {length} bytes for {size}.")
        if self._input.size < HEADER + length:
            return None
        self._input.take(HEADER)
        plain = _DECOMPRESS[kind](self._input.take(length), size)
        if len(plain) != size:
            raise BadRecord("A compressed record does not give what it says.")
        return plain

    def finish(self) -> None:
        """The flow is over.

        Raises:
            BadRecord: in the middle of a record.
        """
        if self._input.size or self._stored:
            raise BadRecord("The stream ended in the middle of a compressed record.")

    def _some_stored(self) -> Buffer | None:
        if not self._input.size:
            return None
        piece = self._input.some(self._stored)
        self._stored -= len(piece)
        return piece


def _header(kind: int, size: int, length: int) -> bytes:
    return _pack(kind, size >> 16, size & 0xFFFF, length >> 16, length & 0xFFFF)


# -- the codecs -------------------------------------------------------------------------------


def _zstd_compress(plain: Buffer) -> bytes:
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=1)
    return compressor.compress(plain)


def _zstd_decompress(body: Buffer, size: int) -> bytes:
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        # What the frame says of itself decides how much memory it gets: look before.
        if zstandard.get_frame_parameters(body).content_size != size:
            raise BadRecord("A compressed record does not give what it says.")
        return decompressor.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        raise BadRecord("A compressed record is damaged.") from None


def _lz4_compress(plain: Buffer) -> bytes:
    return _lz4.compress(plain, store_size=False)


def _lz4_decompress(body: Buffer, size: int) -> bytes:
    try:
        return _lz4.decompress(body, uncompressed_size=size)
    except _lz4.LZ4BlockError:
        raise BadRecord("A compressed record is damaged.") from None


def _gzip_compress(plain: Buffer) -> bytes:
    return zlib.compress(plain, 1)


def _gzip_decompress(body: Buffer, size: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(body, size + 1)
    except zlib.error:
        raise BadRecord("A compressed record is damaged.") from None
    if not decompressor.eof or decompressor.unused_data:
        raise BadRecord("A compressed record does not end where it should.")
    return plain


_lz4: Any = lz4.block  # has no type stubs
_COMPRESS: Final[dict[int, Callable[[Buffer], bytes]]] = {
    ZSTD: _zstd_compress, LZ4: _lz4_compress, GZIP: _gzip_compress,
}  # fmt: skip
_DECOMPRESS: Final[dict[int, Callable[[Buffer, int], bytes]]] = {
    ZSTD: _zstd_decompress, LZ4: _lz4_decompress, GZIP: _gzip_decompress,
}  # fmt: skip
