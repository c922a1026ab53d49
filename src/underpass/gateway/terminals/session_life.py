"""A session's life on the gateway: connect, keep the trunk, keep the row, write the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from underpass.control.sessions import Sessions
from underpass.control.subject import Subject
from underpass.core.addresses import host_of
from underpass.core.clock import Clock
from underpass.core.errors import Internal, Unavailable, UnderpassError
from underpass.core.metrics import SESSIONS_STARTED
from underpass.core.supervisor import Supervisor
from underpass.gateway.terminals import outcomes
from underpass.gateway.terminals.agent_relay import FETCH_SECONDS, AgentRelay
from underpass.gateway.terminals.hub import Hub, SessionInfo
from underpass.gateway.terminals.hub_core import HubCore
from underpass.gateway.terminals.journal import Journal
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.gateway.terminals.trunk import StreamTrunk, Trunk
from underpass.links.stream import Stream

__all__ = ["RouterLike", "SessionLife", "within"]

_log = structlog.get_logger(__name__)

CONNECT_SECONDS = 10.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
_STEADY_SECONDS = 1.0
"""A trunk that lasted shorter counts as one more failed attempt, so that nothing spins."""


class RouterLike(Protocol):
    """What is needed of ``gateway.router.Router``."""

    def is_linked(self, agent_id: str) -> bool: ...

    async def open(
        self,
        agent_id: str,
        target: str,
        *,
        on_behalf_of: Subject,
        meta: Any = None,
        interactive: bool = False,
        timeout: float = 10.0,
    ) -> Stream: ...


class SessionLife:
    """Runs hubs; each has one task here, from its first connection to its last row.

    Attributes:
        hubs: live sessions, and ended ones that linger, by id.
        ended: when the lingering ones ended (monotonic seconds).
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        desk: RecordingDesk,
        router: RouterLike,
        relay: AgentRelay,
        journal: Journal,
        supervisor: Supervisor,
        clock: Clock,
        grace: float,
        address_of: Callable[[str], str | None],
        on_change: Callable[[], None],
    ) -> None:
        self.hubs: dict[str, Hub] = {}
        self.ended: dict[str, float] = {}
        self._sessions = sessions
        self._desk = desk
        self._router = router
        self._relay = relay
        self._journal = journal
        self._supervisor = supervisor
        self._clock = clock
        self._grace = grace
        self._address_of = address_of
        self._on_change = on_change
        self._rows: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- beginning --------------------------------------------------------------------------------

    def make(self, info: SessionInfo, core: HubCore) -> Hub:
        """A hub that is not running yet."""
        self._rows[info.id] = asyncio.Event()
        hub = self.hubs[info.id] = Hub(info, core, self._clock, self._changed)
        return hub

    def run(self, hub: Hub) -> None:
        """Let it live. Its recorder, if it has one, is watched from now on."""
        recorder = hub.recorder
        if recorder is not None:

            def failed(_error: UnderpassError) -> None:
                if hub.outcome is None:
                    self._supervisor.start(self._desk.alert(hub.info, recorder), "alert")

            recorder.watch(hub.recorded, failed)
        hub.recorded()
        task = self._supervisor.start(self._live(hub), f"session {hub.info.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed(hub)

    async def release(self) -> None:
        """This gateway stops: let go of every session without ending any (≤ 6 s)."""
        for hub in self.hubs.values():
            hub.let_go()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=6.0)
        for hub in self.hubs.values():
            if hub.outcome is None:
                await self._sessions.change(hub.info.id, status="detached")
        self.hubs.clear()

    def forget(self, session_id: str) -> None:
        """Drop an ended session, or one that never ran."""
        self.hubs.pop(session_id, None)
        self.ended.pop(session_id, None)
        self._rows.pop(session_id, None)
        self._on_change()

    def _changed(self, hub: Hub) -> None:
        self._on_change()
        event = self._rows.get(hub.info.id)
        if event is not None:
            event.set()

    async def _live(self, hub: Hub) -> None:
        async with asyncio.TaskGroup() as group:
            row = group.create_task(self._keep_row(hub))
            if hub.recorder is not None:
                group.create_task(hub.recorder.run())  # ends when it is finished
            keeper = group.create_task(self._keep_trunk(hub))
            await hub.concluded.wait()
            await within(hub.agent_told.wait(), 0.5)
            # The writer of rows is never cancelled in the middle of a transaction.
            self._rows[hub.info.id].set()
            await row
            if hub.outcome is not None:
                await self._finish(hub)
                await asyncio.wait([keeper], timeout=5.0)
            elif hub.recorder is not None:
                hub.recorder.marker("gateway stopped")
                await hub.recorder.pause()
            keeper.cancel()

    # -- the trunk --------------------------------------------------------------------------------

    async def _keep_trunk(self, hub: Hub) -> None:
        """Connect the hub to its agent, again and again, until the session is over."""
        attempt = 0
        while not hub.concluded.is_set():
            began = self._clock.monotonic()
            try:
                await hub.run_trunk(await self._connect(hub))
                if self._clock.monotonic() - began > _STEADY_SECONDS:
                    attempt = 0
                    continue
            except UnderpassError as error:
                if error.code == "agent_linked":
                    continue
                if not self._may_retry(hub, error):
                    hub.conclude(outcomes.failure(error))
                    return
            except Exception:  # noqa: BLE001
                # A defect must not leave a session that nobody can see the end of.
                _log.exception("session_failed", session_id=hub.info.id)
                hub.conclude(outcomes.failure(Internal("The gateway failed; its log says why.")))
                return
            await within(hub.relink.wait(), _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            hub.relink.clear()
            attempt += 1

    def _may_retry(self, hub: Hub, error: UnderpassError) -> bool:
        # What never started is better told at once; what runs is kept for its grace.
        if not hub.was_attached or error.code == "session_gone" or error.status in (403, 404):
            return False
        return hub.lost_at is None or self._clock.monotonic() - hub.lost_at < self._grace

    async def _connect(self, hub: Hub) -> Trunk:
        info = hub.info
        agent_id = info.agent_id
        meta: dict[str, Any] = {
            "session_id": info.id,
            "command": None if hub.was_attached else info.command,
            "cols": info.cols,
            "rows": info.rows,
            "login": None if hub.was_attached else info.login,
            "offset": hub.core.log.end if hub.was_attached else None,
            "grace": self._grace,
        }
        if self._router.is_linked(agent_id):
            stream = await self._router.open(
                agent_id,
                "pty",
                on_behalf_of=Subject(info.user_id, info.username, "user"),
                meta=meta,
                interactive=True,
                timeout=CONNECT_SECONDS,
            )
            return StreamTrunk(stream, self._address_of(agent_id))
        if self._relay.polls(agent_id) or not hub.was_attached:
            meta["user"] = {"id": info.user_id, "username": info.username}
            return await self._relay.fetch(agent_id, info.id, meta, FETCH_SECONDS)
        raise Unavailable("The machine has no link right now.", code="agent_unlinked")

    # -- the row ----------------------------------------------------------------------------------

    async def _keep_row(self, hub: Hub) -> None:
        """Write what is true of the hub into its row whenever that changed."""
        event = self._rows[hub.info.id]
        while not hub.concluded.is_set():
            await event.wait()
            event.clear()
            await self._write_row(hub)

    async def _write_row(self, hub: Hub) -> None:
        info = hub.info
        wanted: dict[str, Any] = {"status": hub.status}
        if hub.was_attached:
            wanted |= {
                "agent_ip": (host_of(hub.agent_ip) or "")[:64] or None,
                "command": info.command or "",
                "login": info.login,
            }
        started = hub.was_attached and hub.started_at is None
        if started:
            wanted["started_at"] = hub.started_at = self._clock.now()
            SESSIONS_STARTED.labels("ok").inc()
        change = {key: value for key, value in wanted.items() if hub.written.get(key) != value}
        if not change:
            return
        hub.written |= change
        # Only rows of live sessions are changed, so this can't overtake the end.
        await self._sessions.change(info.id, **change)
        self._journal.news(hub, hub.status)
        if started:
            await self._journal.record(hub, "session.started", pid=hub.pid)

    async def _finish(self, hub: Hub) -> None:
        outcome = hub.outcome
        assert outcome is not None
        info, recorder, end = hub.info, hub.recorder, outcome.exit
        finished = None
        if recorder is not None:
            if outcome.code:
                recorder.marker(f"ended: {outcome.message}"[:500])
            finished = await self._desk.finish(recorder, info, outcomes.exit_status(end))
        message = None if end is not None else outcome.message
        await self._sessions.end(
            info.id,
            status=outcome.status,
            exit_code=end.code if end else None,
            signal=end.signal if end else None,
            error_message=message,
            cols=info.cols,
            rows=info.rows,
        )
        if not hub.was_attached:
            SESSIONS_STARTED.labels("failed").inc()
        self.ended[info.id] = self._clock.monotonic()
        hub.announce()
        self._on_change()
        self._journal.news(hub, outcome.status)
        await self._journal.record(
            hub,
            "session.ended",
            outcome="ok" if outcome.status == "closed" else "failed",
            exit_code=end.code if end else None,
            signal=end.signal if end else None,
            reason=message or None,
            recording=recorder.recording_id if recorder else None,
            sha256=finished.sha256 if finished else None,
        )


async def within(wait: Awaitable[Any], seconds: float) -> None:
    """Wait for something at most *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        pass
