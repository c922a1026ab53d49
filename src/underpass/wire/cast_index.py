"""The side index of a recording: where to seek to, where a crashed recording goes on.

A file of JSON lines beside the cast. A *checkpoint* says that the cast's first ``f`` bytes hold
exactly the session's first ``o`` output bytes (and the text index its first ``x``), so after a
crash both files are cut to the last checkpoint and the agent is asked for output from ``o`` on.
A checkpoint with ``k`` is also a *keyframe*, kept for seeking when the recording is finished.
See docs/adr/0006-recordings.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "KEYFRAME_BYTES",
    "KEYFRAME_MICROS",
    "CastIndex",
    "Checkpoint",
    "Keyframes",
    "Marker",
    "encode_entries",
]

KEYFRAME_MICROS = 10_000_000
KEYFRAME_BYTES = 256 * 1024
_MAX_ENTRIES = 200_000

_Count = Annotated[int, Meta(ge=0, le=2**62)]


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """The cast up to byte ``f`` is the session up to output byte ``o``, at time ``t`` (µs)."""

    t: _Count
    f: _Count
    o: _Count
    x: _Count = 0
    c: _Count = 80
    r: _Count = 24
    k: bool = False


class Marker(Struct, frozen=True):
    """An ``m`` event at time ``t`` (µs)."""

    t: _Count
    m: Annotated[str, Meta(max_length=1024)]


_encoder = msgspec.json.Encoder()
_checkpoint: msgspec.json.Decoder[Checkpoint] = msgspec.json.Decoder(Checkpoint)
_marker: msgspec.json.Decoder[Marker] = msgspec.json.Decoder(Marker)


class Keyframes:
    """Says when the next keyframe is due: every 10 s of time or 256 KiB of file."""

    def __init__(self, time_us: int = 0, file_offset: int = 0) -> None:
        self._time_us = time_us
        self._file_offset = file_offset

    def due(self, time_us: int, file_offset: int) -> bool:
        """Whether the checkpoint at this place should be a keyframe; remembers it if so."""
        if (
            time_us - self._time_us < KEYFRAME_MICROS
            and file_offset - self._file_offset < KEYFRAME_BYTES
        ):
            return False
        self._time_us, self._file_offset = time_us, file_offset
        return True


@dataclass(slots=True)
class CastIndex:
    """A parsed side index.

    Attributes:
        keyframes, markers: in order of time.
        last: the newest checkpoint whose line is whole, or None.
        consumed: bytes of the index up to the end of its last usable line.
    """

    keyframes: list[Checkpoint] = field(default_factory=list[Checkpoint])
    markers: list[Marker] = field(default_factory=list[Marker])
    last: Checkpoint | None = None
    consumed: int = 0

    @classmethod
    def parse(cls, data: bytes, *, cast_size: int, text_size: int | None = None) -> CastIndex:
        """Read an index as far as it agrees with files of these sizes (in bytes).

        Reading stops at the first line that is unfinished, malformed, or points past the end of
        the cast: whatever follows was never made durable together with it.
        """
        index = cls()
        position = 0
        while (end := data.find(b"\n", position)) >= 0:
            entry = _parse(data[position:end])
            if entry is None or len(index.keyframes) + len(index.markers) >= _MAX_ENTRIES:
                break
            if isinstance(entry, Marker):
                index.markers.append(entry)
            else:
                if entry.f > cast_size or (text_size is not None and entry.x > text_size):
                    break
                if index.last is not None and (entry.f < index.last.f or entry.o < index.last.o):
                    break
                index.last = entry
                if entry.k:
                    index.keyframes.append(entry)
            position = index.consumed = end + 1
        return index

    def seek(self, time_us: int) -> Checkpoint | None:
        """The last keyframe at or before *time_us*; None when only the start is."""
        low, high = 0, len(self.keyframes)
        while low < high:
            middle = (low + high) // 2
            if self.keyframes[middle].t <= time_us:
                low = middle + 1
            else:
                high = middle
        return self.keyframes[low - 1] if low else None


def encode_entries(entries: Iterable[Checkpoint | Marker]) -> bytes:
    """The lines of *entries*."""
    return b"".join(_encoder.encode(entry) + b"\n" for entry in entries)


def _parse(line: bytes) -> Checkpoint | Marker | None:
    decoders: tuple[msgspec.json.Decoder[Any], ...] = (_checkpoint, _marker)
    for decoder in decoders:
        try:
            return decoder.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue
    return None
