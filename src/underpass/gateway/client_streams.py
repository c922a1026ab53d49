"""What people's programs open over their own link: TCP, UDP and Unix sockets, programs, sshd.

Every opening is authorised here for the person whose link it is, then again by the machine's own
policy. And since a stream can live for days, it is authorised again every few seconds: whoever is
taken off a machine loses what they have open (spec 1: within 5 s). Whoever is disabled or signed
out loses the whole link (``cutting.py``).

Which permission a target needs:

=================================== =========
``exec``                            ``shell``
``tcp:`` loopback ``:22``           ``shell``: it is the machine's sshd (``underpass ssh-proxy``)
any other ``tcp:``, ``udp``,        ``forward``
and ``unix:``
=================================== =========

Whoever has no such permission may have accepted an offer (``control.offers``) of just this target.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, cast, get_args

import msgspec
import structlog

from underpass.control.access import Action, AgentView, authorise, require
from underpass.control.events import Events
from underpass.control.guest_quota import GuestQuota
from underpass.control.live import LiveBus, LiveMessage
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.clock import SystemClock
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    UnderpassError,
)
from underpass.core.supervisor import Supervisor
from underpass.gateway.client_stream import ClientStream
from underpass.gateway.entrypoints.allowances import Allowances
from underpass.gateway.guest_streams import GuestPassage, GuestStreams
from underpass.gateway.router import CarrierChoice, Router
from underpass.links.link import Link, Opening
from underpass.links.relay import RelayResult, Tap
from underpass.links.stream import Stream

__all__ = ["Audit", "ClientStreams", "ExecAuditor", "needed_action"]

_log = structlog.get_logger(__name__)

RECHECK: Final = 2.5
"""Seconds between two looks at everybody's permissions, when no news comes earlier."""
_PASSED_ON: Final = ("command", "login", "env")
"""What an exec's opener on the agent gets from the client's own words."""
_UNSEEN: Final = ("layers", "resume")
"""What client and agent agree about other streams: passed on, and none of the gateway's business
(``links/layers.py``, ``wire/resume_claim.py``)."""
_MAX_UNSEEN: Final = 1024
"""Bytes of each."""


class Audit(Protocol):
    """One audited program: its session id, and a tap that sees its bytes."""

    @property
    def session_id(self) -> str: ...

    @property
    def tap(self) -> Tap | None: ...


ExecAuditor = Callable[[Subject, Any, Any], AbstractAsyncContextManager[Audit]]
"""(subject, machine row, command) → context that keeps session, recording and events
(``gateway.terminals.exec_audit``)."""


class AgentsLike(Protocol):
    """Where machines are found (``control.agents.Agents``)."""

    async def find(self, subject: Subject, id_or_name: str) -> Any: ...
    async def view(self, agent_id: str) -> AgentView | None: ...


class OffersLike(Protocol):
    """What lets people in who have no permission of their own (``control.offers.Offers``)."""

    async def allows(
        self, subject: Subject, agent_id: str, target: str, *, starting: bool = False
    ) -> str | None: ...


