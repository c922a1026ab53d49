"""What every kind of entry point shares: one mapping, what is open through it, and its end.

An entry point gets connections or datagrams from whoever listens (``doorway.py``), decides whether
they may pass, opens their streams and counts them. It owns all their tasks.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from underpass.control.access import Action, Decision
from underpass.control.mapping import Mapping, MappingLive
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.gateway.entrypoints.admission import AddressRules, Places
from underpass.gateway.entrypoints.allowance import Allowance
from underpass.gateway.entrypoints.allowances import Allowances
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.gateway.entrypoints.permission import OwnerRights, action_for
from underpass.gateway.entrypoints.refusals import Refusals, reason_of
from underpass.gateway.entrypoints.shape import Shape
from underpass.gateway.entrypoints.traffic import Counted, Traffic
from underpass.gateway.router import Router
from underpass.links.datagram_socket import Address
from underpass.links.layers import Layers
from underpass.links.link import Opening
from underpass.links.stream import Stream

__all__ = ["MAX_CONNECTIONS", "MAX_FLOWS", "EntryPoint", "Surroundings"]

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 28_000
"""Connections of all mappings together: half of the descriptors a gateway asks for, and a rest."""
MAX_FLOWS: Final = 16_384
"""UDP flows of all mappings together."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an entry point needs of its gateway.

    Attributes:
        router: the way to agents.
        rights: whether owners may still.
        refusals: told of everybody who is turned away.
        clock: where the time comes from.
        connections: places for connections of all mappings.
        flows: places for UDP flows of all mappings.
        balancers: who may say for whom it connects (PROXY protocol); without any, everybody whom
            a mapping lets in.
        allowances: what people's tunnels may use; without it as much as they like.
    """

    router: Router
    rights: OwnerRights
    refusals: Refusals
    clock: Clock
    connections: Places
    flows: Places
    balancers: AddressRules | None = None
    allowances: Allowances | None = None


class EntryPoint(ABC):
    """One mapping that is open.

    Args:
        mapping: what is wanted.
        surroundings: the gateway's parts it works with.
    """

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._supervisor = Supervisor(f"mapping {mapping.id}")
        self._passages: set[Passage] = set()
        # Looking up a metric's labels costs more than counting.
        self._opened = metrics.MAPPING_OPENED.labels(mapping.protocol)
        self._open_now = metrics.MAPPING_CONNECTIONS.labels(mapping.protocol)
        self.traffic = Traffic()
        everybody, owner = surroundings.allowances, mapping.user_id
        self.allowance = (
            Allowance(owner, surroundings.clock) if everybody is None else everybody.of(owner)
        )
        self.allowance.watchers.add(self)
        self.shape = Shape(mapping.limits, surroundings.clock, self.allowance)
        self.mapping = mapping
        self._rules = AddressRules()
        self._places = Places()
        self._take_over(mapping)

    # -- for whoever listens --------------------------------------------------------------------

    @abstractmethod
    def accepted(self, sock: socket.socket, address: Address) -> None:
        """A connection came; owns *sock* from now on."""

    @abstractmethod
    def received(self, data: bytes, address: Address, sock: Answering) -> None:
        """A datagram came to *sock*, where answers are sent from."""

    def offered(self, opening: Opening, source: tuple[str, int], local: tuple[str, int]) -> None:
        """A connection came in at the agent that listens, and this is its stream.

        Args:
            source: where it comes from, seen from that machine.
            local: where it came in there.

        Raises:
            UnderpassError: it is turned away; the opening is not accepted.
        """
        raise InvalidRequest("This mapping is for datagrams.", code="invalid_meta")

    def knows(self, address: Address) -> bool:
        """Whether datagrams from *address* belong to something open here."""
        return False

    # -- for the keeper of all entry points -----------------------------------------------------

    @property
    def active(self) -> int:
        """How many connections, flows and associations there are, those being opened included."""
        return len(self._passages)

    def change(self, mapping: Mapping) -> None:
        """Take over new limits, options and target.

        What is open stays open, within the new limits; unless it leads to what is the target no
        more, or comes from where nobody may come from any more.
        """
        before, self.mapping = self.mapping, mapping
        self._take_over(mapping)
        self.shape.change(mapping.limits)
        moved = _leads_to(before) != _leads_to(mapping)
        for passage in tuple(self._passages):
            if moved or not self._rules.admits(passage.source[0]):
                passage.cut()

    def quota_changed(self) -> None:
        """The owner's allowance: other limits hold from now on; who is in stays in."""
        self._take_over(self.mapping)

    def live(self) -> MappingLive:
        """What is going on, and what is not written to the row yet."""
        traffic, pending = self.traffic, self.traffic.pending()
        return MappingLive(
            active=self.active,
            sent_rate=traffic.sent_rate,
            received_rate=traffic.received_rate,
            total_connections=pending.connections,
            bytes_sent=pending.sent,
            bytes_received=pending.received,
            last_active_at=pending.last_active_at,
            dropped=traffic.dropped,
            writes=traffic.writes,
            settled=traffic.settled,
        )

    def tick(self) -> None:
        """Sample what passes and end what has stood still too long; called every second or two."""
        now = self._around.clock.monotonic()
        self.traffic.sample(self._around.clock.now(), now)
        self._expire(now)

    async def recheck(self) -> None:
        """End what the owner is not allowed any more.

        Raises:
            UnderpassError, SQLAlchemyError, OSError: the database can't say; everything stays.
        """
        mapping = self.mapping
        actions: set[Action] = {passage.action for passage in self._passages}
        for action in actions:
            decision = await self._decide(action)
            if decision.allowed:
                continue
            lost = [passage for passage in self._passages if passage.action == action]
            for passage in lost:
                passage.cut()
            self._around.refusals.record(
                mapping, "stream.cut", outcome="denied", rule=decision.rule,
                details={"mapping": mapping.name, "count": len(lost)},
            )  # fmt: skip

    async def _decide(self, action: Action) -> Decision:
        """Whether the owner may do *action* at the target, and listen at the source."""
        mapping, rights = self.mapping, self._around.rights
        _, decision = await rights.decide(mapping.user_id, mapping.target_agent_id, action)
        if decision.allowed and mapping.source.agent_id is not None:
            _, decision = await rights.decide(mapping.user_id, mapping.source.agent_id, "forward")
        return decision

    async def close(self, reason: str) -> None:
        """End everything that is open. Idempotent."""
        if self._passages:
            _log.info("mapping_closed", mapping=self.mapping.id, reason=reason, cut=self.active)
        await self._supervisor.close()
        self._around.refusals.forget(self.mapping.id)

    # -- for the kinds --------------------------------------------------------------------------

    def _take_over(self, mapping: Mapping) -> None:
        options = mapping.options
        self._rules = AddressRules(options.allow_ips, options.deny_ips)
        limits = (mapping.limits.connections, self.allowance.quota.max_connections_per_mapping)
        self._places.limit = min((each for each in limits if each is not None), default=None)

    def _idle_limit(self) -> float | None:
        """Seconds something may stand still; None for ever."""
        return self.mapping.options.idle_timeout

    def _expire(self, now: float) -> None:
        limit = self._idle_limit()
        if limit is not None:
            for passage in tuple(self._passages):
                if passage.idle(now) >= limit:
                    passage.cut()

    def _start(
        self,
        passage: Passage,
        work: Callable[[Passage], Coroutine[Any, Any, None]],
        places: Iterable[Places],
        *,
        never: Callable[[], None] | None = None,
        over: Callable[[], None] | None = None,
    ) -> None:
        """Let *work* do what is to be done for *passage*, which holds *places* until it is over.

        Args:
            never: called when it is cut before *work* began.
            over: called when it is over, whatever happened.
        """
        begun = False

        async def attempt() -> None:
            nonlocal begun
            begun = True
            try:
                await work(passage)
            except UnderpassError as error:
                self._turned_away(passage, error)

        def ended(_task: object) -> None:
            self._passages.discard(passage)
            self._open_now.dec()
            for place in places:
                place.free()
            if never is not None and not begun:
                never()
            if over is not None:
                over()

        passage.task = self._supervisor.start(attempt(), "passage")
        self._passages.add(passage)
        self._open_now.inc()
        passage.task.add_done_callback(ended)

    def _turned_away(self, passage: Passage, error: UnderpassError) -> None:
        self._around.refusals.note(
            self.mapping, reason_of(error.code), passage.source[0],
            code=error.code, error=error.message,
        )  # fmt: skip

    async def _reach(self, passage: Passage, target: str) -> Stream:
        """Open *target* for the mapping's owner.

        Raises:
            UnderpassError: the owner may not or has used up their quota, the agent is away or
                says no.
        """
        mapping, around = self.mapping, self._around
        agent = mapping.target_agent_id
        passage.action = action_for(target)
        if self.allowance.is_metered:
            await self.allowance.require()
        owner = await around.rights.require(mapping.user_id, agent, passage.action)
        if mapping.source.agent_id is not None:
            await around.rights.require(mapping.user_id, mapping.source.agent_id, "forward")
        meta = Layers(mapping.options.compression, mapping.options.e2e).to_meta()
        host, port = passage.source
        meta["source"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        stream = await around.router.open(
            agent, target, on_behalf_of=owner, meta=meta, carrier=mapping.options.carrier
        )
        self._opened.inc()
        return stream

    def _used_up(self, places: Iterable[Places]) -> UnderpassError | None:
        """Why the owner's quota lets nothing more in, as far as is known; *places* are then free
        again."""
        try:
            self.allowance.check()
        except UnderpassError as error:
            for place in places:
                place.free()
            return error
        return None

    def _begin(self, passage: Passage, counted: Counted) -> None:
        """Bytes of *passage* are counted from now on, at its user's end."""
        passage.counted = counted
        passage.moved = counted.bytes_in + counted.bytes_out
        passage.when = self._around.clock.monotonic()
        self.traffic.begin(counted, self._around.clock.now(), passage.preamble)

        def used_up(error: UnderpassError) -> None:
            self._turned_away(passage, error)
            passage.end(error)

        self.allowance.begin(counted, used_up, passage.preamble + counted.bytes_out)

    def _end(self, passage: Passage) -> None:
        if passage.counted is not None:
            self.traffic.end(passage.counted, self._around.clock.now())
            self.allowance.end(passage.counted)


def _leads_to(mapping: Mapping) -> tuple[Any, ...]:
    return (mapping.target_agent_id, mapping.target_host, mapping.target_port, mapping.target_path)
