"""Taking over after a restart: sessions of before wait for their agents, then go on or end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from underpass.control.sessions import Sessions
from underpass.core.clock import Clock
from underpass.core.errors import NotFound, Unavailable
from underpass.gateway.terminals import outcomes
from underpass.gateway.terminals.hub import Hub, Outcome, SessionInfo
from underpass.gateway.terminals.hub_core import HubCore
from underpass.gateway.terminals.journal import Journal
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.gateway.terminals.session_life import SessionLife
from underpass.store.db.models import TtySession
from underpass.wire.terminal import clamp_size

__all__ = ["Takeover"]

BACKLOG: Final = 1 << 20
"""Bytes before a recording's end that are asked of the agent again: a browser may not have got all
that was recorded before the gateway went away, and a new page has something to show."""
_log = structlog.get_logger(__name__)

WAIT_SECONDS = 10.0
"""How long a person who comes back waits for their machine to do so."""
_MAX_ANNOUNCED = 4096
_MAX_OFFSET = 2**53


@dataclass(slots=True)
class _Orphan:
    """A session of before the restart, until its agent says whether it still runs."""

    row: TtySession
    since: float
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it goes on or has ended."""
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is taken over or ended, so that it is only one of the two, and once."""


class Takeover:
    """The sessions of before, and what agents announce.

    Args:
        grace: seconds an agent has to come back.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        desk: RecordingDesk,
        life: SessionLife,
        journal: Journal,
        clock: Clock,
        grace: float,
    ) -> None:
        self._sessions = sessions
        self._desk = desk
        self._life = life
        self._journal = journal
        self._clock = clock
        self._grace = grace
        self._orphans: dict[str, _Orphan] = {}

    def __len__(self) -> int:
        """Sessions that wait for their agents."""
        return len(self._orphans)

    async def take_stock(self) -> None:
        """At the start: nothing stays active for ever, no recording under way without an end."""
        rows = await self._sessions.live()
        for row in rows:
            if row.kind != "pty":
                await self._sessions.end(
                    row.id,
                    status="error",
                    error_message="The gateway was restarted while the command ran.",
                )
                continue
            if row.status != "detached":
                await self._sessions.change(row.id, status="detached")
            self._orphans[row.id] = _Orphan(row, self._clock.monotonic())
        waiting = [orphan.row for orphan in self._orphans.values()]
        interrupted = await self._desk.interrupt_orphans(waiting)
        if rows or interrupted:
            _log.info("sessions_found", live=len(waiting), recordings_interrupted=interrupted)

    async def hub_of(self, row: TtySession) -> Hub:
        """The hub of a session somebody comes back to; waits a little for its machine.

        Raises:
            Unavailable: code ``agent_away``: the machine has not come back yet; try again.
            NotFound: code ``session_over``.
        """
        orphan = self._orphans.get(row.id)
        if orphan is not None and row.id not in self._life.hubs:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await orphan.decided.wait()
            except TimeoutError:
                away = Unavailable(
                    "The machine has not come back since the gateway was restarted.",
                    code="agent_away",
                    hint="The session is kept; try again in a moment.",
                )
                away.close_code = 1013  # "try again later": clients do
                raise away from None
        hub = self._life.hubs.get(row.id)
        if hub is None:
            fresh = await self._sessions.get(row.id)
            why = fresh.error_message if fresh is not None else None
            raise NotFound(
                f"The session is over. {why}" if why else "The session is over.",
                code="session_over",
                hint="Open a new one.",
            )
        return hub

    # -- agents -----------------------------------------------------------------------------------

    async def announced(self, agent_id: str, body: dict[str, Any]) -> list[str]:
        """An agent says which sessions it has; the ids of those nobody wants any more."""
        entries = body.get("sessions")
        has: dict[str, dict[str, Any]] = {}
        for entry in (entries if isinstance(entries, list) else [])[:_MAX_ANNOUNCED]:
            if isinstance(entry, dict) and isinstance(entry.get("session_id"), str):
                has[entry["session_id"]] = entry
        unwanted: list[str] = []
        for session_id, entry in has.items():
            hub = self._life.hubs.get(session_id)
            orphan = self._orphans.get(session_id)
            if hub is not None and hub.info.agent_id == agent_id:
                if hub.outcome is None:
                    hub.relink.set()
                elif hub.outcome.exit is None:
                    unwanted.append(session_id)
            elif orphan is not None and orphan.row.asset_id == agent_id:
                # Not cancelled half-way when this link is lost: the next one's announcement must
                # find the session either waiting or running.
                await asyncio.shield(self._adopt(orphan, entry))
            else:
                # It may be another machine's session that is claimed; nothing happens to that.
                unwanted.append(session_id)
        for hub in list(self._life.hubs.values()):
            # One whose trunk stands was opened after the agent made its list.
            waits = hub.outcome is None and hub.was_attached and hub.trunk is None
            if waits and hub.info.agent_id == agent_id and hub.info.id not in has:
                hub.conclude(outcomes.gone_on_agent())
        for orphan in list(self._orphans.values()):
            if orphan.row.asset_id == agent_id and orphan.row.id not in has:
                await self._end(orphan, outcomes.gone_on_agent())
        return unwanted

    async def polled(self, agent_id: str) -> None:
        """A polling agent is back. It does not announce; that it has a session shows when it is
        asked to go on with it."""
        for orphan in list(self._orphans.values()):
            if orphan.row.asset_id == agent_id:
                await asyncio.shield(self._adopt(orphan, {}))

    async def _adopt(self, orphan: _Orphan, entry: dict[str, Any]) -> None:
        """Go on with a session: same row, same recording. Nothing when that was decided already."""
        async with orphan.deciding:
            if self._orphans.get(orphan.row.id) is orphan:
                await self._go_on(orphan, entry)

    async def _go_on(self, orphan: _Orphan, entry: dict[str, Any]) -> None:
        row = orphan.row
        standing = await self._sessions.standing(row.asset_id)
        info = _info(row, standing.view.name if standing else "")
        cols, rows = entry.get("cols"), entry.get("rows")
        if isinstance(cols, int) and isinstance(rows, int):
            info.cols, info.rows = clamp_size(cols, rows)
        recorder = await self._desk.resume(info, row.recording) if row.recording else None
        # Without a recording nothing has to be filled up; the agent gives what it has.
        start = recorder.position if recorder is not None else 0
        core = HubCore(max(0, start - BACKLOG), recorded=start)
        # A polling agent does not say how much there is; then a client's own word must do. One
        # that lies waits for output that never comes.
        core.known_end = max(start, _offset(entry.get("offset"), _MAX_OFFSET))
        core.begin_input(_offset(entry.get("input_offset"), 0))
        hub = self._life.make(info, core)
        hub.recorder = recorder
        hub.was_attached = True
        hub.started_at = row.started_at or self._clock.now()
        hub.lost_at = self._clock.monotonic()
        if recorder is not None:
            recorder.marker("gateway restarted")
        del self._orphans[row.id]
        self._life.run(hub)
        orphan.decided.set()
        await self._journal.record(hub, "session.adopted", offset=start)

    # -- ending -----------------------------------------------------------------------------------

    async def terminate(self, row: TtySession, outcome: Outcome) -> bool:
        """End a waiting session; whether it was waiting. Its agent is told when it is back."""
        orphan = self._orphans.get(row.id)
        if orphan is None:
            return False
        await self._end(orphan, outcome)
        return True

    async def close(self, agent_id: str | None, user_id: str | None, outcome: Outcome) -> int:
        """End the waiting sessions of a machine, a person, or a person on a machine; how many."""
        count = 0
        for orphan in list(self._orphans.values()):
            row = orphan.row
            if agent_id in (None, row.asset_id) and user_id in (None, row.user_id):
                await self._end(orphan, outcome)
                count += 1
        return count

    async def expire(self) -> None:
        """End those whose agents did not come back in time."""
        now = self._clock.monotonic()
        for orphan in list(self._orphans.values()):
            if now - orphan.since > self._grace:
                await self._end(orphan, outcomes.unreachable())

    async def _end(self, orphan: _Orphan, outcome: Outcome) -> None:
        async with orphan.deciding:
            if self._orphans.pop(orphan.row.id, None) is not None:
                await self._close(orphan, outcome)
                return
        # It was just taken over, or ended otherwise.
        hub = self._life.hubs.get(orphan.row.id)
        if hub is not None and hub.outcome is None:
            hub.conclude(outcome)

    async def _close(self, orphan: _Orphan, outcome: Outcome) -> None:
        row = orphan.row
        if row.recording:
            await self._desk.interrupt(row.recording)
        await self._sessions.end(row.id, status=outcome.status, error_message=outcome.message)
        orphan.decided.set()
        await self._journal.events.record(
            "session.ended",
            actor=row.username,
            agent_id=row.asset_id,
            object_id=row.id,
            outcome="failed" if outcome.status == "error" else "ok",
            details={"reason": outcome.message},
        )


def _offset(value: Any, otherwise: int) -> int:
    plain = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_OFFSET
    return value if plain else otherwise


def _info(row: TtySession, agent_name: str) -> SessionInfo:
    return SessionInfo(
        id=row.id,
        agent_id=row.asset_id,
        agent_name=agent_name,
        user_id=row.user_id,
        username=row.username,
        command=row.command or None,
        login=row.login,
        cols=row.cols,
        rows=row.rows,
    )
