"""Which machines are online: a pure state machine of heartbeats, links and time, and its shell.

``online``: heard, and linked (or in poll mode); ``degraded``: heard, but the link is gone;
``offline``: three heartbeats missed; ``maintenance``: set by a person, until a person lifts it.
A gateway that restarts believes what the database says until each machine had its three
heartbeats' time to show up, so a restart makes no storm of false changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.core.clock import Clock
from underpass.core.errors import UnderpassError
from underpass.store.db.models import Agent

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Change", "Presence", "PresenceBoard", "Status"]

_log = structlog.get_logger(__name__)

Status = Literal["online", "offline", "maintenance", "degraded"]

LINK_GRACE = 15.0
"""Seconds a link may take to come (back) before a machine that is heard counts as degraded."""
_TICK = 1.0
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Change:
    """A machine went from one status to another."""

    agent_id: str
    before: Status
    after: Status


@dataclass(slots=True)
class _Machine:
    status: Status
    heard: float = _NEVER
    linked: bool = False
    unlinked_since: float | None = None
    mode: str | None = None
    """``link`` or ``poll``, as the last heartbeat since the start said; ``None`` before that."""
    maintenance: bool = False


@dataclass(slots=True)
class PresenceBoard:
    """The state machine. All times are monotonic seconds handed in.

    Attributes:
        started_at: when this gateway began to listen.
        offline_after: seconds without a heartbeat until a machine is offline (3 × 30 s).
        link_grace: see :data:`LINK_GRACE`.
    """

    started_at: float
    offline_after: float = 90.0
    link_grace: float = LINK_GRACE
    _machines: dict[str, _Machine] = field(default_factory=dict[str, _Machine])

    def __len__(self) -> int:
        return len(self._machines)

    def load(self, agent_id: str, status: Status) -> None:
        """Take over what the database says of a machine at the start."""
        heard = _NEVER if status in {"offline", "maintenance"} else self.started_at
        self._machines[agent_id] = _Machine(status, heard, maintenance=status == "maintenance")

    def status(self, agent_id: str) -> Status:
        """What a machine is now; ``offline`` when it was never heard of."""
        machine = self._machines.get(agent_id)
        return "offline" if machine is None else machine.status

    def heartbeat(self, agent_id: str, now: float, mode: str) -> Change | None:
        """A valid heartbeat came in; *mode* is ``link`` or ``poll``."""
        machine = self._machine(agent_id)
        machine.heard = now
        back = machine.status == "offline"  # what became of an earlier link is long past
        if not machine.linked and (
            back or machine.unlinked_since is None or machine.mode == "poll"
        ):
            machine.unlinked_since = now
        machine.mode = mode
        return self._settle(agent_id, machine, now)

    def linked(self, agent_id: str, now: float) -> Change | None:
        """Its link is up; that it proved itself just now is as good as a heartbeat."""
        machine = self._machine(agent_id)
        machine.linked = True
        machine.heard = now
        machine.unlinked_since = None
        return self._settle(agent_id, machine, now)

    def unlinked(self, agent_id: str, now: float) -> Change | None:
        """Its last link is gone. Of a machine that was deleted, it means nothing any more."""
        machine = self._machines.get(agent_id)
        if machine is None:
            return None
        machine.linked = False
        machine.unlinked_since = now
        machine.mode = machine.mode or "link"
        return self._settle(agent_id, machine, now)

    def set_maintenance(self, agent_id: str, on: bool, now: float) -> Change | None:
        """A person set or lifted maintenance; lifting shows what it really is."""
        machine = self._machine(agent_id)
        machine.maintenance = on
        return self._settle(agent_id, machine, now)

    def forget(self, agent_id: str) -> None:
        """The machine was deleted."""
        self._machines.pop(agent_id, None)

    def tick(self, now: float) -> list[Change]:
        """What changed by the passing of time alone."""
        changes: list[Change] = []
        for agent_id, machine in self._machines.items():
            if machine.status in {"offline", "maintenance"}:
                continue  # only something heard, or a person, changes these
            change = self._settle(agent_id, machine, now)
            if change is not None:
                changes.append(change)
        return changes

    def _machine(self, agent_id: str) -> _Machine:
        return self._machines.setdefault(agent_id, _Machine("offline"))

    def _settle(self, agent_id: str, machine: _Machine, now: float) -> Change | None:
        before, after = machine.status, self._judge(machine, now)
        machine.status = after
        return None if before == after else Change(agent_id, before, after)

    def _judge(self, machine: _Machine, now: float) -> Status:
        if machine.maintenance:
            return "maintenance"
        if now - machine.heard >= self.offline_after:
            return "offline"
        if machine.linked or machine.mode == "poll":
            return "online"
        if machine.mode is None:
            # Not heard since the start of this gateway: believe what was written down.
            return machine.status
        since = machine.unlinked_since
        if machine.status != "degraded" and since is not None and now - since < self.link_grace:
            return "online"  # its link is likely on the way (back)
        return "degraded"


class Presence:
    """Runs a :class:`PresenceBoard` and writes its changes down: row, event, live news.

    Args:
        interval: seconds between heartbeats.
        missed: heartbeats that may be missed.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        events: Events,
        bus: LiveBus,
        *,
        interval: float = 30.0,
        missed: int = 3,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self._saving = asyncio.Lock()
        self._news = asyncio.Event()
        self._unsaved: dict[str, Change] = {}
        self.board = PresenceBoard(clock.monotonic(), interval * missed)

    async def load(self) -> None:
        """Read every machine's last status; call once, before links and heartbeats come in."""
        self.board.started_at = self._clock.monotonic()
        async with self._database.reading() as db:
            rows = await db.execute(
                select(Agent.id, Agent.status).where(Agent.is_deleted.is_(False))
            )
            for agent_id, status in rows:
                self.board.load(agent_id, cast("Status", status))

    def status(self, agent_id: str) -> Status:
        """See :meth:`PresenceBoard.status`."""
        return self.board.status(agent_id)

    async def heartbeat(self, agent_id: str, mode: str) -> None:
        """A valid heartbeat came in."""
        await self._apply(self.board.heartbeat(agent_id, self._clock.monotonic(), mode))

    def linked(self, agent_id: str) -> None:
        """The registry has a link of this machine; :meth:`run` writes it down at once."""
        self._note(self.board.linked(agent_id, self._clock.monotonic()))

    def unlinked(self, agent_id: str) -> None:
        """The registry has no link of this machine any more; :meth:`run` writes it down."""
        self._note(self.board.unlinked(agent_id, self._clock.monotonic()))

    async def set_maintenance(self, agent_id: str, on: bool) -> None:
        """A person set or lifted maintenance."""
        await self._apply(self.board.set_maintenance(agent_id, on, self._clock.monotonic()))

    def forget(self, agent_id: str) -> None:
        """The machine was deleted."""
        self.board.forget(agent_id)
        self._unsaved.pop(agent_id, None)

    async def tick(self) -> None:
        """Let time do its part; :meth:`run` calls it every second."""
        for change in self.board.tick(self._clock.monotonic()):
            self._note(change)
        await self._save()

    async def run(self) -> None:
        """Tick for ever, and at once when a link came or went; the supervisor owns this."""
        while True:
            self._news.clear()
            await self.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._news.wait()

    async def _apply(self, change: Change | None) -> None:
        if change is not None:
            self._note(change)
            await self._save()

    def _note(self, change: Change | None) -> None:
        if change is None:
            return
        self._news.set()
        earlier = self._unsaved.pop(change.agent_id, None)
        if earlier is not None:
            change = Change(change.agent_id, earlier.before, change.after)
        if change.before != change.after:
            self._unsaved[change.agent_id] = change

    async def _save(self) -> None:
        """Write down what changed; when the database fails, the next tick tries again."""
        if not self._unsaved:
            return
        async with self._saving:
            changes, self._unsaved = list(self._unsaved.values()), {}
            try:
                await self._write(changes)
            except (UnderpassError, SQLAlchemyError, OSError) as error:
                _log.warning("presence_not_saved", changes=len(changes), error=str(error)[:200])
                newer, self._unsaved = self._unsaved, {}
                for change in [*changes, *newer.values()]:
                    self._note(change)
                self._news.clear()  # no hurry: the next tick is soon enough

    async def _write(self, changes: list[Change]) -> None:
        now = self._clock.now()
        async with self._database.session() as db:
            for change in changes:
                await db.execute(
                    update(Agent)
                    .where(Agent.id == change.agent_id, Agent.is_deleted.is_(False))
                    .values(status=change.after, updated_at=now)
                )
                await self._events.record(
                    f"agent.{change.after}",
                    agent_id=change.agent_id,
                    details={"before": change.before},
                    db=db,
                )
        for change in changes:
            _log.info("agent_status", agent=change.agent_id, status=change.after)
            self._bus.publish(
                "agent",
                {
                    "id": change.agent_id,
                    "agent_id": change.agent_id,
                    "change": "status",
                    "status": change.after,
                },
            )
