"""Takes connections that want to be links: handshakes with caps, then registry and life.

Every connection is looked after by a task of its own, so that a slow or silent peer holds up
nobody; how many may be undecided at once is capped, in all and per address.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from underpass.control.events import Events
from underpass.control.guest_quota import PER_ADDRESS, PER_GUEST
from underpass.control.live import LiveBus
from underpass.control.rate_limits import address_key
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.addresses import host_of
from underpass.core.clock import Clock
from underpass.core.supervisor import Supervisor
from underpass.gateway.registry import LinkRegistry
from underpass.links.accept import HANDSHAKE_TIMEOUT, Admission, Turned, accept
from underpass.links.carriers.pool import FEATURE as DEDICATED
from underpass.links.carriers.preface import carrier_key
from underpass.links.link import Link
from underpass.links.transports.transport import Transport
from underpass.wire.handshake import Claim, Responder

__all__ = ["LinkServer"]

_log = structlog.get_logger(__name__)

MAX_HANDSHAKES: Final = 1024
"""Handshakes under way at once; one more is told to come back."""
MAX_GUEST_LINKS: Final = 1000
"""Links of all guests; the rest is for people and machines."""
MAX_HANDSHAKES_PER_ADDRESS: Final = 256
_EVENT_EVERY: Final = 60.0
"""Seconds between two events about refused links from one address."""
_MAX_REMEMBERED: Final = 4096


class AgentSecretsLike(Protocol):
    """Where agents' secrets come from (``control.agent_secrets.AgentSecrets``)."""

    async def of(self, agent_id: str) -> bytes | None: ...


class IdentitiesLike(Protocol):
    """Where people's tokens are looked up (``control.sign_in.SignIn``)."""

    async def identify(self, token: str, *, guests: bool = False) -> Any: ...


