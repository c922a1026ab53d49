"""A recording as it is written: what is in the file from a byte on, then what is added to it.

It only ever reads the file, by offset, so there is nothing to join and nothing to drop: a slow
viewer reads later, and a recorder never waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from underpass.core.errors import NotFound
from underpass.gateway.terminals.recording_desk import RecordingDesk

__all__ = ["LiveView"]

_BLOCK = 256 * 1024
_LOOK_SECONDS = 3.0
"""How often, at least, the viewer's right is checked again."""


class LiveView:
    """One viewer.

    Args:
        offset: byte of the cast to begin at; the middle of a line is allowed.

    Attributes:
        close_code: why :meth:`send` returned (spec 7).
    """

    def __init__(self, desk: RecordingDesk, recording_id: str, offset: int) -> None:
        self.offset = offset
        self.close_code = 1000
        self._desk = desk
        self._id = recording_id

    async def send(
        self,
        send_text: Callable[[str], Awaitable[None]],
        allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        """Send whole lines until the recording is over or *allowed* says no.

        Args:
            send_text: takes one or more whole lines at a time (the first may be the rest of one).
            allowed: asked at least every few seconds.
        """
        desk = self._desk
        now = asyncio.get_running_loop().time
        checked = now()
        while True:
            recorder = desk.recorders.get(self._id)
            size = await self._size(recorder is not None)
            while self.offset < size:
                await self._send_some(send_text, size)
                if now() - checked >= _LOOK_SECONDS:  # a slow reader of a long recording
                    if not await allowed():
                        self.close_code = 4403
                        return
                    checked = now()
            if recorder is None or recorder.finished is not None or recorder.failed is not None:
                if await self._size(False) <= self.offset:
                    return
                continue
            await recorder.more(self.offset, _LOOK_SECONDS)
            if not await allowed():
                self.close_code = 4403
                return
            checked = now()

    async def _size(self, written: bool) -> int:
        store = self._desk.store
        recorder = self._desk.recorders.get(self._id)
        if written and recorder is not None:
            return recorder.size  # whole lines only, all of them flushed
        try:
            return await self._desk.in_thread(lambda: store.whole_size(self._id))
        except NotFound:
            return 0

    async def _read(self, offset: int, count: int) -> bytes:
        return await self._desk.in_thread(lambda: self._desk.store.read(self._id, offset, count))

    async def _send_some(self, send_text: Callable[[str], Awaitable[None]], size: int) -> None:
        count = min(_BLOCK, size - self.offset)
        piece = await self._read(self.offset, count)
        end = piece.rfind(b"\n") + 1
        while not end:
            # A line longer than a block (a flood's single event): read on to its end.
            more = await self._read(self.offset + len(piece), _BLOCK)
            if not more:
                end = len(piece)
                break
            seen = len(piece)
            piece += more
            end = piece.rfind(b"\n", seen) + 1
        if not piece:
            self.offset = size
            return
        self.offset += end
        await send_text(piece[:end].decode(errors="replace"))
