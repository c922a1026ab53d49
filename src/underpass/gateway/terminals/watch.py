"""Looks over all live sessions: rights that were lost, graces that are over, ends long past."""

from __future__ import annotations

import asyncio

import structlog

from underpass.control.access import AgentView
from underpass.control.sessions import Person, Sessions
from underpass.core.clock import Clock
from underpass.gateway.terminals import outcomes
from underpass.gateway.terminals.gate import Gate
from underpass.gateway.terminals.hub import Hub
from underpass.gateway.terminals.journal import Journal
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.gateway.terminals.session_life import SessionLife, within
from underpass.gateway.terminals.takeover import Takeover
from underpass.gateway.terminals.viewer import Viewer

__all__ = ["Watch"]

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""Spec 1 gives five until a lost right cuts a session; most changes are told at once anyway."""
LINGER_SECONDS = 60.0
"""How long an ended session is kept for a browser that was away when it ended."""
MAX_LINGERING = 64
SIZES_EVERY = 3
"""Rounds between two notes of how large recordings under way are."""
RETENTION_EVERY = 30
"""Rounds between two looks for old recordings."""
STOP_SECONDS = 5.0


class Watch:
    """A task that ends what must not go on, and keeps recordings in order.

    Args:
        grace: seconds a session lives with nobody attached, or with its agent out of reach.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        gate: Gate,
        life: SessionLife,
        takeover: Takeover,
        desk: RecordingDesk,
        journal: Journal,
        clock: Clock,
        grace: float,
    ) -> None:
        self._sessions = sessions
        self._gate = gate
        self._life = life
        self._takeover = takeover
        self._desk = desk
        self._journal = journal
        self._clock = clock
        self._grace = grace
        self._now = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()

    def at_once(self) -> None:
        """Somebody's rights changed: look without waiting."""
        self._now.set()

    async def run(self) -> None:
        """Look every two seconds, until :meth:`stop`; note sizes and apply retention now and
        then."""
        rounds = 0
        try:
            while not self._stopping:
                await within(self._now.wait(), LOOK_SECONDS)
                self._now.clear()
                if not self._stopping:
                    await self._round(rounds)
                rounds += 1
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """End :meth:`run` between two rounds, so that no transaction is cut off."""
        self._stopping = True
        self._now.set()
        await within(self._stopped.wait(), STOP_SECONDS)

    async def _round(self, number: int) -> None:
        try:
            await self.look()
            if number % SIZES_EVERY == 1:
                await self._desk.note_sizes()
            if number % RETENTION_EVERY == 1:
                await self._desk.tidy()
        except Exception:  # noqa: BLE001
            # The database or the disk may be away for a moment; the watch must go on.
            _log.exception("watch_failed")

    async def look(self) -> None:
        """Look once."""
        now = self._clock.monotonic()
        for session_id, ended_at in list(self._life.ended.items()):
            hub = self._life.hubs.get(session_id)
            enough = now - ended_at > LINGER_SECONDS or len(self._life.ended) > MAX_LINGERING
            if enough and (hub is None or not hub.viewers):
                self._life.forget(session_id)
        live = [hub for hub in self._life.hubs.values() if hub.outcome is None]
        for hub in live:
            if hub.detached_at is not None and now - hub.detached_at > self._grace:
                hub.conclude(outcomes.grace_over())
            elif hub.lost_at is not None and now - hub.lost_at > self._grace:
                hub.conclude(outcomes.unreachable())
        await self._takeover.expire()
        await self._check_rights(live)

    async def _check_rights(self, hubs: list[Hub]) -> None:
        if not hubs:
            return
        # Who comes while the database is asked was checked at the door a moment ago, and is not
        # in the answer.
        watching = {hub: [one for one in hub.viewers if one.role != "owner"] for hub in hubs}
        people = await self._sessions.people(
            {hub.info.user_id for hub in hubs}
            | {one.subject.user_id for viewers in watching.values() for one in viewers}
        )
        machines = await self._sessions.machines({hub.info.agent_id for hub in hubs})
        for hub in hubs:
            view = machines.get(hub.info.agent_id)
            if hub.outcome is not None:
                continue
            if view is None:
                hub.conclude(outcomes.agent_deleted())
                continue
            refusal = self._gate.lost_right(people.get(hub.info.user_id), "shell", view, hub)
            if refusal is not None:
                hub.conclude(outcomes.access_removed(refusal))
                await self._journal.record(hub, "session.cut", reason=refusal)
                continue
            self._check_viewers(hub, watching[hub], people, view)

    def _check_viewers(
        self, hub: Hub, viewers: list[Viewer], people: dict[str, Person], view: AgentView
    ) -> None:
        for viewer in viewers:
            action = "join" if viewer.role == "writer" else "observe"
            person = people.get(viewer.subject.user_id)
            refusal = self._gate.lost_right(person, action, view, hub)
            if refusal is not None:
                viewer.cut(outcomes.access_removed(refusal))
