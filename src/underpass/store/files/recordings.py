"""The recordings on this machine's disk: make, read, seek, search, recover and remove them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from underpass.core.errors import NotFound
from underpass.store.files.places import Places, places
from underpass.store.files.recording_file import Finished, RecordingFile, compact_index
from underpass.wire.asciicast import CastError, CastHeader, CastReader
from underpass.wire.cast_index import CastIndex
from underpass.wire.screen_text import Hit, find_hits

__all__ = ["LocalRecordings"]

_BLOCK = 1 << 20


class LocalRecordings:
    """A directory of recordings. Every method blocks; call them from a thread.

    Args:
        root: made with mode 0700 when it is missing.
        version: of the asciicasts to write.
    """

    def __init__(self, root: Path, version: Literal[2, 3] = 2) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root.resolve()
        self.version: Literal[2, 3] = version

    def create(
        self, recording_id: str, header: CastHeader, *, limit: int | None = None
    ) -> RecordingFile:
        """Begin a recording. Raises as :meth:`RecordingFile.create`."""
        return RecordingFile.create(
            places(self.root, recording_id), header, version=self.version, limit=limit
        )

    def reopen(
        self, recording_id: str, header: CastHeader, *, limit: int | None = None
    ) -> RecordingFile:
        """Go on with a recording after a restart. Raises as :meth:`RecordingFile.reopen`."""
        return RecordingFile.reopen(
            places(self.root, recording_id), header, version=self.version, limit=limit
        )

    def size(self, recording_id: str) -> int:
        """Bytes of the cast that are on disk.

        Raises:
            NotFound: there is no such file.
        """
        try:
            return places(self.root, recording_id).cast.stat().st_size
        except OSError:
            raise NotFound("There is no such recording.", hint="Check the id.") from None

    def whole_size(self, recording_id: str) -> int:
        """Bytes of the cast up to the end of its last complete line (a crash may have cut one)."""
        size = self.size(recording_id)
        position = size
        while position > 0:
            start = max(0, position - 65536)
            piece = self.read(recording_id, start, position - start)
            newline = piece.rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
        return 0

    def read(self, recording_id: str, offset: int, count: int) -> bytes:
        """At most *count* bytes of the cast from *offset*; short only at the end of the file."""
        where = places(self.root, recording_id)
        try:
            fd = os.open(where.cast, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            raise NotFound("There is no such recording.", hint="Check the id.") from None
        try:
            parts: list[bytes] = []
            while count > 0 and (piece := os.pread(fd, min(count, _BLOCK), offset)):
                parts.append(piece)
                offset += len(piece)
                count -= len(piece)
            return b"".join(parts)
        finally:
            os.close(fd)

    def index(self, recording_id: str) -> CastIndex:
        """The side index; empty when it is lost. Reads the index only, never the cast."""
        where = places(self.root, recording_id)
        size = self.size(recording_id)
        try:
            data = where.index.read_bytes()
        except OSError:
            data = b""
        return CastIndex.parse(data, cast_size=size)

    def search(self, recording_id: str, needle: str, limit: int = 20) -> list[Hit]:
        """The first *limit* lines that hold *needle*, ignoring case."""
        where = places(self.root, recording_id)
        hits: list[Hit] = []
        at = 0
        try:
            with where.text.open("rb") as file:
                rest = b""
                while len(hits) < limit and (piece := file.read(_BLOCK)):
                    data = rest + piece
                    # Keep the unfinished last line for the next round, within reason.
                    cut = data.rfind(b"\n") + 1 if len(piece) == _BLOCK else len(data)
                    if cut == 0 or len(data) - cut > _BLOCK:
                        cut = len(data)
                    found, at = find_hits(data[:cut], needle, limit=limit - len(hits), time_us=at)
                    hits += found
                    rest = data[cut:]
                if rest and len(hits) < limit:
                    found, at = find_hits(rest, needle, limit=limit - len(hits), time_us=at)
                    hits += found
        except FileNotFoundError:
            return []
        return hits

    def interrupt(self, recording_id: str) -> Finished:
        """Close a recording nobody will go on with: cut an unfinished last line, sum it up.

        Raises:
            NotFound: there is no such file.
        """
        where = places(self.root, recording_id)
        size = self.whole_size(recording_id)
        os.truncate(where.cast, size)
        compact_index(where, size)
        digest, duration = self._sum_up(where)
        return Finished(size, duration, digest)

    def _sum_up(self, where: Places) -> tuple[str, float]:
        digest = hashlib.sha256()
        reader = CastReader()
        last_us = 0
        readable = True
        for piece in _pieces(where.cast):
            digest.update(piece)
            if readable:
                try:
                    events = reader.feed(piece)
                except CastError:
                    # A damaged file still gets its checksum.
                    readable = False
                    continue
                if events:
                    last_us = events[-1].time_us
        return digest.hexdigest(), last_us / 1e6

    def delete(self, recording_id: str) -> int:
        """Remove a recording; the bytes this freed. Not an error when it is gone already."""
        freed = 0
        for path in places(self.root, recording_id):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            freed += size
        return freed

    def free_bytes(self) -> int:
        """Free space on the disk the recordings are on."""
        return shutil.disk_usage(self.root).free


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_BLOCK):
            yield piece
