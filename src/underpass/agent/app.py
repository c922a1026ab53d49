"""An agent, put together: get in, stay linked (or poll), tell how it goes, end without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

import structlog

from underpass.agent.corrected_clock import CorrectedClock
from underpass.agent.declaring import Declaring
from underpass.agent.enrolment import EnrolmentRefused, enrol
from underpass.agent.facts import Facts
from underpass.agent.far_machines import FarMachines
from underpass.agent.heartbeat import Heartbeat, MachineUnknown
from underpass.agent.layers import Identity
from underpass.agent.link_keeper import LinkKeeper
from underpass.agent.listeners import FEATURE as LISTEN
from underpass.agent.listeners import Listeners
from underpass.agent.openers import dispatch
from underpass.agent.openers.exec import exec_opener
from underpass.agent.openers.pty import pty_opener
from underpass.agent.openers.tcp import tcp_opener, unix_opener
from underpass.agent.openers.udp import udp_opener
from underpass.agent.policy import Policy
from underpass.agent.policy_file import load_policy
from underpass.agent.poll import PollLoop, relay_dialler
from underpass.agent.resumables import Resumables
from underpass.agent.settings import AgentSettings
from underpass.agent.signed_http import SignedHttp
from underpass.agent.state import AgentState
from underpass.agent.terminals.host import TerminalHost
from underpass.agent.terminals.login import own_login
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import UnderpassError
from underpass.core.garbage import settle
from underpass.core.settings import SettingsError
from underpass.links.carriers.holder import Carriers
from underpass.links.carriers.pool import FEATURE as DEDICATED
from underpass.links.carriers.preface import carrier_key
from underpass.links.dial import GatewayAddress
from underpass.links.link import Link
from underpass.wire.handshake import AgentIdentity, Established, Refused

__all__ = ["FINALLY_REFUSED", "Agent", "run_agent"]

_log = structlog.get_logger(__name__)

FINALLY_REFUSED: Final = 3
"""Exit status: the gateway said no, and asking again is pointless."""
_FEATURES: Final = frozenset({"tcp", "udp", "unix", "pty", "exec", DEDICATED, LISTEN})
_ANNOUNCE_TRIES: Final = 3
_MAX_TERMINATED: Final = 10_000
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run_agent(
    settings: AgentSettings,
    *,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> int:
    """Run an agent until it is told to stop.

    Args:
        settings: what to run.
        ready: called once, when the first link is up (poll mode: when polling begins).
        stop: ends it when set; without one, SIGTERM and SIGINT do.
        clock: where time comes from.

    Returns:
        0 when it was told to stop, 3 after a final refusal (the log says which).

    Raises:
        SettingsError, StateError, PolicyError: it can't start; one line, exit status 2.
    """
    async with _stopping(stop) as stopped:
        agent = Agent(settings, ready=ready, clock=clock)
        if stop is None:  # the process is ours
            settle()
        hangups = contextlib.ExitStack()
        if stop is None:
            hangups.enter_context(_at_hangup(agent.reread))
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(agent.run())
                waiting = group.create_task(stopped.wait())
                await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    _log.info("agent_stopping")
                    await agent.end_streams()  # while the link can still tell who watches
                working.cancel()
                waiting.cancel()
            return 0 if working.cancelled() else working.result()
        except* UnderpassError as failures:
            failure = failures.exceptions[0]
        finally:
            hangups.close()
            await agent.close()
    raise failure


class Agent:
    """One agent. :meth:`run` works until cancelled; :meth:`close` afterwards, always.

    Raises:
        SettingsError, StateError, PolicyError: see :func:`run_agent`.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        ready: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._state = AgentState(settings.state)
        server = settings.server or self._state.server()
        if server is None:
            raise SettingsError(
                "No gateway is given; use --server URL (and --join TOKEN to come in at once)."
            )
        self._server = server
        self.policy = load_policy(settings.policy_file, own_login().name)
        self._state.lock()
        self._http = SignedHttp(
            server,
            CorrectedClock(clock or SystemClock()),
            agent_id=self._state.client_id(),
            secret=self._state.secret,
            fingerprint=settings.fingerprint,
        )
        self._facts = Facts()
        self._host = TerminalHost(
            login_allowed=self.policy.login_allowed("shell"),
            default_login=self.policy.default_login("shell"),
            clock=clock,
        )
        self._resumables = Resumables(clock=clock)
        self._open = dispatch(
            _openers(self.policy, self._host, self._resumables, Identity(self._state.private_key))
        )
        self._listeners = Listeners(self.policy, machines=FarMachines(settings.state))
        self._declaring = Declaring(
            settings.config_file, host=GatewayAddress.parse(server).host, clock=clock
        )
        self._keeper: LinkKeeper | None = None
        self._carriers = Carriers()
        self._forgotten = False
        self._heartbeat = Heartbeat(
            self._http,
            self._facts,
            link=lambda: self._keeper.link if self._keeper is not None else None,
            mode=settings.mode,
            tty_status=self._host.tty_status,
            labels=settings.labels,
            interval=settings.heartbeat,
        )

    async def run(self) -> int:
        """Enrol if need be, then work; enrol again when the gateway has forgotten us.

        Returns:
            the exit status after a final refusal.
        """
        while True:
            try:
                await self._enrol()
                await self._work()
            except EnrolmentRefused as error:
                _log.error("enrolment_refused", code=error.code, reason=str(error))
                return FINALLY_REFUSED
            except Refused as error:
                if error.code != "not_enrolled":
                    _log.error("link_refused", code=error.code, reason=str(error))
                    return FINALLY_REFUSED
                self._forget("The gateway does not take our secret any more.")
            except MachineUnknown as error:
                self._forget(str(error))

    def reread(self) -> None:
        """Read the file with the declared mappings again (SIGHUP)."""
        self._declaring.reread()

    async def end_streams(self) -> None:
        """End every terminal and resumable stream, and tell who is attached."""
        self._resumables.end_all("going_away", "The agent is stopping.")
        await self._host.close()

    async def close(self) -> None:
        """Give back what is held. Idempotent."""
        await self._listeners.close()
        await self._resumables.close()
        await self._host.close()
        await self._http.close()
        self._state.close()

    # -- getting in -----------------------------------------------------------------------------

    async def _enrol(self) -> None:
        if self._state.enrolled:
            return
        join = self._settings.join.get_secret_value() if self._settings.join else None
        if self._forgotten:
            join = None  # whoever removed this machine decides whether it comes back
        known_before = self._state.server() is not None
        try:
            await self._apply(join)
        except EnrolmentRefused as error:
            if join is None or not known_before or not error.code.startswith("join_token"):
                raise
            # The token that once let this machine in is used up; now an admin has to decide.
            _log.warning("join_token_not_taken", code=error.code, reason=error.message)
            await self._apply(None)

    async def _apply(self, join_token: str | None) -> None:
        await enrol(
            self._state, self._http, hostname=self._settings.hostname, join_token=join_token
        )

    def _forget(self, why: str) -> None:
        _log.warning("enrolment_lost", reason=why)
        self._state.forget_enrolment()
        self._forgotten = True
        self._listeners.forget()
        self._resumables.end_all("terminated", "The machine was removed.")
        for session in self._host.announce():
            self._host.terminate(session["session_id"], "The machine was removed.")

    # -- working ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        if self._settings.mode == "poll":
            if self._settings.config_file.exists():
                _log.warning(
                    "declared_mappings_need_a_link", file=str(self._settings.config_file),
                    hint="In poll mode this file does not count. Start without --mode poll.",
                )  # fmt: skip
            loop = PollLoop(
                self._host,
                self._http.signed_get,
                relay_dialler(self._server, self._settings.fingerprint),
            )
            self._say_ready()
            await _all(self._heartbeat.run(), loop.run())
            return
        secret = self._state.secret()
        assert secret is not None
        self._keeper = LinkKeeper(
            self._server,
            AgentIdentity(self._state.client_id(), secret, self._settings.hostname),
            transport=self._settings.transport,
            fingerprint=self._settings.fingerprint,
            pinned_key=self._state.gateway_key(),
            features=_FEATURES,
            prepare=self._prepare,
            linked=self._linked,
            on_established=self._established,
        )
        try:
            async with Carriers() as self._carriers:
                await _all(
                    self._heartbeat.run(),
                    self._keeper.run(),
                    self._listeners.run(),
                    self._declaring.run(),
                )
        finally:
            self._keeper = None

    def _established(self, established: Established) -> None:
        if self._state.gateway_key() is None:
            self._state.keep_gateway_key(established.node_key)
        interval = established.settings.get("heartbeat")
        if isinstance(interval, int | float) and 1 <= interval <= 3600:
            self._heartbeat.interval = float(interval)

    def _prepare(self, link: Link) -> None:
        secret = self._state.secret()
        assert secret is not None
        link.on_open(self._carriers.serve(link, carrier_key(secret, link.id), self._open))
        link.on_control("session.terminate", self._terminate)
        link.on_control("metrics", self._metrics)
        self._listeners.prepare(link)
        self._declaring.prepare(link)

    async def _linked(self, link: Link) -> None:
        await self._announce(link)
        await self._listeners.linked(link)
        self._declaring.linked(link)
        self._say_ready()
        await self._heartbeat.beat()

    async def _announce(self, link: Link) -> None:
        """Tell the gateway which sessions live here; end those it has given up on."""
        for attempt in range(_ANNOUNCE_TRIES):
            try:
                answer = await link.request(
                    "sessions.announce", {"sessions": self._host.announce()}
                )
            except UnderpassError as error:
                if link.closed:
                    return
                _log.warning("announce_failed", code=error.code, reason=str(error))
                await asyncio.sleep(attempt + 1.0)
                continue
            given_up = answer.get("terminate")
            for session_id in (given_up if isinstance(given_up, list) else [])[:_MAX_TERMINATED]:
                self._host.terminate(str(session_id), "The gateway has closed this session.")
            return

    async def _terminate(self, _link: Link, body: dict[str, Any]) -> dict[str, Any]:
        reason = str(body.get("reason") or "It was ended by the gateway.")[:500]
        return {"ended": self._host.terminate(str(body.get("session_id")), reason)}

    async def _metrics(self, _link: Link, _body: dict[str, Any]) -> dict[str, Any]:
        return {"dynamic_info": await self._facts.dynamic()}

    def _say_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready()


