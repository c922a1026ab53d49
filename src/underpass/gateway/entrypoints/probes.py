"""Tries the targets of mappings that want it, through their agents, and knows which are down.

A try goes the way connections go: on the owner's behalf, authorised here and by the agent's
policy. What the tries mean is decided in ``control.health``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httptools
import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.health import Health, HealthState, HealthStatus, TargetHealth
from underpass.control.mapping import Mapping
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest, Unavailable, UnderpassError
from underpass.core.jitter import Jitter, spread
from underpass.core.supervisor import Supervisor
from underpass.gateway.entrypoints.permission import OwnerRights, action_for
from underpass.gateway.router import Router
from underpass.links.stream import Stream
from underpass.wire.proxy_protocol import encode_v1, encode_v2

__all__ = ["MAX_AT_ONCE", "TIMEOUT", "Probes"]

_log = structlog.get_logger(__name__)

TIMEOUT: Final = 5.0
"""Seconds a try may take; less where they come more often."""
MAX_AT_ONCE: Final = 64
"""Tries under way; who is overdue longest is next."""
_MAX_HEAD: Final = 16 << 10
"""Bytes of an answer in which its status must be."""
_MAX_REASON: Final = 200
_TRIED: Final = frozenset({"tcp", "unix"})

Changed = Callable[[Mapping, HealthState, HealthStatus], None]
"""(mapping, what it was, what it is)."""


@dataclass(slots=True, eq=False)
class _Member:
    mapping: Mapping
    health: TargetHealth
    busy: bool = False


class Probes:
    """Call :meth:`tick` about once a second, and :meth:`stop` at the end.

    Args:
        router: the way to agents.
        rights: whether owners may still.
        clock: where the time comes from.
        changed: told when a target went up or down, now and then if it keeps doing so.
        jitter: spreads the tries.
    """

    def __init__(
        self,
        router: Router,
        rights: OwnerRights,
        clock: Clock,
        changed: Changed,
        jitter: Jitter = spread,
    ) -> None:
        self._router = router
        self._rights = rights
        self._clock = clock
        self._changed = changed
        self._jitter = jitter
        self._members: dict[str, _Member] = {}
        self._supervisor = Supervisor("probes")

    def put(self, mapping: Mapping) -> None:
        """Try this one's target from now on, if it wants that; what is known of it stays, unless
        its target or the rules changed."""
        rules = mapping.balancing.health
        if rules is None or mapping.protocol not in _TRIED:
            self.remove(mapping.id)
            return
        known = self._members.get(mapping.id)
        if known is not None and known.health.rules == rules and _same_target(known, mapping):
            known.mapping = mapping
            return
        self.remove(mapping.id)
        self._members[mapping.id] = _Member(mapping, TargetHealth(rules, self._clock, self._jitter))
        metrics.MAPPING_HEALTH.labels("unknown").inc()

    def remove(self, mapping_id: str) -> None:
        """Try it no more. Idempotent."""
        gone = self._members.pop(mapping_id, None)
        if gone is not None:
            metrics.MAPPING_HEALTH.labels(gone.health.status.state).dec()

    def status(self, mapping_id: str) -> HealthStatus | None:
        """What is known; ``None`` when its target is not tried."""
        member = self._members.get(mapping_id)
        return None if member is None else member.health.status

    def is_down(self, mapping_id: str) -> bool:
        """Whether its target is known to be down."""
        member = self._members.get(mapping_id)
        return member is not None and member.health.status.state == "down"

    def tick(self) -> None:
        """Begin the tries that are due, and tell what is to be told."""
        members = tuple(self._members.values())
        for member in members:
            self._tell(member)
        due = [member for member in members if member.health.due and not member.busy]
        due.sort(key=lambda member: member.health.due_at)
        for member in due[: max(0, MAX_AT_ONCE - len(self._supervisor))]:
            member.busy = True
            member.health.begin()
            self._supervisor.start(self._try(member), "probe")

    async def stop(self) -> None:
        """End all tries. Idempotent."""
        await self._supervisor.close()
        for mapping_id in tuple(self._members):
            self.remove(mapping_id)

    # -- one try --------------------------------------------------------------------------------

    async def _try(self, member: _Member) -> None:
        mapping, rules = member.mapping, member.health.rules
        try:
            reason = await self._outcome(mapping, rules)
        except (Unavailable, SQLAlchemyError, OSError) as error:
            # The database can't say whether the owner may: that says nothing of the target.
            _log.warning("probe_not_made", mapping=mapping.id, error=str(error)[:300])
            return
        finally:
            member.busy = False
        metrics.MAPPING_PROBES.labels(rules.type, "failed" if reason else "passed").inc()
        if self._members.get(mapping.id) is not member:
            return  # it goes elsewhere by now
        before = member.health.status.state
        if reason is None:
            member.health.passed()
        else:
            member.health.failed(reason[:_MAX_REASON])
        metrics.MAPPING_HEALTH.labels(before).dec()
        metrics.MAPPING_HEALTH.labels(member.health.status.state).inc()
        self._tell(member)

    def _tell(self, member: _Member) -> None:
        news = member.health.news()
        if news is not None:
            self._changed(member.mapping, *news)

    async def _outcome(self, mapping: Mapping, rules: Health) -> str | None:
        """What was wrong; ``None``: nothing.

        Raises:
            Unavailable, SQLAlchemyError, OSError: the owner's rights can't be read.
        """
        agent, action = mapping.target_agent_id, action_for(mapping.target)
        owner, decision = await self._rights.decide(mapping.user_id, agent, action)
        if owner is None or not decision.allowed:
            return "The owner of this mapping may not use the machine (any more)."
        limit = min(TIMEOUT, max(1.0, rules.interval))
        try:
            async with asyncio.timeout(limit):
                stream = await self._router.open(
                    agent, mapping.target, on_behalf_of=owner, timeout=limit, carrier="mux"
                )
                try:
                    wrong = await _ask(stream, mapping, rules) if rules.type == "http" else None
                except BaseException:  # the time limit's cancellation, too
                    stream.abort()
                    raise
                await stream.close()  # orderly: a reset every few seconds would fill others' logs
                return wrong
        except TimeoutError:
            return f"There was no answer within {limit:g} s."
        except UnderpassError as error:
            return error.message


def _same_target(known: _Member, mapping: Mapping) -> bool:
    before = known.mapping
    return (before.target_agent_id, before.target, before.options.proxy_protocol) == (
        mapping.target_agent_id, mapping.target, mapping.options.proxy_protocol,
    )  # fmt: skip


# -- HTTP ---------------------------------------------------------------------------------------


async def _ask(stream: Stream, mapping: Mapping, rules: Health) -> str | None:
    """GET the path: ``None`` for 2xx and 3xx, else what was answered.

    Raises:
        UnderpassError: the stream ended, or no HTTP came.
    """
    version = mapping.options.proxy_protocol
    if version is not None:  # the target waits for it; we speak for ourselves
        stream.write(encode_v1(None, None) if version == "v1" else encode_v2(None, None))
    stream.write(
        f"GET {quote(rules.path, safe=_SAFE)} HTTP/1.1\r\n"
        f"Host: {_host(mapping)}\r\n"
        "User-Agent: underpass-health\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n".encode("ascii")
    )
    answer = _Answer()
    while answer.status is None:
        data = await stream.read()
        if not data:
            return "The target ended the connection without an answer."
        answer.feed(data)
    return None if 200 <= answer.status < 400 else f"The target answered {answer.status}."


_SAFE: Final = "/?&=%:+,;@!$'()*~-._"


def _host(mapping: Mapping) -> str:
    return "localhost" if mapping.protocol == "unix" else mapping.target.removeprefix("tcp:")


class _Answer:
    """The status of an HTTP answer, as soon as its head is there; interim ones (1xx) pass by."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._seen = 0
        self._parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self.status is None:
            self.status = status

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequest: it is no HTTP, or its head does not end.
        """
        self._seen += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.status is None:  # what comes behind the head is nobody's business
                raise InvalidRequest(f"The target does not speak HTTP: {error}.") from None
        if self.status is None and self._seen > _MAX_HEAD:
            raise InvalidRequest("The head of the target's answer does not end.")
