"""SOCKS5 mappings: whoever connects says where to, and gets out at the agent.

CONNECT and UDP ASSOCIATE (RFC 1928, RFC 1929), and HTTP's CONNECT on the same port. Names are
resolved at the agent, whose policy decides about every address.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from underpass.control.mapping import Mapping
from underpass.core import metrics
from underpass.core.errors import Forbidden, InvalidRequest, Unavailable, UnderpassError
from underpass.gateway.entrypoints.admission import plain_host
from underpass.gateway.entrypoints.association import Association
from underpass.gateway.entrypoints.entry_point import Surroundings
from underpass.gateway.entrypoints.flow import Drop
from underpass.gateway.entrypoints.logins import Logins
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.gateway.entrypoints.refusals import reason_of
from underpass.gateway.entrypoints.tcp import StreamEntryPoint
from underpass.links.compression import compressed
from underpass.links.datagram_socket import Address
from underpass.links.socks5_server import Request, negotiate
from underpass.links.stream import Stream

__all__ = ["HANDSHAKE_TIMEOUT", "Socks5EntryPoint", "check_open"]

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds a client has until its request is complete."""


def check_open(mapping: Mapping, address: str) -> None:
    """Refuse to listen where everybody could come in without a login.

    Raises:
        Forbidden: code ``login_needed``.
    """
    if mapping.options.username and mapping.options.password:
        return
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = address == "localhost"
    if not loopback:
        raise Forbidden("SOCKS5 without a login is for loopback only.", code="login_needed")


class Socks5EntryPoint(StreamEntryPoint):
    """Protocol ``socks5``."""

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        super().__init__(mapping, surroundings)
        self._logins = Logins(surroundings.clock)
        self._associations: list[Association] = []
        self._by_address: dict[Address, Association] = {}

    async def _converse(self, passage: Passage, stream: Stream, local: tuple[str, int]) -> None:
        if self.mapping.options.accept_proxy_protocol:
            await self._announced(passage, stream)
        request = await self._asked(passage, stream)
        try:
            remote = await self._reach(
                passage, request.target if request.command == "connect" else "udp"
            )
        except UnderpassError as error:
            await request.refuse(error)
            raise
        try:
            if request.command == "connect":
                first = await request.accept()
                await self._carry(passage, stream, remote, first)
            else:
                await self._associate(passage, stream, request, remote, local)
        finally:
            remote.abort("cancelled")  # after an orderly end this does nothing

    async def _asked(self, passage: Passage, stream: Stream) -> Request:
        """What the client wants, once it has shown who it is.

        Raises:
            UnderpassError: it speaks neither protocol, breaks off or gives a wrong login.
        """
        options, source = self.mapping.options, passage.source[0]

        async def check(username: str, password: str) -> bool:
            return self._logins.check(self.mapping.options, source, username, password)

        try:
            return await negotiate(
                stream,
                check=check if options.username is not None else None,
                timeout=HANDSHAKE_TIMEOUT,
            )
        except UnderpassError as error:
            if reason_of(error.code) != "failed":
                raise
            raise InvalidRequest(error.message, code="bad_handshake") from None

    # -- datagrams ------------------------------------------------------------------------------

    async def _associate(
        self,
        passage: Passage,
        stream: Stream,
        request: Request,
        remote: Stream,
        local: tuple[str, int],
    ) -> None:
        """Pass datagrams on as long as the control connection lives (RFC 1928 §7)."""
        if not self._around.flows.take():
            error = Unavailable("Too many flows are open.", code="too_many_connections")
            await request.refuse(error)
            raise error
        association = Association(
            passage, passage.peer, request.port, shape=self.shape, dropped=self._dropped
        )
        self._associations.append(association)
        metrics.STREAMS.labels("udp").inc()
        try:
            await request.accept(*local)
            self._begin(passage, association)
            await association.serve(compressed(remote, self.mapping.options.compression), stream)
        finally:
            metrics.STREAMS.labels("udp").dec()
            self._around.flows.free()
            self._associations.remove(association)
            if association.address is not None:
                del self._by_address[association.address]

    def knows(self, address: Address) -> bool:
        return address in self._by_address or self._awaiting(address) is not None

    def received(self, data: bytes, address: Address, sock: Answering) -> None:
        association = self._by_address.get(address)
        if association is None:
            association = self._awaiting(address)
            if association is None:
                self._dropped("unknown")
                return
            association.bind(address, sock)
            self._by_address[address] = association
        association.reply = sock
        association.take(data)

    def _awaiting(self, address: Address) -> Association | None:
        """Whose first datagram comes from *address*: the association of that host that announced
        the port, else its oldest. (Ports announced from behind a NAT are wrong.)"""
        host, port = plain_host(str(address[0])), int(address[1])
        waiting = [each for each in self._associations if each.waits_for(host)]
        announced = [each for each in waiting if each.announced_port == port]
        return next(iter(announced or waiting), None)

    def _dropped(self, why: Drop) -> None:
        self.traffic.dropped += 1
        metrics.DATAGRAMS_DROPPED.labels(why).inc()
