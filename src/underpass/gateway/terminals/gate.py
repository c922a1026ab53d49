"""The gate in front of every terminal: who may have a ticket, and who may use one.

The checks stand in the order of spec 1, "Opening a terminal", each with its own status and text.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from underpass.control.access import Action, AgentView, Decision, authorise, require
from underpass.control.events import Events
from underpass.control.rate_limits import RateLimits, address_key
from underpass.control.sessions import AgentStanding, Person, Sessions
from underpass.control.subject import Subject
from underpass.control.tickets import Ticket, Tickets
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, NotFound, UnderpassError
from underpass.core.ids import is_id
from underpass.store.db.models import TtySession
from underpass.wire.terminal import clamp_size

__all__ = ["Gate", "Reachability", "Request"]

ATTEMPTS_PER_USER = 120
ATTEMPTS_PER_ADDRESS = 300
PERIOD = 60.0
_LOGIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+-]{0,62}\$?")
_MAX_COMMAND = 3072  # with everything else it must fit one control message to the agent


class Reachability(Protocol):
    """What the gate asks about a machine's connections."""

    def is_linked(self, agent_id: str) -> bool: ...
    def polls(self, agent_id: str) -> bool: ...


class Owned(Protocol):
    user_id: str


class Shared(Protocol):
    """What the gate asks about a live session."""

    join_allowed: bool

    @property
    def info(self) -> Owned: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to open."""

    agent_id: str
    cols: int = 80
    rows: int = 24
    command: str | None = None
    login: str | None = None
    session_id: str | None = None
    """The session to come back to; such a ticket opens nothing new."""


class Gate:
    """Decides on tickets, and again when they are used.

    Args:
        reach: whether machines are linked or poll.
        storage_check: raises when recordings are required and can't be written.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        tickets: Tickets,
        limits: RateLimits,
        events: Events,
        reach: Reachability,
        storage_check: Callable[[], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._tickets = tickets
        self._limits = limits
        self._events = events
        self._reach = reach
        self._storage_check = storage_check

    async def authorise(
        self, subject: Subject, wanted: Request, *, claimed_user: str | None = None
    ) -> tuple[str, Ticket]:
        """A token for *wanted*, and what it stands for.

        Args:
            claimed_user: the ``user_id`` an old client sends along; it must be the caller's.

        Raises:
            TooManyRequests: ``too_many_requests``; every attempt counts, also those that end in
                404, so that ids can't be probed. ``too_many_sessions``.
            Forbidden: somebody else's ``user_id``; no shell on this machine.
            NotFound: no such machine, or not for *subject* (one body).
            Conflict: ``agent_offline``, ``agent_maintenance``, ``agent_unlinked``.
            Unavailable: ``recording_unavailable``.
            InvalidRequest: command or login are not acceptable.
        """
        try:
            await self._limits.hit("tty-user", subject.user_id, ATTEMPTS_PER_USER, PERIOD)
            await self._limits.hit(
                "tty-address", address_key(subject.ip), ATTEMPTS_PER_ADDRESS, PERIOD
            )
            if claimed_user is not None and claimed_user != subject.user_id:
                raise Forbidden(
                    "A terminal can be opened only for yourself.",
                    code="not_your_user_id",
                    hint="Leave user_id away; who you are follows from your login.",
                )
            rule = await self._check(subject, wanted)
        except UnderpassError as error:
            await self.denied(subject, wanted.agent_id, error)
            raise
        cols, rows = clamp_size(wanted.cols, wanted.rows)
        token, ticket = await self._tickets.issue(
            subject,
            wanted.agent_id,
            command=wanted.command or None,
            login=wanted.login or None,
            cols=cols,
            rows=rows,
            session_id=wanted.session_id,
        )
        await self._events.record(
            "session.requested",
            actor=subject,
            agent_id=wanted.agent_id,
            object_id=wanted.session_id,
            rule=rule.rule,
            details={"command": wanted.command, "login": wanted.login},
        )
        return token, ticket

    async def _check(self, subject: Subject, wanted: Request) -> Decision:
        standing = await self._sessions.standing(wanted.agent_id)
        rule = require(subject, "shell", standing.view if standing else None)
        assert standing is not None  # or it would not have been allowed
        self.check_command(wanted.command, wanted.login)
        if wanted.session_id is not None:
            await self.own_session(subject, wanted.session_id, wanted.agent_id)
            return rule
        self.check_reachable(standing)
        await self._sessions.check_caps(subject.user_id, wanted.agent_id)
        await self._storage_check()
        return rule

    async def redeem(self, token: str, *, presented_by: Subject | None) -> tuple[Ticket, Person]:
        """Burn *token*; what it stood for, and its user as they are now.

        Raises:
            TicketRefused: it is no good.
            Forbidden: ``user_disabled``.
        """
        ticket = await self._tickets.redeem(
            token, presented_by=None if presented_by is None else presented_by.user_id
        )
        person = (await self._sessions.people([ticket.user_id])).get(ticket.user_id)
        if person is None or person.disabled:
            raise Forbidden("This user may no longer sign in.", code="user_disabled")
        return ticket, person

    async def check_start(self, subject: Subject, ticket: Ticket) -> tuple[AgentStanding, Decision]:
        """Check again what a ticket for a new session allowed; up to 5 minutes have passed.

        Raises:
            what :meth:`authorise` raises, except for rate limits.
        """
        standing = await self._sessions.standing(ticket.agent_id)
        rule = require(subject, "shell", standing.view if standing else None)
        assert standing is not None
        self.check_reachable(standing)
        await self._storage_check()
        return standing, rule

    async def own_session(
        self, subject: Subject, session_id: str, agent_id: str | None = None
    ) -> TtySession:
        """A session *subject* may come back to: their own, live, on a machine they still may use.

        Raises:
            NotFound: there is none, or it is somebody else's (one body for both).
            Forbidden: the machine is no longer theirs to use.
        """
        row = await self._sessions.get(session_id) if is_id(session_id) else None
        if (
            row is None
            or row.user_id != subject.user_id
            or row.kind != "pty"
            or (agent_id is not None and row.asset_id != agent_id)
        ):
            raise no_such_session()
        standing = await self._sessions.standing(row.asset_id)
        require(subject, "shell", standing.view if standing else None)
        return row

    async def watched_session(
        self, subject: Subject, session_id: str, action: Action, *, shared: bool
    ) -> TtySession:
        """A session *subject* may observe or join.

        Raises:
            NotFound: there is none, or not for *subject* (one body for both).
            Forbidden: they see it, but may not do this.
        """
        row = await self._sessions.get(session_id) if is_id(session_id) else None
        if row is None or row.kind != "pty":
            raise no_such_session()
        standing = await self._sessions.standing(row.asset_id)
        view = standing.view if standing else None
        decision = authorise(subject, action, view, owner_id=row.user_id, shared=shared)
        if decision.allowed:
            return row
        if not decision.visible:
            raise no_such_session()
        raise Forbidden(
            f"You may not {action} this session.",
            hint="Ask its owner to share it.",
            details={"rule": decision.rule},
        )

    def lost_right(
        self, person: Person | None, action: Action, view: AgentView, hub: Shared
    ) -> str | None:
        """Why *person* may not go on with what they do on a live session; None = they may."""
        if person is None or person.disabled:
            return "This user may no longer sign in."
        owner = hub.info.user_id
        if action == "shell":
            decision = authorise(person.subject(), action, view)
        else:
            decision = authorise(
                person.subject(), action, view, owner_id=owner, shared=hub.join_allowed
            )
        return None if decision.allowed else f"The right to {action} here was taken away."

    def check_reachable(self, standing: AgentStanding) -> None:
        """Refuse a machine that can't take a session now.

        Raises:
            Conflict: with a code and text of its own for each reason.
        """
        name = standing.view.name or standing.view.id
        if standing.status == "maintenance":
            raise Conflict(
                f"{name} is in maintenance: no new sessions.",
                code="agent_maintenance",
                hint="Ask an admin to end the maintenance.",
            )
        agent_id = standing.view.id
        if self._reach.is_linked(agent_id) or self._reach.polls(agent_id):
            return
        if standing.status == "degraded":
            raise Conflict(
                f"{name} sends heartbeats but has no link to the gateway right now.",
                code="agent_unlinked",
                hint="Its agent dials in by itself; try again in a moment.",
            )
        if standing.status != "online":
            raise Conflict(
                f"{name} is offline.",
                code="agent_offline",
                hint="Start its agent, or see that it can reach the gateway.",
            )

    def check_command(self, command: str | None, login: str | None) -> None:
        """Refuse what could never be a command or a login.

        Raises:
            InvalidRequest: it names the field.
        """
        if command is not None and (
            len(command.encode(errors="replace")) > _MAX_COMMAND or "\0" in command
        ):
            raise InvalidRequest(
                f"command: at most {_MAX_COMMAND} bytes, without NUL.", details={"field": "command"}
            )
        if login and not _LOGIN.fullmatch(login):
            raise InvalidRequest("login: this is not a login name.", details={"field": "login"})

    async def denied(
        self,
        subject: Subject | None,
        agent_id: str | None,
        error: UnderpassError,
        *,
        session_id: str | None = None,
        ip: str | None = None,
    ) -> None:
        """Record a refusal. Rate-limited ones are only counted, or a flood would fill the trail."""
        if error.code == "too_many_requests":
            return
        rule = error.details.get("rule")
        await self._events.record(
            "session.denied",
            actor=subject,
            agent_id=agent_id if agent_id is not None and is_id(agent_id) else None,
            object_id=session_id,
            outcome="denied" if error.status < 500 else "failed",
            rule=str(rule) if rule else error.code,
            ip=ip,
            details={"reason": error.message},
        )


def no_such_session() -> NotFound:
    """One body for sessions that do not exist and for those that are none of the asker's."""
    return NotFound("There is no such session.", hint="Check the id.")
