"""UDP mappings: a flow per source address, which ends when nothing has passed for a while."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from underpass.control.mapping import Mapping
from underpass.core import metrics
from underpass.core.errors import Forbidden, Unavailable, UnderpassError
from underpass.gateway.entrypoints.admission import plain_host
from underpass.gateway.entrypoints.entry_point import EntryPoint, Surroundings
from underpass.gateway.entrypoints.flow import Drop, Flow
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.links.compression import compressed
from underpass.links.datagram_socket import Address
from underpass.links.packet_info import arrived_at
from underpass.wire.datagrams import MAX_DATAGRAM
from underpass.wire.proxy_protocol import encode_v2

__all__ = ["FLOWS", "IDLE", "UdpEntryPoint"]

FLOWS: Final = 1024
"""Flows of one mapping that sets no limit of its own."""
IDLE: Final = 60.0
"""Seconds without a datagram after which a flow ends, unless the mapping says otherwise."""
_COOLING: Final = 1.0
"""Seconds for which a source whose flow could not be opened is not heard: every datagram of it
would else be one more opening."""


class UdpEntryPoint(EntryPoint):
    """Protocol ``udp``."""

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        super().__init__(mapping, surroundings)
        self._flows: dict[Address, Flow] = {}

    def accepted(self, sock: socket.socket, address: Address) -> None:
        raise AssertionError("no connections are listened for")

    def knows(self, address: Address) -> bool:
        return address in self._flows

    def received(self, data: bytes, address: Address, sock: Answering) -> None:
        flow = self._flows.get(address)
        if flow is None:
            flow = self._new_flow(address, sock)
            if flow is None:
                return
        flow.reply = sock  # an agent's end of a flow may have ended and begun anew
        flow.take(data)

    def _new_flow(self, address: Address, sock: Answering) -> Flow | None:
        source = (plain_host(str(address[0])), int(address[1]))
        passage = Passage(source, self._around.clock.monotonic())
        refusal: UnderpassError | None = None
        if not self._rules.admits(source[0]):
            refusal = Forbidden("Nobody may send from there.", code="address_denied")
            self._dropped("address")
        elif not self._places.take():
            refusal = Unavailable("Too many flows are open.", code="too_many_connections")
            self._dropped("places")
        elif not self._around.flows.take():
            self._places.free()
            refusal = Unavailable("Too many flows are open.", code="too_many_connections")
            self._dropped("places")
        else:
            refusal = self._used_up((self._places, self._around.flows))
            if refusal is not None:
                self._dropped("quota")
        if refusal is not None:
            self._turned_away(passage, refusal)
            return None
        flow = Flow(
            passage,
            shape=self.shape,
            dropped=self._dropped,
            limit=MAX_DATAGRAM,
            reply=sock,
            address=address,
            prefix=self._header(source, arrived_at(address), sock),
        )
        self._flows[address] = flow

        async def work(passage: Passage) -> None:
            await self._pass(passage, flow, int(sock.address[1]))

        def forget() -> None:
            del self._flows[address]

        self._start(passage, work, (self._places, self._around.flows), over=forget)
        return flow

    def _header(self, source: tuple[str, int], local: str | None, sock: Answering) -> bytes:
        """What the target is told of the source: in front of each datagram, since any may be the
        first that arrives."""
        if self.mapping.options.proxy_protocol is None:
            return b""
        here = sock.address
        return encode_v2(source, (plain_host(local or str(here[0])), int(here[1])), "udp")

    async def _pass(self, passage: Passage, flow: Flow, port: int) -> None:
        try:
            stream = await self._reach(passage, self.mapping.target_for(port))
        except UnderpassError as error:
            flow.give_up()
            self._turned_away(passage, error)
            await asyncio.sleep(_COOLING)
            return
        metrics.STREAMS.labels("udp").inc()
        try:
            self._begin(passage, flow)
            await flow.run(compressed(stream, self.mapping.options.compression))
        finally:
            metrics.STREAMS.labels("udp").dec()
            self._end(passage)

    def _take_over(self, mapping: Mapping) -> None:
        super()._take_over(mapping)
        if self._places.limit is None:
            self._places.limit = FLOWS

    def _idle_limit(self) -> float:
        return self.mapping.options.idle_timeout or IDLE

    def _dropped(self, why: Drop) -> None:
        self.traffic.dropped += 1
        metrics.DATAGRAMS_DROPPED.labels(why).inc()
