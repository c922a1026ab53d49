"""Writes one recording: cast, side index and text, which a crash at any moment leaves in step.

Synchronous on purpose: it runs in a writer thread (``gateway.terminals.recorder``). What is given
to :meth:`RecordingFile.write` is gathered in memory; :meth:`RecordingFile.flush` writes the cast
first, then the text, then one checkpoint line that ties their lengths to the session's output
offset. A crash between two of these leaves bytes after the last checkpoint, which
:meth:`RecordingFile.reopen` cuts off; the agent still has that output and sends it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underpass.core.errors import Unavailable
from underpass.store.files.places import Places
from underpass.wire.asciicast import CastHeader, CastWriter
from underpass.wire.cast_index import CastIndex, Checkpoint, Keyframes, Marker, encode_entries
from underpass.wire.screen_text import TextStripper, stamp

__all__ = [
    "Exited",
    "Finished",
    "Item",
    "Marked",
    "Output",
    "RecordingFile",
    "RecordingLost",
    "Resized",
    "Skipped",
]

MAX_TEXT = 16 * 1024 * 1024
"""Bytes of plain text kept for searching one recording; what comes later can't be searched."""
_STAMP_EVERY = 100_000  # µs; closer lines share a time
_READ = 1 << 20


class RecordingLost(Unavailable):
    """The recording can't be written (disk full, file gone); what was flushed stays readable."""

    code = "recording_failed"


@dataclass(frozen=True, slots=True)
class Output:
    """Terminal output, with the microsecond it arrived."""

    at_us: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """*count* output bytes that are not in the recording (a slow disk, a long absence)."""

    at_us: int
    count: int


@dataclass(frozen=True, slots=True)
class Resized:
    at_us: int
    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class Marked:
    at_us: int
    label: str


@dataclass(frozen=True, slots=True)
class Exited:
    at_us: int
    status: str