def _openers(
    policy: Policy, host: TerminalHost, resumables: Resumables, identity: Identity
) -> dict[str, Any]:
    return {
        "tcp": resumables.wrap(tcp_opener(policy, identity=identity)),
        "udp": udp_opener(policy, identity=identity),
        "unix": resumables.wrap(unix_opener(policy, identity=identity)),
        "pty": pty_opener(host),
        "exec": exec_opener(
            policy.login_allowed("exec"), default_login=policy.default_login("exec")
        ),
    }


async def _all(*work: Coroutine[Any, Any, None]) -> None:
    """Do all of *work*; the first failure ends the rest and is raised as itself."""
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except* UnderpassError as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        raise failure


@contextlib.asynccontextmanager
async def _stopping(stop: asyncio.Event | None) -> AsyncIterator[asyncio.Event]:
    """*stop*, or an event that SIGTERM and SIGINT set."""
    if stop is not None:
        yield stop
        return
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, event.set)
            taken.append(number)
    try:
        yield event
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _at_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Have SIGHUP mean *call*; on a terminal it goes on meaning that the terminal is gone."""
    loop = asyncio.get_running_loop()
    taken = False
    if not os.isatty(0):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGHUP, call)
            taken = True
    try:
        yield
    finally:
        if taken:
            loop.remove_signal_handler(signal.SIGHUP)
