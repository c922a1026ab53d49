"""Records on a path of a resumable stream: a kind (u8), a length (u24), then that many bytes.

====== ======= ================================================================
HELLO  20      magic, received u64, consumed u64: the agent's first on any path
DATA   1 up    bytes; their offset follows from what came before
ACK    16      received u64, consumed u64
EOF    0       nothing follows in this direction
RESET  1 up    code, 0, message: the stream is over both ways
====== ======= ================================================================

``wire/resumption.py`` tells what they mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from underpass.core.errors import InvalidRequest

__all__ = ["HEADER", "MAX_DATA", "Ended", "Item", "Progress", "Record", "RecordDecoder", "Reset",
           "ResumptionError", "encode_offsets", "encode_record", "encode_reset"]  # fmt: skip

MAX_DATA: Final = 64 << 10
"""Bytes of data in one record."""
HEADER: Final = 4
"""Bytes before a record's payload."""
_MAGIC: Final = b"UPR1"
_WORD: Final = struct.Struct(">I")
_OFFSETS: Final = struct.Struct(">QQ")


class Record(IntEnum):
    """What a record is."""

    DATA = 0
    ACK = 1
    EOF = 2
    RESET = 3
    HELLO = 4


_LENGTHS: Final[dict[int, tuple[int, int]]] = {
    Record.DATA: (1, MAX_DATA),
    Record.ACK: (16, 16),
    Record.EOF: (0, 0),
    Record.RESET: (1, 1300),
    Record.HELLO: (20, 20),
}


class ResumptionError(InvalidRequest):
    """The peer broke the rules, or speaks something else."""

    code = "resumption"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the peer is in what we send."""

    received: int
    consumed: int
    hello: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer is done sending."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer gave the stream up."""

    code: str
    message: str


Item = memoryview | Progress | Ended | Reset
"""What a record, or a part of a DATA record, says."""


def encode_record(kind: Record, payload: bytes | memoryview = b"") -> bytes:
    """One record."""
    return b"".join((_WORD.pack(kind << 24 | len(payload)), payload))


def encode_offsets(received: int, consumed: int, *, hello: bool = False) -> bytes:
    """An ACK or HELLO record."""
    offsets = _OFFSETS.pack(received, consumed)
    return (
        encode_record(Record.HELLO, _MAGIC + offsets)
        if hello
        else encode_record(Record.ACK, offsets)
    )


def encode_reset(code: str, message: str) -> bytes:
    """A RESET record; long texts are cut (by characters, of up to four bytes each)."""
    return encode_record(Record.RESET, f"{code[:64]}\0{message[:256]}".encode())


class RecordDecoder:
    """Takes a path's bytes apart. Data are passed on as they come, records need not be whole."""

    def __init__(self) -> None:
        self._left = 0  # bytes of a DATA record to come
        self._partial = bytearray()  # of a header and a payload that is no data

    def feed(self, chunk: bytes | memoryview) -> list[Item]:
        """What *chunk* says, in order; views are of *chunk*.

        Raises:
            ResumptionError: these are no records.
        """
        items: list[Item] = []
        view = memoryview(chunk)
        partial = self._partial
        at, size = 0, len(view)
        while at < size:
            if self._left:
                piece = view[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                items.append(piece)
                continue
            need = HEADER if len(partial) < HEADER else HEADER + _parse(partial)[1]
            taken = view[at : at + need - len(partial)]
            partial += taken
            at += len(taken)
            if len(partial) < need:
                break
            kind, length = _parse(partial)
            if kind == Record.DATA:
                self._left = length
                partial.clear()
            elif len(partial) == HEADER + length:
                items.append(_item(kind, bytes(partial[HEADER:])))
                partial.clear()
        return items


def _parse(head: bytearray) -> tuple[int, int]:
    """Kind and length of the record that begins with *head*."""
    (word,) = _WORD.unpack_from(head)
    kind, length = word >> 24, word & 0xFFFFFF
    least, most = _LENGTHS.get(kind, (1, 0))
    if not least <= length <= most:
        raise ResumptionError(f"A record of kind {kind} and length {length} came.")
    return kind, length


def _item(kind: int, payload: bytes) -> Item:
    if kind == Record.ACK:
        return Progress(*_OFFSETS.unpack(payload), hello=False)
    if kind == Record.EOF:
        return Ended()
    if kind == Record.HELLO:
        if payload[:4] != _MAGIC:
            raise ResumptionError("The other end resumes in another way.")
        return Progress(*_OFFSETS.unpack_from(payload, 4), hello=True)
    code, _, message = payload.partition(b"\0")
    return Reset(_text(code)[:64] or "stream_reset", _text(message))


def _text(given: bytes) -> str:
    return given.decode("utf-8", "replace")
