"""Records a session without ever making it wait: a bounded queue, and a writer thread behind it.

The thread gathers what came and flushes at least every half second, so a kill −9 loses less than
one second. When the disk does not keep up, output is left out of the recording, with a mark that
says how much; the person typing never notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from underpass.core.clock import Clock
from underpass.core.metrics import RECORDING_BYTES
from underpass.store.files.recording_file import (
    Exited,
    Finished,
    Item,
    Marked,
    Output,
    RecordingFile,
    RecordingLost,
    Resized,
    Skipped,
)

__all__ = ["Recorder"]

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

QUEUE_BYTES = 1024 * 1024
QUEUE_ITEMS = 8192
FLUSH_SECONDS = 0.4
FLUSH_BYTES = 64 * 1024


class Recorder:
    """The recording of one session.

    Args:
        recording_id: names the files and the row.
        file: open, and only ours.
        start_us: time of the first event on the recording's own clock, in microseconds; more than
            0 when a recording is continued.
        executor: threads that may block on the disk.
        clock: its monotonic side makes the times.
    """

    def __init__(
        self,
        recording_id: str,
        file: RecordingFile,
        *,
        executor: Executor,
        clock: Clock,
        start_us: int = 0,
    ) -> None:
        self.recording_id = recording_id
        self.failed: RecordingLost | None = None
        self.position = file.output_offset
        """Output offset up to which all is written or given up."""
        self.size = file.size
        self.finished: Finished | None = None
        self._file = file
        self._executor = executor
        self._clock = clock
        self._origin = clock.monotonic() - max(start_us, file.last_us) / 1e6
        self._on_progress: Callable[[], None] = lambda: None
        self._on_failure: Callable[[RecordingLost], None] = lambda _error: None
        self._queue: deque[Item] = deque()
        self._queued = 0
        self._skipped = 0
        self._accepted = self.position
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._flushed = asyncio.Event()
        self._closing = False
        self._turn = asyncio.Lock()

    @property
    def duration(self) -> float:
        """Seconds up to the last event that is written."""
        return self._file.last_us / 1e6

    def watch(
        self, on_progress: Callable[[], None], on_failure: Callable[[RecordingLost], None]
    ) -> None:
        """Set who is told of each flush, and of the disk's refusal."""
        self._on_progress, self._on_failure = on_progress, on_failure

    # -- what happens; never waits ----------------------------------------------------------------

    def output(self, data: bytes) -> None:
        """The session printed *data*."""
        if self._closing:
            return
        self._accepted += len(data)
        if self._queued + len(data) > QUEUE_BYTES or len(self._queue) >= QUEUE_ITEMS:
            self._skipped += len(data)
            return
        now = self._now_us()
        self._put_skipped(now)
        last = self._queue[-1] if self._queue else None
        if isinstance(last, Output) and now - last.at_us < 10_000 and len(last.data) < 16384:
            # Bytes that came together are one event, as the eye sees them.
            self._queue[-1] = Output(last.at_us, last.data + data)
        else:
            self._queue.append(Output(now, data))
        self._queued += len(data)
        self._wake.set()
        if self._queued >= FLUSH_BYTES:
            self._full.set()

    def skip(self, count: int) -> None:
        """*count* bytes of output will never come (the agent no longer has them)."""
        self._accepted += count
        self._skipped += count
        self._put_skipped(self._now_us())
        self._wake.set()

    def resize(self, cols: int, rows: int) -> None:
        """The terminal has another size."""
        self._put(Resized(self._now_us(), cols, rows))

    def marker(self, label: str) -> None:
        """Something happened that is not output: detached, joined, link lost…"""
        self._put(Marked(self._now_us(), label))

    def _put(self, item: Item) -> None:
        if not self._closing and len(self._queue) < 2 * QUEUE_ITEMS:
            self._put_skipped(item.at_us)
            self._queue.append(item)
            self._wake.set()

    def _put_skipped(self, at_us: int) -> None:
        if self._skipped:
            self._queue.append(Skipped(at_us, self._skipped))
            self._skipped = 0

    def _now_us(self) -> int:
        return max(0, round((self._clock.monotonic() - self._origin) * 1e6))

    # -- the writer -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until :meth:`finish` or :meth:`pause`; the hub runs this as a task."""
        while not self._closing and self.failed is None:
            await self._wake.wait()
            # Gather a little, but not when there is already a lot.
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._full.wait()
            except TimeoutError:
                pass
            if not self._closing:
                await self._write()

    async def _write(self) -> None:
        # finish() may come while run() is in the thread; the file is never used by two.
        async with self._turn:
            await self._write_now()

    async def _write_now(self) -> None:
        self._wake.clear()
        self._full.clear()
        self._put_skipped(self._now_us())
        items = list(self._queue)
        self._queue.clear()
        self._queued = 0
        accepted = self._accepted
        if not items or self.failed is not None:
            return

        def work() -> None:
            self._file.write(items)
            self._file.flush()

        before = self._file.size
        try:
            await self._in_thread(work)
        except RecordingLost as error:
            self._fail(error)
            return
        self.position = accepted
        self._progressed(before)

    def _progressed(self, before: int) -> None:
        self.size = self._file.size
        RECORDING_BYTES.inc(max(0, self.size - before))
        flushed, self._flushed = self._flushed, asyncio.Event()
        flushed.set()
        self._on_progress()

    def _fail(self, error: RecordingLost) -> None:
        self.failed = error
        self._queue.clear()
        self._queued = 0
        self._file.close()
        _log.error("recording_failed", recording_id=self.recording_id, error=str(error))
        self._flushed.set()
        self._on_failure(error)
        self._on_progress()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # A thread can't be interrupted: cancellation waits for it, so that the file is never
        # used by two at once.
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future], timeout=10.0)
            raise

    # -- the end ----------------------------------------------------------------------------------

    async def finish(self, status: str | None = None) -> Finished | None:
        """Write what is left and close for good; None when the recording had failed.

        Call it after the task of :meth:`run` has ended. Safe to call twice.
        """
        self._closing = True
        self._wake.set()
        self._full.set()
        if self.finished is not None or self.failed is not None:
            return self.finished
        if status is not None:
            self._queue.append(Exited(self._now_us(), status))
        before = self._file.size
        await self._write()
        if self.failed is not None:
            return None
        try:
            self.finished = await self._in_thread(self._file.finish)
        except RecordingLost as error:
            self._fail(error)
            return None
        self._progressed(before)
        return self.finished

    async def pause(self) -> None:
        """Write what is left and let go, for a gateway that stops; the file stays unfinished."""
        self._closing = True
        self._wake.set()
        self._full.set()
        if self.failed is None and self.finished is None:
            await self._write()
            self._file.close()

    async def more(self, size: int, timeout: float) -> None:
        """Wait until the cast is longer than *size* bytes, it ended, or *timeout* s passed."""
        if self.size > size or self.finished is not None or self.failed is not None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._flushed.wait()
        except TimeoutError:
            pass
