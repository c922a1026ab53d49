"""Begins, continues, ends and tidies recordings: the rows, the files and the rules between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import structlog

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.recordings import RecordingFilter, Recordings, recording_record
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import NotFound, Unavailable
from underpass.core.ids import IdMaker, new_id
from underpass.gateway.terminals.hub import SessionInfo
from underpass.gateway.terminals.recorder import Recorder
from underpass.store.db.models import RecordingRow, TtySession
from underpass.store.files.recording_file import Finished, RecordingFile, RecordingLost
from underpass.store.files.recordings import LocalRecordings
from underpass.wire.asciicast import CastHeader

__all__ = ["RecordingDesk"]

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

RESERVE = 32 * 1024 * 1024
"""Free disk space below which no new recording is begun, in bytes."""
SESSION_LIMIT = 1024 * 1024 * 1024
"""Largest cast of a terminal session, in bytes."""
MAX_SEARCHED = 2000
"""Recordings one search looks into."""
MAX_HITS = 20
"""Lines shown of one recording."""
_SEARCH_STEP = 50
_FINISH_SECONDS = 3.0


class RecordingDesk:
    """Everything about recordings that is not the bytes.

    Args:
        policy: ``strict`` refuses new sessions when recordings can't be written; ``best_effort``
            goes on without, with a ``recording.failed`` event.
        retention: seconds after which recordings go; 0 = never.
        quota: bytes all recordings may take; 0 = no limit.
        writers: threads that may block on the disk.
    """

    def __init__(
        self,
        *,
        store: LocalRecordings,
        recordings: Recordings,
        events: Events,
        bus: LiveBus,
        clock: Clock,
        policy: Literal["strict", "best_effort"] = "best_effort",
        retention: float = 0,
        quota: int = 0,
        writers: int = 4,
        make_id: IdMaker = new_id,
    ) -> None:
        self.store = store
        self.recorders: dict[str, Recorder] = {}
        self._recordings = recordings
        self._events = events
        self._bus = bus
        self._clock = clock
        self._policy = policy
        self._retention = retention
        self._quota = quota
        self._make_id = make_id
        self._executor = ThreadPoolExecutor(writers, thread_name_prefix="recorder")
        self._failed_at: float | None = None

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Run *work*, which blocks on the disk, in a writer thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # -- beginning --------------------------------------------------------------------------------

    async def check(self) -> None:
        """Refuse a new session when recordings are required and can't be written.

        Raises:
            Unavailable: code ``recording_unavailable``.
        """
        if self._policy != "strict":
            return
        try:
            free = await self.in_thread(self.store.free_bytes)
        except OSError:
            free = 0
        if free < RESERVE:
            raise Unavailable(
                "Sessions must be recorded, and the recording disk is full.",
                code="recording_unavailable",
                hint="An admin has to free disk space.",
                retry_after=60,
            )

    async def begin(
        self, info: SessionInfo, *, limit: int = SESSION_LIMIT, kind: str = "pty"
    ) -> Recorder | None:
        """Begin the recording of a session; None when that fails and policy lets it go on.

        Raises:
            Unavailable: code ``recording_unavailable`` (strict).
        """
        recording_id = self._make_id()
        started = self._clock.now()
        header = _header(info, started, kind)
        try:
            if await self.in_thread(self.store.free_bytes) < RESERVE:
                raise RecordingLost("The recording disk is full.")
            file = await self.in_thread(
                lambda: self.store.create(recording_id, header, limit=limit)
            )
        except (RecordingLost, OSError) as error:
            await self._alert(info, recording_id, str(error))
            if self._policy == "strict":
                raise Unavailable(
                    "Sessions must be recorded, and this one can't be.",
                    code="recording_unavailable",
                    hint="An admin has to look at the recording disk.",
                    retry_after=60,
                ) from None
            return None
        await self._recordings.create(
            RecordingRow(
                id=recording_id,
                session_id=info.id,
                asset_id=info.agent_id,
                user_id=info.user_id,
                username=info.username,
                title=header.title,
                status="recording",
                started_at=started,
                width=header.width,
                height=header.height,
            )
        )
        self._bus.publish("recording", _news(recording_id, info, "recording"))
        return self._recorder(recording_id, file, 0)

    async def resume(self, info: SessionInfo, recording_id: str) -> Recorder | None:
        """Go on with a recording after this gateway was restarted; None when it is lost."""
        row = await self._recordings.get(recording_id)
        if row is None or row.status == "finished":
            return None
        header = CastHeader(row.width, row.height)
        try:
            file = await self.in_thread(
                lambda: self.store.reopen(recording_id, header, limit=SESSION_LIMIT)
            )
        except (RecordingLost, NotFound) as error:
            await self._alert(info, recording_id, str(error))
            return None
        if row.status != "recording":
            await self._recordings.change(recording_id, status="recording", sha256=None)
        passed = max(0.0, self._clock.now() - row.started_at)
        return self._recorder(recording_id, file, round(passed * 1e6))

    def _recorder(self, recording_id: str, file: RecordingFile, start_us: int) -> Recorder:
        recorder = Recorder(
            recording_id, file, executor=self._executor, clock=self._clock, start_us=start_us
        )
        self.recorders[recording_id] = recorder
        return recorder

    # -- ending -----------------------------------------------------------------------------------

    async def finish(
        self, recorder: Recorder, info: SessionInfo, status: str | None
    ) -> Finished | None:
        """Write the end of a recording into file and row; what is known of it, if it is whole."""
        finished: Finished | None = None
        try:
            async with asyncio.timeout(_FINISH_SECONDS):
                finished = await recorder.finish(status)
        except TimeoutError:
            _log.error("recording_not_finished_in_time", recording_id=recorder.recording_id)
        self.recorders.pop(recorder.recording_id, None)
        if finished is None:
            await self._recordings.change(
                recorder.recording_id, status="interrupted", size=recorder.size
            )
            if recorder.failed is not None:
                await self._alert(info, recorder.recording_id, str(recorder.failed))
        else:
            await self._recordings.change(
                recorder.recording_id,
                status="finished",
                size=finished.size,
                duration=finished.duration,
                sha256=finished.sha256,
            )
        shown = "interrupted" if finished is None else "finished"
        self._bus.publish("recording", _news(recorder.recording_id, info, shown))
        return finished

    async def interrupt(self, recording_id: str) -> Finished | None:
        """Close a recording nobody will go on with (its session was lost with a crash)."""
        try:
            finished = await self.in_thread(lambda: self.store.interrupt(recording_id))
        except (NotFound, OSError):
            await self._recordings.change(recording_id, status="interrupted")
            return None
        await self._recordings.change(
            recording_id,
            status="interrupted",
            size=finished.size,
            duration=finished.duration,
            sha256=finished.sha256,
        )
        return finished

    async def interrupt_orphans(self, live: list[TtySession]) -> int:
        """At the start: close the recordings of sessions that are over; how many."""
        going_on = {row.recording for row in live if row.recording}
        count = 0
        for row in await self._recordings.unfinished():
            if row.id not in going_on and row.id not in self.recorders:
                await self.interrupt(row.id)
                count += 1
        return count

    async def search(
        self,
        subject: Subject,
        wanted: RecordingFilter,
        text: str,
        *,
        offset: int,
        limit: int,
        order: tuple[str, bool],
    ) -> tuple[list[dict[str, Any]], int]:
        """The recordings *subject* may see that show *text*, with the lines that do.

        Looks into the first :data:`MAX_SEARCHED` that match the other conditions, in *order*.

        Returns:
            One page of records with ``hits``, and how many match in all.
        """
        found: list[dict[str, Any]] = []
        total = looked = 0
        while looked < MAX_SEARCHED:
            rows, _ = await self._recordings.page(
                subject, wanted, offset=looked, limit=_SEARCH_STEP, order=order
            )
            for row in rows:
                hits = await self.in_thread(
                    lambda recording=row.id: self.store.search(recording, text, limit=MAX_HITS)
                )
                if not hits:
                    continue
                total += 1
                if offset < total <= offset + limit:
                    shown = [{"time": hit.time_us / 1e6, "line": hit.line} for hit in hits]
                    found.append({**recording_record(row), "hits": shown})
            looked += len(rows)
            if len(rows) < _SEARCH_STEP:
                break
        return found, total

    async def delete(self, recording_id: str) -> None:
        """Remove a recording's files and row."""
        await self.in_thread(lambda: self.store.delete(recording_id))
        await self._recordings.delete(recording_id)

    async def tidy(self) -> int:
        """Let go of what retention says; how many."""
        if not self._retention and not self._quota:
            return 0
        rows = await self._recordings.expired(older_than=self._retention, keep_bytes=self._quota)
        for row in rows:
            await self.delete(row.id)
            await self._events.record(
                "recording.expired",
                agent_id=row.asset_id,
                object_id=row.id,
                details={"size": row.size, "username": row.username},
            )
        return len(rows)

    async def note_sizes(self) -> None:
        """Write the sizes of the recordings under way into their rows (lists show them)."""
        for recorder in list(self.recorders.values()):
            if recorder.failed is None:
                await self._recordings.change(
                    recorder.recording_id, size=recorder.size, duration=recorder.duration
                )

    def close(self) -> None:
        """Let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def alert(self, info: SessionInfo, recorder: Recorder) -> None:
        """A recording failed while its session goes on: say so, once."""
        await self._alert(info, recorder.recording_id, str(recorder.failed))

    async def _alert(self, info: SessionInfo, recording_id: str, why: str) -> None:
        _log.error("recording_failed", session_id=info.id, why=why)
        await self._events.record(
            "recording.failed",
            actor=info.username,
            agent_id=info.agent_id,
            object_id=recording_id,
            outcome="failed",
            details={"session_id": info.id, "reason": why},
        )


def _header(info: SessionInfo, started: float, kind: str) -> CastHeader:
    where = info.agent_name or info.agent_id
    return CastHeader(
        info.cols,
        info.rows,
        int(started),
        info.command,
        f"{info.username} on {where}"[:255],
        {"TERM": "xterm-256color"} if kind == "pty" else {},
    )


def _news(recording_id: str, info: SessionInfo, status: str) -> dict[str, object]:
    return {
        "id": recording_id,
        "session_id": info.id,
        "agent_id": info.agent_id,
        "user_id": info.user_id,
        "status": status,
    }