class LinkServer:
    """The gateway's side of every link.

    Args:
        registry: where links live once they are made.
        node_key: this node's Ed25519 key (``GatewaySecrets.node_key``).
        node_id: this node's id.
        secrets: the agents' secrets.
        identities: people's tokens.
        events: told of refusals and displacements.
        bus: told of links that come and go (topic ``agent``, ``{"id", "linked"}``).
        clock: for the time in WELCOME.
        agent_name: gives a machine's name for its id (for people and logs).
        agent_settings: what an agent is told in WELCOME, e.g. ``{"heartbeat": 30}``.
        serve_client: runs a client's link until it ends; sets its handlers
            (``client_streams.ClientStreams.serve``).
        max_links: agents' and clients' links together.

    Hand it connections with :meth:`take`; end everything with :meth:`stop`.
    """

    def __init__(
        self,
        registry: LinkRegistry,
        *,
        node_key: Ed25519PrivateKey,
        node_id: str,
        secrets: AgentSecretsLike,
        identities: IdentitiesLike,
        events: Events,
        bus: LiveBus,
        clock: Clock,
        agent_name: Callable[[str], Awaitable[str]] | None = None,
        agent_settings: Mapping[str, Any] | None = None,
        serve_client: Callable[[Link, Subject], None] | None = None,
        max_links: int = 20_000,
        timeout: float = HANDSHAKE_TIMEOUT,
        max_handshakes: int = MAX_HANDSHAKES,
        max_handshakes_per_address: int = MAX_HANDSHAKES_PER_ADDRESS,
    ) -> None:
        self.registry = registry
        self._node_key = node_key
        self._node_id = node_id
        self._events = events
        self._bus = bus
        self._clock = clock
        self._serve_client = serve_client
        self._max_links = max_links
        self._timeout = timeout
        self._max_handshakes = max_handshakes
        self._max_per_address = max_handshakes_per_address
        self._doorkeeper = _Doorkeeper(secrets, identities, agent_name, agent_settings or {})
        self._supervisor = Supervisor("links")
        self._handshakes: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self._draining = False
        registry.on_agent_displaced(self._displaced)
        registry.on_agent_linked(lambda link: self._news(link.peer.id, linked=True))
        registry.on_agent_lost(lambda agent_id, _link: self._news(agent_id, linked=False))

    @property
    def handshakes(self) -> int:
        """How many handshakes are under way."""
        return self._handshakes.total()

    def take(self, transport: Transport, address: str | None = None) -> asyncio.Task[None] | None:
        """Look after a connection from now on; never blocks.

        Args:
            transport: not read yet, the preface included.
            address: the peer's address when a trusted proxy told it; default: the transport's.

        Returns:
            the task that ends with the link (for carriers that must wait for it), or None when
            the connection was turned away at once.
        """
        host = address_key(host_of(address or transport.peer_address))
        if self._draining:
            return self._turn_away(transport, "going_away", "The gateway is shutting down.")
        links = self.registry.agent_count + self.registry.client_count
        if (
            self.handshakes >= self._max_handshakes
            or self._handshakes[host] >= self._max_per_address
            or links >= self._max_links
        ):
            return self._turn_away(transport, "busy", "The gateway takes no more links right now.")
        self._handshakes[host] += 1
        return self._supervisor.start(self._look_after(transport, host, address), f"link {host}")

    def take_spare(self, transport: asyncio.Transport, seen: bytes) -> None:
        """Look after a plain connection that begins like a link's spare; never blocks."""
        if self._draining:
            transport.abort()
        else:
            self.registry.spares.take(transport, seen)

    def _turn_away(self, transport: Transport, code: str, message: str) -> None:
        metrics.LINK_HANDSHAKES.labels("unknown", code).inc()
        responder = Responder(self._node_key, self._node_id)
        responder.refuse(code, message, retry_after=2.0)
        transport.write(responder.data_to_send())
        transport.close()

    async def _look_after(self, transport: Transport, host: str, address: str | None) -> None:
        try:
            link, admission = await accept(
                transport,
                self._doorkeeper,
                node_key=self._node_key,
                node_id=self._node_id,
                clock=self._clock,
                timeout=self._timeout,
                address=address,
            )
        except Turned as turned:
            metrics.LINK_HANDSHAKES.labels(turned.role, "refused").inc()
            await self._record_refusal(turned, host)
            return
        finally:
            self._handshakes[host] -= 1
            if not self._handshakes[host]:
                del self._handshakes[host]
        metrics.LINK_HANDSHAKES.labels(link.peer.role, "ok").inc()
        metrics.LINKS_MADE.labels(link.peer.role, link.carrier).inc()
        await self._live(link, admission)

    async def _live(self, link: Link, admission: Admission) -> None:
        _log.info(
            "link_up", role=link.peer.role, id=link.peer.id, name=link.peer.name,
            address=link.peer.address, carrier=link.carrier,
        )  # fmt: skip
        if link.peer.role == "agent":
            self.registry.add_agent(link)
            self._supervisor.start(self._still_enrolled(link), "still enrolled")
        elif not self._has_room(admission.context):
            await link.close("busy", "Guests may not have so many links.")
            return
        else:
            self.registry.add_client(link, admission.context)
            if self._serve_client is not None:
                self._serve_client(link, admission.context)
        try:
            link.start()
            end = await link.wait_closed()
        finally:
            self.registry.remove(link)
            self.registry.spares.close(link)
            await link.close("closed")
        _log.info(
            "link_down", role=link.peer.role, id=link.peer.id, name=link.peer.name,
            code=end.code, reason=end.message,
        )  # fmt: skip

    def _has_room(self, subject: Subject) -> bool:
        """Whether this person may have another link; guests have few, by login and address."""
        if subject.role != "guest":
            return True
        address, mine, here, all_ = address_key(subject.ip), 0, 0, 0
        for client in self.registry.clients():
            if client.subject.role == "guest":
                all_ += 1
                mine += client.subject.user_id == subject.user_id
                here += address_key(client.subject.ip) == address
        few = mine < PER_GUEST.links and here < PER_ADDRESS.links
        return few and all_ < MAX_GUEST_LINKS

    async def _still_enrolled(self, link: Link) -> None:
        """End the link of a machine that was deleted during its handshake.

        A deletion ends the link it finds; asked again once the link is there to be found, one of
        the two sees the other.
        """
        secret = await self._doorkeeper.agent_secret(link.peer.id)
        if secret is None:
            await link.close("unknown_agent", "This machine was deleted.")
        elif link.carrier == "tcp" and DEDICATED in link.peer.features and not link.closed:
            self.registry.spares.open(link, carrier_key(secret, link.id))

    async def stop(self, timeout: float = 5.0) -> None:
        """Say go-away on every link, then end all of them. Agents come back by themselves."""
        self._draining = True
        self.registry.spares.stop()
        links = [*self.registry.agents(), *(client.link for client in self.registry.clients())]
        closing = [link.close("going_away", "The gateway is shutting down.") for link in links]
        if closing:
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.gather(*closing, return_exceptions=True)
            except TimeoutError:
                _log.warning("links_not_closed_in_time", links=len(links))
        await self._supervisor.close(timeout)

    # -- news -------------------------------------------------------------------------------------

    def _news(self, agent_id: str, *, linked: bool) -> None:
        self._bus.publish("agent", {"id": agent_id, "agent_id": agent_id, "linked": linked})

    def _displaced(self, older: Link, newer: Link) -> None:
        details = {"older": older.peer.address, "newer": newer.peer.address}
        self._supervisor.start(
            self._events.record(
                "agent.displaced", agent_id=newer.peer.id, ip=host_of(newer.peer.address),
                details=details,
            ),
            "displaced event",
        )  # fmt: skip

    async def _record_refusal(self, turned: Turned, host: str) -> None:
        claim = turned.claim
        _log.info("link_refused", role=turned.role, code=turned.code, address=host)
        if claim is None:
            return  # noise of the internet: a log line and a counter are enough
        now = self._clock.monotonic()
        if self._told.get(host, -_EVENT_EVERY) > now - _EVENT_EVERY:
            return
        if len(self._told) >= _MAX_REMEMBERED:
            self._told.clear()
        self._told[host] = now
        await self._events.record(
            "link.refused",
            actor=claim.name or None,
            object_id=claim.id or None,
            ip=host,
            outcome="denied",
            rule=turned.code,
            details={"role": claim.role},
        )


class _Doorkeeper:
    def __init__(
        self,
        secrets: AgentSecretsLike,
        identities: IdentitiesLike,
        agent_name: Callable[[str], Awaitable[str]] | None,
        agent_settings: Mapping[str, Any],
    ) -> None:
        self._secrets = secrets
        self._identities = identities
        self._agent_name = agent_name
        self._agent_settings = agent_settings

    async def agent_secret(self, agent_id: str) -> bytes | None:
        return await self._secrets.of(agent_id)

    async def admit_agent(self, claim: Claim, address: str | None) -> Admission:
        name = await self._agent_name(claim.id) if self._agent_name is not None else claim.name
        return Admission(claim.id, name, self._agent_settings)

    async def admit_client(self, claim: Claim, address: str | None) -> Admission:
        subject: Subject = (await self._identities.identify(claim.token or "", guests=True)).subject
        seen = Subject(
            user_id=subject.user_id,
            username=subject.username,
            role=subject.role,
            via="token",
            credential_id=subject.credential_id,
            ip=host_of(address),
        )
        return Admission(seen.user_id, seen.username, context=seen)
