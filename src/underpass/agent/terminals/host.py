"""All terminal sessions of this machine: start, find again, list, end, forget."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from underpass.agent.terminals.flow import SessionFlow
from underpass.agent.terminals.login import (
    Login,
    LoginAllowed,
    build_environment,
    choose_login,
)
from underpass.agent.terminals.pty import pty_supported, spawn
from underpass.agent.terminals.session import Session, SessionFacts
from underpass.agent.terminals.trunk import Trunk
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import Forbidden, Gone, TooManyRequests, Unavailable
from underpass.core.supervisor import Supervisor
from underpass.wire.terminal import Failure
from underpass.wire.terminal_requests import PtyRequest

__all__ = ["TerminalHost"]

_log = structlog.get_logger(__name__)

_SWEEP = 1.0
_LOGIN_TIMEOUT = 10.0
_MAX_EXITED = 64
_MAX_EPITAPHS = 512


class TerminalHost:
    """Holds the sessions; links and gateways come and go around it.

    Args:
        login_allowed: the machine's policy for shells; asked on every start *and* every resume.
        default_login: the login for requests that name none; None = the agent's own.
        clock: where the time comes from (grace, listings).
        max_sessions: live sessions at most; the gateway has caps of its own, this one is the
            machine's.
        environ: the environment inherited parts are taken from; the agent's own by default.
    """

    def __init__(
        self,
        *,
        login_allowed: LoginAllowed,
        default_login: str | None = None,
        clock: Clock | None = None,
        max_sessions: int = 256,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._login_allowed = login_allowed
        self._default_login = default_login
        self._clock: Clock = clock or SystemClock()
        self._max_sessions = max_sessions
        self._environ = environ
        self._supervisor = Supervisor("terminals")
        self._sessions: dict[str, Session] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._epitaphs: OrderedDict[str, str] = OrderedDict()
        self._sweeping = False
        self._closing = False

    # -- opening --------------------------------------------------------------------------------

    async def attach(self, trunk: Trunk, request: PtyRequest) -> None:
        """:meth:`prepare`, then :meth:`serve`."""
        await self.serve(await self.prepare(request), trunk, request.offset)

    async def prepare(self, request: PtyRequest) -> Session:
        """The session *request* is about: a new one, or the running one it wants to go on with.

        Starting an id that already runs gives the running one, so that a request whose answer was
        lost can be repeated.

        Raises:
            Gone: ``session_gone``, with why it ended when that is still known.
            Forbidden: the login is not allowed (any more), or the session is another user's.
            Conflict: no such login, no shell.
            TooManyRequests: ``too_many_sessions``.
            Unavailable: ``pty_unsupported``, ``pty_exhausted``, ``agent_stopping``.
        """
        if not pty_supported():
            raise Unavailable(
                "This machine runs Windows, where the agent has no terminals yet.",
                code="pty_unsupported",
            )
        lock = self._starting.setdefault(request.session_id, asyncio.Lock())
        try:
            async with lock:
                session = self._sessions.get(request.session_id)
                if session is not None:
                    return self._permitted(session, request)
                if request.offset is not None:
                    raise self._gone(request.session_id)
                return await self._start(request)
        finally:
            if not lock.locked():
                self._starting.pop(request.session_id, None)

    def _permitted(self, session: Session, request: PtyRequest) -> Session:
        owner, asker = session.facts.user.id, request.user.id
        if owner and asker and owner != asker:
            # The gateway checks this too; an id alone must not be enough anywhere.
            raise Forbidden("This session belongs to another user.", code="session_of_another_user")
        login = session.facts.login
        if not (self._login_allowed(login.name) or (login.is_self and self._login_allowed("self"))):
            raise Forbidden(
                f"This machine's policy no longer allows the login {login.name!r}.",
                code="login_forbidden",
            )
        return session

    def _gone(self, session_id: str) -> Gone:
        why = self._epitaphs.get(session_id)
        text = f"The session is over: {why}" if why else "The session is not running here any more."
        return Gone(text, code="session_gone", hint="Open a new terminal.")

    async def _start(self, request: PtyRequest) -> Session:
        if self._closing:
            raise Unavailable("The agent is stopping.", code="agent_stopping")
        live = sum(not session.ended for session in self._sessions.values())
        if live + len(self._starting) > self._max_sessions:
            raise TooManyRequests(
                f"This machine already has {live} terminal sessions, its limit.",
                code="too_many_sessions",
                hint="End one of them first.",
                retry_after=10,
            )
        login = await self._login(request.login)
        environment = build_environment(
            login,
            terminal=True,
            session_id=request.session_id,
            requested=request.env,
            environ=self._environ,
        )
        name = Path(login.shell).name
        # A leading dash is how every shell is told that it is a login shell; `--login` is bash's.
        arguments = [name, "-c", request.command] if request.command else [f"-{name}"]
        pty = await spawn(
            login, login.shell, arguments, environment, cols=request.cols, rows=request.rows
        )
        if self._closing:
            await pty.close()
            raise Unavailable("The agent is stopping.", code="agent_stopping")
        running = self._sessions.get(request.session_id)
        if running is not None:
            # Two starts of one id after a failed third: the first one counts.
            await pty.close()
            return running
        session = Session(
            SessionFacts(
                id=request.session_id,
                login=login,
                command=request.command or login.shell,
                user=request.user,
                started_at=self._clock.now(),
            ),
            pty,
            SessionFlow(grace=request.grace, now=self._clock.monotonic()),
            clock=self._clock,
            supervisor=self._supervisor,
        )
        self._sessions[request.session_id] = session
        if not self._sweeping:
            self._sweeping = True
            self._supervisor.start(self._sweep_for_ever(), "sweep")
        _log.info(
            "session_started",
            session=request.session_id,
            user=request.user.username,
            login=login.name,
            command=session.facts.command[:200],
            pid=session.pid,
        )
        return session

    async def _login(self, asked: str | None) -> Login:
        """The login, looked up in a thread: the account database may be a slow directory."""
        try:
            async with asyncio.timeout(_LOGIN_TIMEOUT):
                return await asyncio.to_thread(
                    choose_login,
                    asked,
                    self._login_allowed,
                    default=self._default_login,
                    environ=self._environ,
                )
        except TimeoutError:
            raise Unavailable(
                "This machine's account database does not answer.", code="login_lookup_timeout"
            ) from None

    async def serve(self, session: Session, trunk: Trunk, offset: int | None) -> None:
        """Show *session* over *trunk* until either ends; forgets it when it was read to its end."""
        await session.serve(trunk, offset or 0)
        if session.delivered or (session.unwanted and session.ended):
            self._forget(session)

    # -- listings -------------------------------------------------------------------------------

    def announce(self) -> list[dict[str, Any]]:
        """The body's ``sessions`` of ``sessions.announce``: everything a gateway may resume."""
        return [session.announcement() for session in self._sessions.values()]

    def tty_status(self) -> dict[str, Any]:
        """A heartbeat's ``tty_status``."""
        entries = self.announce()
        return {
            "active_sessions": sum(not entry["exited"] for entry in entries),
            "sessions": entries,
        }

    def __len__(self) -> int:
        """Sessions kept, exited ones nobody has read to the end included."""
        return len(self._sessions)

    # -- ending ---------------------------------------------------------------------------------

    def terminate(self, session_id: str, reason: str) -> bool:
        """End a session now; the attached side sees the exit. False when there is none.

        An exited session that waits for a reader is forgotten.
        """
        session = self._sessions.get(session_id)
        if session is None:
            return False
        _log.info("session_terminated", session=session_id, reason=reason)
        self._remember(session_id, reason)
        if session.ended and not session.flow.attached:
            self._forget(session)
        else:
            session.unwanted = True
            session.terminate()
        return True

    def sweep(self) -> None:
        """Hang up sessions nobody came back to, forget what is over. Called every second."""
        now = self._clock.monotonic()
        for session in list(self._sessions.values()):
            if session.unwanted and session.ended and not session.flow.attached:
                self._forget(session)
                continue
            if not session.flow.overdue(now):
                continue
            if session.ended:
                self._forget(session)
            else:
                why = "nobody was connected to it for longer than its grace time."
                self._remember(session.facts.id, why)
                _log.info("session_grace_over", session=session.facts.id)
                session.terminate(Failure("grace_over", f"The session was ended: {why}"))
        exited = [s for s in self._sessions.values() if s.ended and not s.flow.attached]
        for session in exited[:-_MAX_EXITED]:
            self._forget(session)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self.sweep()

    def _remember(self, session_id: str, why: str) -> None:
        self._epitaphs[session_id] = why
        while len(self._epitaphs) > _MAX_EPITAPHS:
            self._epitaphs.popitem(last=False)

    def _forget(self, session: Session) -> None:
        if self._sessions.pop(session.facts.id, None) is None:
            return
        end = session.flow.exit
        if session.facts.id not in self._epitaphs and end is not None:
            how = f"exit code {end.code}" if end.code is not None else str(end.signal)
            self._remember(session.facts.id, f"its program ended ({how}).")
        _log.info(
            "session_ended",
            session=session.facts.id,
            code=end.code if end else None,
            signal=end.signal if end else None,
        )

    async def close(self) -> None:
        """End every session, tell who is attached, wait until all is gone (≤ 7 s). Idempotent."""
        self._closing = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.terminate(Failure("agent_stopping", "The agent on this machine is stopping."))
        if sessions:
            try:
                async with asyncio.timeout(6):
                    await asyncio.gather(*(session.wait_ended() for session in sessions))
            except TimeoutError:
                _log.error("sessions_stuck", count=sum(not s.ended for s in sessions))
            await asyncio.sleep(0)  # let the last words go out
        await self._supervisor.close()
        self._sessions.clear()