Item = Output | Skipped | Resized | Marked | Exited


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known of a recording when no more will be written to it."""

    size: int
    duration: float
    sha256: str


class RecordingFile:
    """One open recording. Not thread-safe: one writer at a time.

    Attributes:
        output_offset: the session's output bytes that the last :meth:`flush` made durable, or that
            were skipped; after :meth:`reopen`, where output must go on.
        size: bytes of the cast that are flushed.
    """

    def __init__(
        self, where: Places, header: CastHeader, version: Literal[2, 3], limit: int | None
    ) -> None:
        self.where = where
        self.size = 0
        self.output_offset = 0
        self._limit = limit
        self._limit_said = False
        self._cols, self._rows = header.width, header.height
        self._writer = CastWriter(version)
        self._stripper = TextStripper()
        self._keyframes = Keyframes()
        self._hash = hashlib.sha256()
        self._cast_fd = self._index_fd = self._text_fd = -1
        self._cast = bytearray()
        self._text = bytearray()
        self._entries: list[Checkpoint | Marker] = []
        self._text_size = 0
        self._index_size = 0
        self._taken = 0  # output bytes given to write(), or skipped
        self._line_start = True
        self._stamped = -_STAMP_EVERY

    @classmethod
    def create(
        cls,
        where: Places,
        header: CastHeader,
        *,
        version: Literal[2, 3] = 2,
        limit: int | None = None,
    ) -> RecordingFile:
        """Begin a recording: the header is on disk when this returns.

        Args:
            limit: bytes of cast after which output is no longer recorded (a marker says so).

        Raises:
            RecordingLost: the files can't be made.
        """
        made = cls(where, header, version, limit)
        try:
            where.cast.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made._open(os.O_CREAT | os.O_EXCL)
        except OSError as error:
            made.close()
            raise _lost(error) from error
        made._cast += made._writer.header(header)
        made.flush()
        return made

    @classmethod
    def reopen(
        cls,
        where: Places,
        header: CastHeader,
        *,
        version: Literal[2, 3] = 2,
        limit: int | None = None,
    ) -> RecordingFile:
        """Go on with a recording after a crash or restart, from its last checkpoint.

        Raises:
            RecordingLost: it is gone, or not even its header is whole.
        """
        made = cls(where, header, version, limit)
        try:
            made._open(0)
            made._rewind()
        except OSError as error:
            made.close()
            raise _lost(error) from error
        return made

    @property
    def last_us(self) -> int:
        """Time of the last event, in microseconds since the start."""
        return self._writer.last_us

    @property
    def gathered(self) -> int:
        """Bytes written but not yet flushed."""
        return len(self._cast)

    def write(self, items: Iterable[Item]) -> None:
        """Take *items* in order; nothing reaches the disk before :meth:`flush`."""
        writer = self._writer
        for item in items:
            match item:
                case Output(at_us, data):
                    self._taken += len(data)
                    if self._full(at_us):
                        continue
                    self._cast += writer.output(data, at_us)
                    self._index_text(writer.text, writer.last_us)
                case Skipped(at_us, count):
                    self._taken += count
                    if not self._full(at_us):
                        # The character that was cut in two is lost with the rest.
                        self._cast += writer.flush(at_us)
                        self._mark(f"[output skipped {count} bytes]", at_us)
                case Resized(at_us, cols, rows):
                    self._cols, self._rows = cols, rows
                    self._cast += writer.resize(cols, rows, at_us)
                case Marked(at_us, label):
                    self._mark(label, at_us)
                case Exited(at_us, status):
                    self._cast += writer.flush(at_us) + writer.exit(status, at_us)
        if len(self._cast) >= _READ:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, then the checkpoint that vouches for it.

        Raises:
            RecordingLost: the disk refuses; the cast is cut back to the last checkpoint.
        """
        if not self._cast and self._taken - self._writer.pending == self.output_offset:
            return
        before = self.size, self._text_size, self._index_size
        try:
            _write_all(self._cast_fd, self._cast)
            _write_all(self._text_fd, self._text)
            size = self.size + len(self._cast)
            offset = self._taken - self._writer.pending
            at_us = self._writer.last_us
            self._entries.append(
                Checkpoint(
                    at_us, size, offset, self._text_size + len(self._text), self._cols,
                    self._rows, self._keyframes.due(at_us, size),
                )
            )  # fmt: skip
            lines = encode_entries(self._entries)
            _write_all(self._index_fd, lines)
        except OSError as error:
            self._cut(*before)
            raise _lost(error) from error
        self._hash.update(self._cast)
        self.size, self.output_offset = size, offset
        self._text_size += len(self._text)
        self._index_size += len(lines)
        self._cast.clear()
        self._text.clear()
        self._entries.clear()

    def finish(self) -> Finished:
        """Write the rest, keep only keyframes and markers of the index, give the checksum.

        Raises:
            RecordingLost: as :meth:`flush`.
        """
        self._cast += self._writer.flush(self._writer.last_us)
        self._index_text(self._writer.text, self._writer.last_us)
        self.flush()
        try:
            os.fdatasync(self._cast_fd)
        except OSError as error:
            raise _lost(error) from error
        finally:
            self.close()
        compact_index(self.where, self.size)
        return Finished(self.size, self._writer.last_us / 1e6, self._hash.hexdigest())

    def close(self) -> None:
        """Let go of the files without finishing. Safe to call twice."""
        for fd in (self._cast_fd, self._index_fd, self._text_fd):
            if fd >= 0:
                os.close(fd)
        self._cast_fd = self._index_fd = self._text_fd = -1

    def _open(self, flags: int) -> None:
        flags |= os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._cast_fd = os.open(self.where.cast, flags, 0o600)
        # The other two can be made anew where the cast is all that is left.
        self._index_fd = os.open(self.where.index, flags | os.O_CREAT, 0o600)
        self._text_fd = os.open(self.where.text, flags | os.O_CREAT, 0o600)

    def _rewind(self) -> None:
        cast_size = os.fstat(self._cast_fd).st_size
        text_size = os.fstat(self._text_fd).st_size
        index = CastIndex.parse(_read_all(self.where.index), cast_size=cast_size,
                                text_size=text_size)  # fmt: skip
        last = index.last
        if last is None:
            raise FileNotFoundError("no checkpoint")
        self._cut(last.f, last.x, index.consumed)
        self.size, self._text_size, self._index_size = last.f, last.x, index.consumed
        self.output_offset = self._taken = last.o
        self._cols, self._rows = last.c, last.r
        self._writer = CastWriter(self._writer.version, last_us=last.t)  # pyright: ignore
        newest = index.keyframes[-1] if index.keyframes else Checkpoint(0, 0, 0)
        self._keyframes = Keyframes(newest.t, newest.f)
        position = 0
        while piece := os.pread(self._cast_fd, _READ, position):
            self._hash.update(piece)
            position += len(piece)
        tail = os.pread(self._text_fd, 1, last.x - 1) if last.x else b"\n"
        self._line_start = tail == b"\n"

    def _cut(self, cast: int, text: int, index: int) -> None:
        for fd, size in ((self._cast_fd, cast), (self._text_fd, text), (self._index_fd, index)):
            if fd >= 0:
                os.ftruncate(fd, size)

    def _full(self, at_us: int) -> bool:
        if self._limit is None or self.size + len(self._cast) < self._limit:
            return False
        if not self._limit_said:
            self._limit_said = True
            self._mark("[recording limit reached: further output is not recorded]", at_us)
        return True

    def _mark(self, label: str, at_us: int) -> None:
        self._cast += self._writer.marker(label, at_us)
        self._entries.append(Marker(self._writer.last_us, label[:1024]))

    def _index_text(self, text: str, at_us: int) -> None:
        plain = self._stripper.feed(text) if text else ""
        if not plain or self._text_size + len(self._text) > MAX_TEXT:
            return
        # Times stand only between lines, so that a word typed slowly is still found.
        if not self._line_start:
            end = plain.find("\n") + 1
            if not end:
                self._text += plain.encode(errors="replace")
                return
            self._text += plain[:end].encode(errors="replace")
            plain = plain[end:]
        if plain and at_us - self._stamped >= _STAMP_EVERY:
            self._text += stamp(at_us)
            self._stamped = at_us
        self._text += plain.encode(errors="replace")
        self._line_start = not plain or plain.endswith("\n")


def compact_index(where: Places, cast_size: int) -> CastIndex:
    """Keep only keyframes, markers and the last checkpoint of a recording that is over."""
    index = CastIndex.parse(_read_all(where.index), cast_size=cast_size)
    entries: list[Checkpoint | Marker] = sorted(
        [*index.keyframes, *index.markers], key=lambda entry: entry.t
    )
    if index.last is not None and not index.last.k:
        entries.append(index.last)
    fresh = where.index.with_suffix(".index.new")
    try:
        fresh.write_bytes(encode_entries(entries))
        fresh.chmod(0o600)
        fresh.replace(where.index)
    except OSError:
        # The long index works just as well; a full disk must not lose the recording.
        fresh.unlink(missing_ok=True)
    return index


def _write_all(fd: int, data: bytes | bytearray) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(fd, view[done : done + _READ])


def _read_all(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _lost(error: OSError) -> RecordingLost:
    return RecordingLost(
        f"The recording can't be written: {error.strerror or 'the file is damaged'}.",
        hint="Free some disk space, or change the recording directory.",
    )