def needed_action(target: str) -> Action:
    """The permission *target* needs.

    Raises:
        InvalidRequest: clients open no such targets.
    """
    kind, _, rest = target.partition(":")
    if kind == "exec" and not rest:
        return "shell"
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        return "shell" if port == "22" and _is_loopback(host) else "forward"
    if kind in ("unix", "udp"):
        return "forward"
    raise InvalidRequest(
        "The target must be tcp:HOST:PORT, udp:HOST:PORT, udp, unix:PATH or exec.",
        code="invalid_target",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class ClientStreams:
    """Serves clients' links.

    Args:
        router: the way to agents.
        agents: the machines.
        events: told of every decision and every end.
        bus: what makes a re-check come at once (topics ``user``, ``agent`` and ``offer``).
        exec_audit: keeps the record of programs; without it ``exec`` is refused.
        offers: asked where a person's own permission does not suffice.
        guests: holds guests' streams to what guests may use.
        allowances: what people's tunnels may use; without it as much as they like.
        recheck: seconds between two re-checks.

    Start :meth:`watch` as a task, and pass :meth:`serve` to the link server.
    """

    def __init__(
        self,
        *,
        router: Router,
        agents: AgentsLike,
        events: Events,
        bus: LiveBus,
        exec_audit: ExecAuditor | None = None,
        offers: OffersLike | None = None,
        guests: GuestStreams | None = None,
        allowances: Allowances | None = None,
        recheck: float = RECHECK,
    ) -> None:
        self._router = router
        self._agents = agents
        self._events = events
        self._bus = bus
        self._exec_audit = exec_audit
        self._offers = offers
        self._guests = guests or GuestStreams(GuestQuota(SystemClock()), lambda _guest_id: None)
        self._allowances = allowances
        self._recheck = recheck
        self._supervisor = Supervisor("client streams")
        self._open: set[ClientStream] = set()

    def __len__(self) -> int:
        """How many streams are open or being opened (a gauge that must return to zero)."""
        return len(self._open)

    def serve(self, link: Link, subject: Subject) -> None:
        """Answer what *subject* opens over *link*; called before the link starts."""

        async def opened(opening: Opening) -> None:
            await self._serve(opening, subject)

        link.on_open(opened)

    async def stop(self) -> None:
        """End every stream and the event writing."""
        for stream in tuple(self._open):
            stream.cut("going_away", "The gateway is shutting down.")
        await self._supervisor.close()

    def end_program(self, session_id: str, message: str) -> bool:
        """Cut the ``exec`` that is session *session_id*; False when it is none of ours."""
        for stream in tuple(self._open):
            if stream.session_id == session_id:
                stream.cut("terminated", message)
                return True
        return False

    # -- one stream -------------------------------------------------------------------------------

    async def _serve(self, opening: Opening, subject: Subject) -> None:
        wanted = opening.meta.get("agent")
        if not isinstance(wanted, str) or not 0 < len(wanted) <= 253:
            raise InvalidRequest("meta.agent must name a machine.", code="invalid_meta")
        self._guests.knock(subject)
        target = opening.target
        agent_id: str | None = None
        row: Any = None
        try:
            action = needed_action(target)
            try:
                row = await self._agents.find(subject, wanted)
                agent_id = str(row.id)
                rule = require(subject, action, AgentView.of(row)).rule
                if action == "shell" and row.status == "maintenance":
                    raise Conflict("The machine is under maintenance.", code="agent_maintenance")
            except (NotFound, Forbidden):
                lent = await self._lent(subject, agent_id or wanted, target, starting=True)
                if lent is None:
                    raise
                agent_id, rule = agent_id or wanted, lent
        except UnderpassError as error:
            self._record(
                "stream.denied", subject, agent_id, target, outcome="denied",
                rule=str(error.details.get("rule") or error.code),
            )  # fmt: skip
            raise
        kind = target.partition(":")[0]
        current = ClientStream(subject, agent_id, action, target)
        self._open.add(current)
        metrics.STREAMS.labels(kind).inc()
        try:
            if kind == "exec":
                await self._run_exec(opening, current, row)
            else:
                with self._guests.passing(subject, agent_id, current.cut) as passage:
                    await self._forward(opening, current, target, rule, passage)
        finally:
            self._open.discard(current)
            metrics.STREAMS.labels(kind).dec()

    async def _lent(
        self, subject: Subject, agent_id: str, target: str, *, starting: bool = False
    ) -> str | None:
        """The offer by which somebody who may not use the machine reaches this target of it."""
        if self._offers is None:
            return None
        return await self._offers.allows(subject, agent_id, target, starting=starting)

    async def _forward(
        self, opening: Opening, current: ClientStream, target: str, rule: str, passage: GuestPassage
    ) -> None:
        meta = _unseen(opening.meta)
        resumed = _is_resumed(meta)
        try:
            # Guests are no people with quotas; what they may use is in ``guest_streams``.
            if self._allowances is not None and current.subject.role != "guest":
                current.allowance = self._allowances.of(current.subject.user_id)
                await current.allowance.require()
            remote = await self._router.open(
                current.agent_id, target, on_behalf_of=current.subject, meta=meta,
                interactive=opening.interactive, carrier=_carrier(opening.meta),
            )  # fmt: skip
        except UnderpassError as error:
            self._record(
                "stream.failed", current.subject, current.agent_id, target, outcome="failed",
                rule=rule, code=error.code,
            )  # fmt: skip
            raise
        event = "stream.resumed" if resumed else "stream.opened"
        self._record(event, current.subject, current.agent_id, target, rule=rule)
        if resumed:
            metrics.STREAM_RESUMES.labels(target.partition(":")[0]).inc()
        result = await self._relay(opening, current, passage.around(remote), passage.tap)
        self._record(
            "stream.closed", current.subject, current.agent_id, target,
            sent=result.a_to_b, received=result.b_to_a,
            code=result.error.code if result.error is not None else None,
        )  # fmt: skip

    async def _run_exec(self, opening: Opening, current: ClientStream, row: Any) -> None:
        if self._exec_audit is None:
            raise Forbidden("This gateway keeps no record of programs, so it runs none.")
        command = opening.meta.get("command")
        async with self._exec_audit(current.subject, row, command) as audit:
            current.session_id = audit.session_id
            meta = {key: opening.meta[key] for key in _PASSED_ON if key in opening.meta}
            remote = await self._router.open(
                current.agent_id, "exec", on_behalf_of=current.subject,
                meta={**meta, "session_id": audit.session_id}, interactive=opening.interactive,
            )  # fmt: skip
            await self._relay(opening, current, remote, audit.tap)

    async def _relay(
        self, opening: Opening, current: ClientStream, remote: Stream, tap: Tap | None
    ) -> RelayResult:
        kind = opening.target.partition(":")[0]
        try:
            current.attach(opening, remote)
        except BaseException:
            remote.abort("cancelled")
            raise
        result = await current.relay(remote, tap)
        metrics.STREAM_BYTES.labels(kind, "to_agent").inc(result.a_to_b)
        metrics.STREAM_BYTES.labels(kind, "from_agent").inc(result.b_to_a)
        return result

    # -- again and again --------------------------------------------------------------------------

    async def watch(self) -> None:
        """Re-check every stream now and then, and whenever something about its machine changed."""

        def concerns(message: LiveMessage) -> bool:
            # Of machines, only what may take a right away: hundreds come online at once.
            return message.topic in {"user", "offer"} or (
                message.topic == "agent" and message.data.get("change") in {"updated", "deleted"}
            )

        with self._bus.subscribe(concerns, limit=64) as news:
            while True:
                message = await news.next(self._recheck)
                if message is None and news.closed:
                    return
                try:
                    await self.recheck()
                except Exception:  # noqa: BLE001 - a database that is away must not end the watch
                    _log.exception("recheck_failed")
                    await asyncio.sleep(self._recheck / 2)

    async def recheck(self) -> None:
        """Cut what is no longer allowed."""
        views: dict[str, AgentView | None] = {}
        for stream in tuple(self._open):
            if stream.agent_id not in views:
                views[stream.agent_id] = await self._agents.view(stream.agent_id)
            decision = authorise(stream.subject, stream.action, views[stream.agent_id])
            if decision.allowed or await self._lent(stream.subject, stream.agent_id, stream.target):
                continue
            self._record(
                "stream.cut", stream.subject, stream.agent_id, None, outcome="denied",
                rule=decision.rule,
            )  # fmt: skip
            stream.cut("permission_lost", "You may not use this machine any more.")

    def _record(
        self,
        event: str,
        subject: Subject,
        agent_id: str | None,
        target: str | None,
        *,
        outcome: Any = "ok",
        rule: str | None = None,
        **details: Any,
    ) -> None:
        kept = {key: value for key, value in details.items() if value is not None}
        if target is not None:
            kept["target"] = target
        with contextlib.suppress(RuntimeError):  # closed: the gateway is on its way out
            self._supervisor.start(
                self._events.record(
                    event, actor=subject, agent_id=agent_id, outcome=outcome, rule=rule,
                    details=kept,
                ),
                event,
            )  # fmt: skip


def _unseen(meta: dict[str, Any]) -> dict[str, Any]:
    """What of *meta* is passed on as it is.

    Raises:
        InvalidRequest: it is too large.
    """
    passed = {key: meta[key] for key in _UNSEEN if meta.get(key) is not None}
    for key, value in passed.items():
        if len(msgspec.msgpack.encode(value)) > _MAX_UNSEEN:
            raise InvalidRequest(f"meta.{key} is too large.", code="invalid_meta")
    return passed


def _carrier(meta: dict[str, Any]) -> CarrierChoice:
    """The carrier that *meta* wishes for.

    Raises:
        InvalidRequest: there is no such carrier.
    """
    wish = meta.get("carrier", "auto")
    for choice in get_args(CarrierChoice):
        if wish == choice:
            return choice
    raise InvalidRequest("meta.carrier names no carrier.", code="invalid_meta")


def _is_resumed(meta: dict[str, Any]) -> bool:
    """Whether this is another path for a stream that was opened before."""
    claim = meta.get("resume")
    return isinstance(claim, dict) and cast("dict[str, Any]", claim).get("new") is False
