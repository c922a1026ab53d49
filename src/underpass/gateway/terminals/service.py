"""Terminals: every live session of this gateway; what routes, links and rights call.

Composition of the parts beside it: the gate decides who may, ``session_life`` carries a session
from its first connection to its last row, ``takeover`` goes on with those of before a restart,
``watch`` ends what must not go on, the recording desk records, the relay waits for polling agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.rate_limits import RateLimits
from underpass.control.sessions import Sessions
from underpass.control.subject import Subject
from underpass.control.tickets import Ticket, Tickets
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Unavailable, UnderpassError
from underpass.core.ids import new_id
from underpass.core.supervisor import Supervisor
from underpass.gateway.terminals import outcomes
from underpass.gateway.terminals.agent_relay import AgentRelay
from underpass.gateway.terminals.gate import Gate, no_such_session
from underpass.gateway.terminals.hub import Hub, Outcome, SessionInfo, Viewer
from underpass.gateway.terminals.hub_core import HubCore, Role
from underpass.gateway.terminals.journal import Journal
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.gateway.terminals.session_life import RouterLike, SessionLife, within
from underpass.gateway.terminals.takeover import Takeover
from underpass.gateway.terminals.watch import Watch
from underpass.links.link import Link
from underpass.store.db.models import TtySession
from underpass.wire.terminal import clamp_size

__all__ = ["RouterLike", "Terminals"]

_log = structlog.get_logger(__name__)

_SETTLE_SECONDS = 4.0
_ATTACHED = {
    "owner": "session.resumed",
    "writer": "session.joined",
    "observer": "session.observed",
}


class Terminals:
    """All live terminal sessions.

    Args:
        grace: seconds a session lives with nobody attached, or with its agent out of reach.
        address_of: gives a linked agent's address.

    :meth:`start` before the first request, :meth:`stop` at the end.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        tickets: Tickets,
        limits: RateLimits,
        events: Events,
        bus: LiveBus,
        desk: RecordingDesk,
        router: RouterLike,
        clock: Clock,
        grace: float = 600.0,
        address_of: Callable[[str], str | None] = lambda _agent_id: None,
    ) -> None:
        self.desk = desk
        self.relay = AgentRelay(clock)
        self.gate = Gate(
            sessions=sessions,
            tickets=tickets,
            limits=limits,
            events=events,
            reach=self,
            storage_check=desk.check,
        )
        self._sessions = sessions
        self._router = router
        self._supervisor = Supervisor("terminals")
        self._stopping = False
        self._journal = Journal(events, bus)
        self._life = SessionLife(
            sessions=sessions,
            desk=desk,
            router=router,
            relay=self.relay,
            journal=self._journal,
            supervisor=self._supervisor,
            clock=clock,
            grace=grace,
            address_of=address_of,
            on_change=self._measure,
        )
        self.end_program: Callable[[str, str], bool] = lambda _session_id, _text: False
        """Ends the ``exec`` that is this session; set to ``ClientStreams.end_program``."""
        self._takeover = Takeover(
            sessions=sessions,
            desk=desk,
            life=self._life,
            journal=self._journal,
            clock=clock,
            grace=grace,
        )
        self._watch = Watch(
            sessions=sessions,
            gate=self.gate,
            life=self._life,
            takeover=self._takeover,
            desk=desk,
            journal=self._journal,
            clock=clock,
            grace=grace,
        )

    @property
    def hubs(self) -> dict[str, Hub]:
        """Live sessions, and ended ones that linger, by id."""
        return self._life.hubs

    async def start(self) -> None:
        """Take stock of the sessions of before, and begin to watch over the live ones."""
        await self._takeover.take_stock()
        self._supervisor.start(self._watch.run(), "watch")
        self._measure()

    async def stop(self) -> None:
        """Let go of everything without ending any session: agents keep them for their grace."""
        self._stopping = True
        await self._watch.stop()
        for hub in self.hubs.values():
            for viewer in list(hub.viewers):
                viewer.cut(outcomes.restarting())
        await asyncio.sleep(0)  # so that the viewers' sockets get to say it
        await self._life.release()
        await self._supervisor.close()
        self._measure()
        self.desk.close()

    def is_linked(self, agent_id: str) -> bool:
        """Whether the machine has a link (the gate asks)."""
        return self._router.is_linked(agent_id)

    def polls(self, agent_id: str) -> bool:
        """Whether the machine is in poll mode and has asked lately (the gate asks)."""
        return self.relay.polls(agent_id)

    # -- opening, and coming back -----------------------------------------------------------------

    async def open(self, subject: Subject, ticket: Ticket, cols: int, rows: int) -> Hub:
        """Begin a new session; its shell starts in the background.

        Raises:
            what :meth:`Gate.check_start` and :meth:`Sessions.create` raise.
        """
        self._check_running()
        standing, rule = await self.gate.check_start(subject, ticket)
        cols, rows = clamp_size(cols, rows)
        info = SessionInfo(
            id=new_id(),
            agent_id=ticket.agent_id,
            agent_name=standing.view.name or standing.hostname,
            user_id=subject.user_id,
            username=subject.username,
            command=ticket.command,
            login=ticket.login,
            cols=cols,
            rows=rows,
        )
        await self._sessions.create(_row(info, ticket, subject))
        hub = self._life.make(info, HubCore())
        try:
            hub.recorder = await self.desk.begin(info)
            if hub.recorder is not None:
                await self._sessions.change(info.id, recording=hub.recorder.recording_id)
        except BaseException as error:
            self._life.forget(info.id)
            why = error.message if isinstance(error, UnderpassError) else "Given up."
            await asyncio.shield(self._sessions.end(info.id, status="error", error_message=why))
            raise
        self._life.run(hub)
        await self._journal.record(
            hub, "session.opened", subject, rule=rule.rule, command=info.command, login=info.login
        )
        return hub

    async def resume(self, subject: Subject, ticket: Ticket, session_id: str) -> Hub:
        """Come back to one's own session on the ticket's machine.

        Raises:
            NotFound: no such session of theirs there, or it is over.
            Unavailable: its machine has not come back yet, or this gateway stops.
        """
        self._check_running()
        row = await self.gate.own_session(subject, session_id, ticket.agent_id)
        return await self._takeover.hub_of(row)

    async def watch(self, subject: Subject, session_id: str, mode: str) -> Hub:
        """Observe or join somebody's session.

        Raises:
            NotFound: there is none, or not for *subject*.
            Forbidden: they may not.
        """
        self._check_running()
        action = "join" if mode == "join" else "observe"
        live = self.hubs.get(session_id)
        shared = live is not None and live.join_allowed
        row = await self.gate.watched_session(subject, session_id, action, shared=shared)
        return await self._takeover.hub_of(row)

    async def attach(
        self,
        hub: Hub,
        subject: Subject,
        role: Role,
        offset: int | None,
        *,
        credit: bool,
        first: bool = False,
    ) -> Viewer:
        """Show *hub* to a socket, and record that."""
        self._check_running()
        viewer = hub.attach(subject, role, offset, credit=credit, first=first)
        try:
            kind = "session.attached" if first else _ATTACHED[role]
            await self._journal.record(hub, kind, subject)
        except BaseException:
            hub.detach(viewer)  # nobody will read what is meant for it
            raise
        return viewer

    async def detach(self, hub: Hub, viewer: Viewer) -> None:
        """Its socket is gone. Idempotent."""
        if viewer not in hub.viewers:
            return
        hub.detach(viewer)
        if hub.outcome is None and not self._stopping and viewer.may_write:
            await self._journal.record(hub, "session.detached", viewer.subject)

    async def share(self, hub: Hub, by: Subject, join: bool) -> None:
        """Its owner lets others join *hub*, or no longer."""
        hub.join_allowed = join
        await self._journal.record(hub, "session.shared" if join else "session.unshared", by)
        self.look_again()

    def observers(self, session_id: str) -> int:
        """How many watch a session right now without typing."""
        hub = self.hubs.get(session_id)
        return hub.observers if hub is not None else 0

    # -- ending -----------------------------------------------------------------------------------

    async def terminate(self, session_id: str, by: Subject, reason: str = "") -> None:
        """End a session for its owner or an admin; both ends see why.

        Raises:
            NotFound: there is none, or not for *by*.
            Conflict: code ``session_over``.
        """
        row = await self._sessions.get(session_id)
        if row is None or not (by.is_admin or row.user_id == by.user_id):
            raise no_such_session()
        who = "its owner" if row.user_id == by.user_id else f"the admin {by.username}"
        text = f"The session was terminated by {who}." + (f" Reason: {reason}" if reason else "")
        hub = self.hubs.get(session_id)
        if hub is not None and hub.outcome is None:
            hub.conclude(outcomes.terminated(text))
            await within(hub.settled.wait(), _SETTLE_SECONDS)
        elif self.end_program(session_id, text):
            pass  # its audit closes the session as soon as the stream is down
        elif not await self._takeover.terminate(row, outcomes.terminated(text)):
            raise Conflict("The session is over already.", code="session_over")
        await self._journal.events.record(
            "session.terminated",
            actor=by,
            agent_id=row.asset_id,
            object_id=session_id,
            details={"reason": reason or None},
        )

    async def close_for_agent(self, agent_id: str, reason: str) -> int:
        """End every session of a machine (it was deleted); how many."""
        self.relay.forget(agent_id)
        return await self._close(agent_id, None, outcomes.agent_deleted(reason))

    async def close_for_user(self, user_id: str, reason: str, agent_id: str | None = None) -> int:
        """End every session of a person (on one machine), and their looking at others'.

        Args:
            reason: a sentence, or one of the codes of topic ``user`` (``disabled``…).
        """
        outcome = outcomes.access_removed(reason)
        for hub in list(self.hubs.values()):
            for viewer in list(hub.viewers):
                theirs = viewer.subject.user_id == user_id and hub.info.user_id != user_id
                if theirs and agent_id in (None, hub.info.agent_id):
                    viewer.cut(outcome)
        return await self._close(agent_id, user_id, outcome)

    async def _close(self, agent_id: str | None, user_id: str | None, outcome: Outcome) -> int:
        ending = [
            hub
            for hub in self.hubs.values()
            if hub.outcome is None
            and agent_id in (None, hub.info.agent_id)
            and user_id in (None, hub.info.user_id)
        ]
        for hub in ending:
            hub.conclude(outcome)
        for hub in ending:
            await within(hub.settled.wait(), _SETTLE_SECONDS)
        return len(ending) + await self._takeover.close(agent_id, user_id, outcome)

    def _check_running(self) -> None:
        """Refuse what this gateway would drop in a moment; clients try again, at its successor."""
        if self._stopping:
            restarting = outcomes.restarting()
            error = Unavailable(restarting.message or "", code=restarting.code)
            error.close_code = restarting.close_code
            raise error

    def look_again(self) -> None:
        """Somebody's rights changed: check every live session at once."""
        self._watch.at_once()

    # -- agents -----------------------------------------------------------------------------------

    async def on_agent_sessions(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        """An agent that has just linked says which sessions it has (``sessions.announce``).

        Returns:
            ``{"terminate": [ids]}``: those nobody wants any more.
        """
        self.relay.linked(link.peer.id)
        return {"terminate": await self._takeover.announced(link.peer.id, body)}

    def on_agent_lost(self, agent_id: str) -> None:
        """An agent's link is gone; its hubs notice by themselves and wait for the next."""
        waiting = sum(
            hub.outcome is None and hub.info.agent_id == agent_id for hub in self.hubs.values()
        )
        if waiting:
            _log.info("sessions_wait_for_agent", agent_id=agent_id, sessions=waiting)

    async def poll(self, agent_id: str) -> list[dict[str, Any]]:
        """A polling agent asks what to open (``pending-sessions``)."""
        first = not self.relay.polls(agent_id)
        await self._takeover.polled(agent_id)
        answer = self.relay.pending_for(agent_id)
        if first:
            for hub in self.hubs.values():
                if hub.info.agent_id == agent_id:
                    hub.relink.set()
        return answer

    def _measure(self) -> None:
        self._journal.measure(self.hubs, len(self._takeover))


def _row(info: SessionInfo, ticket: Ticket, subject: Subject) -> TtySession:
    return TtySession(
        id=info.id,
        asset_id=info.agent_id,
        user_id=info.user_id,
        username=info.username,
        token_hash=ticket.token_hash,
        kind="pty",
        status="connecting",
        command=info.command or "",
        login=info.login,
        cols=info.cols,
        rows=info.rows,
        browser_ip=subject.ip,
        created_at=0.0,
    )
