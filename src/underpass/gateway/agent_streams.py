"""What agents open over their links: ``mapping:<id>``, for mappings whose source they are.

An agent may open nothing else, and no other agent's mappings: which ones are whose is looked up
here, never believed. What is opened goes through the mapping's entry point, as if the connection
had come in at a port of the gateway: address lists, caps, the owner's permission, limits, counters.

The key of the machine it leads to is told by ``mapping.key`` (``{"mapping": id}`` to ``{"machine",
"key_fingerprint"}``), for streams that the agents encrypt between them.

``meta`` says where the connection came from and came in, ``source`` and ``local``, each ``[host,
port]`` as seen from that machine; ``datagrams`` when the stream carries those of one source
(``wire/datagrams.py``); and ``layers`` the agent has put on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from underpass.core.errors import InvalidRequest, NotFound, Unavailable, UnderpassError
from underpass.gateway.entrypoints.admission import Places, plain_host
from underpass.gateway.entrypoints.entry_point import EntryPoint
from underpass.gateway.registry import LinkRegistry
from underpass.links.compression import compressed
from underpass.links.datagram_socket import Address
from underpass.links.layers import Layers
from underpass.links.link import Link, Opening
from underpass.links.stream import Stream
from underpass.wire.datagrams import DatagramDecoder, DatagramError, encode

__all__ = ["AgentStreams"]

MAX_SOURCES: Final = 16_384
"""Streams of datagrams from all agents; each holds less than one datagram."""
CHECK: Final = 1.0
"""Seconds between two looks whether the mapping behind a stream of datagrams is still there."""


class AgentStreams:
    """Answers agents' openings.

    Args:
        registry: the agents' links.
        find: gives the entry point of a mapping whose source is an agent (mapping id, agent id).
        key_of: gives the fingerprint of a machine's key.
    """

    def __init__(
        self,
        registry: LinkRegistry,
        find: Callable[[str, str], EntryPoint | None],
        key_of: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._find = find
        self._key_of = key_of
        self._sources = Places(MAX_SOURCES)
        registry.on_agent_linked(self._linked)

    @property
    def sources(self) -> int:
        """Streams of datagrams that are open (a gauge that must return to zero)."""
        return self._sources.taken

    def _linked(self, link: Link) -> None:
        link.on_open(self._opened)
        link.on_control("mapping.key", self._key)

    async def _key(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body.get("mapping")
        entry = self._find(wanted, link.peer.id) if isinstance(wanted, str) else None
        if entry is None:
            raise NotFound("No such mapping has its source here.", code="no_such_mapping")
        machine = entry.mapping.target_agent_id
        return {"machine": machine, "key_fingerprint": await self._key_of(machine)}

    async def _opened(self, opening: Opening) -> None:
        kind, _, mapping_id = opening.target.partition(":")
        if kind != "mapping":
            raise InvalidRequest("Agents open mapping:<id> only.", code="invalid_target")
        agent_id = opening.link.peer.id
        entry = self._find(mapping_id, agent_id)
        if entry is None:
            raise NotFound("No such mapping has its source here.", code="no_such_mapping")
        source, local = _address(opening.meta, "source"), _address(opening.meta, "local")
        if opening.meta.get("datagrams") is not True:
            entry.offered(opening, source, local)
            return
        if "udp" not in entry.mapping.transports:
            raise InvalidRequest("This mapping is for connections.", code="invalid_meta")
        if not self._sources.take():
            raise Unavailable("Too many flows are open.", code="too_many_connections")
        try:
            layers = Layers.from_meta(opening.meta)
            port = _FarPort(compressed(opening.accept(), layers.compression), source, local)
            await port.run(lambda: self._find(mapping_id, agent_id))
        finally:
            self._sources.free()


class _FarPort:
    """A UDP port at an agent, as one source sees it; receives what the source's stream pushes.

    An entry point takes it for the socket its answers leave from.
    """

    def __init__(self, stream: Stream, source: Address, local: Address) -> None:
        self._stream = stream
        self._source = source
        self.address = local
        self._decoder = DatagramDecoder()
        self._find: Callable[[], EntryPoint | None]
        self._over = asyncio.Event()

    async def run(self, find: Callable[[], EntryPoint | None]) -> None:
        """Hand datagrams over until the agent ends the stream, or the mapping is gone."""
        self._find = find
        try:
            self._stream.attach(self)
            while find() is not None and not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK):
                        await self._over.wait()
        except BaseException:
            self._stream.abort("cancelled")
            raise
        await self._stream.close()

    def send(self, data: bytes, address: Address | None = None) -> bool:
        """An answer for the source; dropped when the link is full."""
        if self._stream.closed or self._stream.full:
            return False
        try:
            self._stream.send(encode(data))
        except UnderpassError:  # longer than a datagram over IPv4 can be
            return False
        return True

    # -- Receiver (links/stream.py) ---------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: datagrams came."""
        try:
            datagrams = self._decoder.feed(chunk)
        except DatagramError as error:
            self._stream.abort(error.code, error.message)
            self._over.set()
            return
        entry = self._find()
        if entry is not None:
            for datagram in datagrams:
                entry.received(datagram, self._source, self)

    def eof(self) -> None:
        """The stream's: the source is idle or gone."""
        self._over.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over."""
        self._over.set()

    def writable(self) -> None:
        """The stream's: nothing waits here."""


def _address(meta: dict[str, Any], field: str) -> tuple[str, int]:
    """Host and port from *meta*.

    Raises:
        InvalidRequest: it is none.
    """
    found = meta.get(field)
    if isinstance(found, list) and len(cast("list[object]", found)) == 2:
        host, port = cast("list[object]", found)
        if isinstance(host, str) and isinstance(port, int) and 0 <= port <= 65535:
            try:
                return str(ipaddress.ip_address(plain_host(host[:64]))), port
            except ValueError:
                pass
    raise InvalidRequest(f"meta.{field} must be an address and a port.", code="invalid_meta")
