"""A mapping as a value: what comes in at its source goes to its target on an agent (spec 4).

Pure: no I/O. What a person may ask for is checked in ``mapping_options``, stored in ``mappings``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from underpass.control.health import Health, HealthStatus, health_record
from underpass.core.clock import rfc3339

__all__ = [
    "GATEWAY",
    "Balancing",
    "EntryPoints",
    "Health",
    "Limits",
    "Mapping",
    "MappingLive",
    "MappingProtocol",
    "Options",
    "Source",
    "Status",
    "mapping_record",
    "mapping_stats",
]

MappingProtocol = Literal["tcp", "udp", "socks5", "unix"]
Status = Literal["active", "disabled", "error"]

GATEWAY: Final = "gateway"
"""The place of a source that is a port of the gateway."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where traffic comes in.

    Attributes:
        kind: ``port`` of the gateway, or a port at an ``agent``, which listens there.
        port: the port in use, the first one of a range; 0: any (asked for, or up to the agent).
        port_range: first and last port; each one goes to the target port as far behind the first.
        agent_id: for kind ``agent``: who listens.
        bind: the address to listen on; ``None``: the gateway's own, at agents loopback.
    """

    kind: Literal["port", "agent"] = "port"
    port: int = 0
    port_range: tuple[int, int] | None = None
    agent_id: str | None = None
    bind: str | None = None

    @property
    def place(self) -> str:
        """Where the port is: :data:`GATEWAY` or an agent's id."""
        return self.agent_id or GATEWAY

    @property
    def ports(self) -> range:
        """Every port; empty while none is known."""
        if self.port_range is not None:
            return range(self.port_range[0], self.port_range[1] + 1)
        return range(self.port, self.port + 1 if self.port else self.port)

    def to_json(self) -> dict[str, Any]:
        """As spec 7 writes it."""
        found: dict[str, Any] = {}
        if self.agent_id is not None:
            found["client_id"] = self.agent_id
        if self.port_range is not None:
            found["port_range"] = f"{self.port_range[0]}-{self.port_range[1]}"
        else:
            found["port"] = self.port
        if self.bind is not None:
            found["bind"] = self.bind
        return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What a mapping may use.

    Attributes:
        bandwidth: bytes a second, each direction by itself; ``None``: no limit.
        connections: open at a time; ``None``: no limit of its own.
        burst: bytes that may pass at once; ``None``: what the shaping makes of the bandwidth.
    """

    bandwidth: int | None = None
    connections: int | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a mapping treats its connections.

    Attributes:
        proxy_protocol: the header the target gets first, naming the real client.
        accept_proxy_protocol: believe such a header from the gateway's trusted proxies.
        allow_ips: networks that may connect (CIDR); empty: all.
        deny_ips: networks that may not; wins over ``allow_ips``.
        compression: between gateway and agent.
        e2e: encrypt between the two agents, the gateway sees only ciphertext.
        carrier: whether a connection rides in the link's own or on one of its own.
        username, password: what SOCKS5 and CONNECT clients must give.
        idle_timeout: seconds without a byte after which a connection or flow ends.
    """

    proxy_protocol: Literal["v1", "v2"] | None = None
    accept_proxy_protocol: bool = False
    allow_ips: tuple[str, ...] = ()
    deny_ips: tuple[str, ...] = ()
    compression: Literal["none", "zstd", "lz4", "gzip", "adaptive"] = "none"
    e2e: bool = False
    carrier: Literal["auto", "mux", "dedicated"] = "auto"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    idle_timeout: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the password, which nobody is ever shown."""
        found = asdict(self)
        del found["password"]
        return found | {"allow_ips": list(self.allow_ips), "deny_ips": list(self.deny_ips)}


@dataclass(frozen=True, slots=True)
class Balancing:
    """How the mappings of one group share what comes in."""

    balance: Literal["round_robin", "least_connections"] = "round_robin"
    health: Health | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """One stored rule; see the attributes of its parts.

    Attributes:
        user_id: the owner, on whose behalf every stream is opened.
        status: ``error``: wanted, but its entry point could not be opened; ``error`` says why.
        group: mappings of one owner, protocol and group share one entry point.
        declared_by: the machine whose ``underpass.yaml`` asks for it; ``None``: a person did.
        public_port: the gateway's port in use, the first one of a range; ``None`` at agents.
        version: one more at every change of what is asked for.
    """

    id: str
    name: str
    user_id: str
    protocol: MappingProtocol
    source: Source
    target_agent_id: str
    target_host: str | None = None
    target_port: int | None = None
    target_path: str | None = None
    status: Status = "active"
    error: str | None = None
    limits: Limits = field(default_factory=Limits)
    options: Options = field(default_factory=Options)
    group: str | None = None
    balancing: Balancing = field(default_factory=Balancing)
    declared_by: str | None = None
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
    total_connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    last_active_at: float | None = None

    @property
    def enabled(self) -> bool:
        """Whether it should carry traffic (``error`` ones should)."""
        return self.status != "disabled"

    @property
    def public_port(self) -> int | None:
        return self.source.port or None if self.source.kind == "port" else None

    @property
    def transports(self) -> tuple[str, ...]:
        """What it listens on; SOCKS5 has the UDP port of the same number for its datagrams."""
        if self.protocol == "socks5":
            return ("tcp", "udp")
        return ("udp",) if self.protocol == "udp" else ("tcp",)

    @property
    def target(self) -> str:
        """What streams are opened to; empty for SOCKS5, where every client names its own."""
        return self.target_for(self.source.port)

    def target_for(self, port: int) -> str:
        """The target of what comes in at *port* (it matters only for a range)."""
        if self.protocol == "socks5":
            return ""
        if self.protocol == "unix":
            return f"unix:{self.target_path}"
        host = self.target_host or "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        behind = port - self.source.port if self.source.port_range is not None else 0
        return f"{self.protocol}:{shown}:{(self.target_port or 0) + behind}"

    def at_port(self, port: int) -> Mapping:
        """The same with *port* as the one in use."""
        return replace(self, source=replace(self.source, port=port))


@dataclass(frozen=True, slots=True)
class MappingLive:
    """What an entry point knows of a mapping right now.

    *Sent* is towards the target, *received* is back from it.

    Attributes:
        active: open connections or flows.
        sent_rate, received_rate: bytes a second.
        total_connections, bytes_sent, bytes_received: since the row was last written.
        last_active_at: Unix seconds; ``None``: nothing since the row was last written.
        dropped: datagrams that found no room.
        health: of its target; ``None`` when that is not tried.
        writes: how often the row began to be written.
        settled: whether it is not just being written.
    """

    active: int = 0
    sent_rate: float = 0.0
    received_rate: float = 0.0
    total_connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    last_active_at: float | None = None
    dropped: int = 0
    health: HealthStatus | None = None
    writes: int = 0
    settled: bool = True


class EntryPoints(Protocol):
    """What listens for mappings; ``gateway/tunnels.py`` does, ``control/mappings.py`` asks."""

    async def open(self, mapping: Mapping) -> Mapping:
        """Listen. Mappings of one group share a port: a second one joins. Doing it twice is fine.

        Returns:
            the mapping with the port really in use.

        Raises:
            Conflict: code ``port_in_use``: another program has the port.
            Unavailable: it can't be opened for another reason.
        """
        ...

    async def change(self, mapping: Mapping) -> Mapping:
        """Take over new limits, options and target; the source is the same. Raises as ``open``."""
        ...

    async def close(self, mapping_id: str, reason: str) -> None:
        """Stop listening and end its connections; unknown ids are fine."""
        ...

    def live(self, mapping_id: str) -> MappingLive:
        """What is going on; zeros for an unknown id."""
        ...


def mapping_stats(mapping: Mapping, live: MappingLive) -> dict[str, Any]:
    """The ``stats`` of spec 4: the row's totals and what is not written yet."""
    last = max(mapping.last_active_at or 0.0, live.last_active_at or 0.0)
    return {
        "total_connections": mapping.total_connections + live.total_connections,
        "active": live.active,
        "bytes_sent": mapping.bytes_sent + live.bytes_sent,
        "bytes_received": mapping.bytes_received + live.bytes_received,
        "last_active_at": rfc3339(last) if last else None,
    }


def mapping_record(mapping: Mapping, live: MappingLive, host: str) -> dict[str, Any]:
    """The public fields of a mapping (specs 4 and 7).

    Args:
        host: the gateway's host name or address as the asker reaches it.
    """
    return {
        "id": mapping.id,
        "name": mapping.name,
        "user_id": mapping.user_id,
        "protocol": mapping.protocol,
        "source": mapping.source.to_json(),
        "target_client_id": mapping.target_agent_id,
        "target_host": mapping.target_host,
        "target_port": mapping.target_port,
        "target_path": mapping.target_path,
        "status": mapping.status,
        "error": mapping.error,
        "limits": asdict(mapping.limits),
        "options": mapping.options.to_json(),
        "group": mapping.group,
        "balance": mapping.balancing.balance,
        "health": None if mapping.balancing.health is None else asdict(mapping.balancing.health),
        "health_status": health_record(live.health),
        "public_port": mapping.public_port,
        "public_url": _public_url(mapping, host),
        "declared_by": mapping.declared_by,
        "version": mapping.version,
        "stats": mapping_stats(mapping, live),
        "created_at": rfc3339(mapping.created_at),
        "updated_at": rfc3339(mapping.updated_at),
    }


def _public_url(mapping: Mapping, host: str) -> str | None:
    if mapping.public_port is None:
        return None
    scheme = {"udp": "udp", "socks5": "socks5"}.get(mapping.protocol, "tcp")
    bind = mapping.source.bind
    reached = host if bind in {None, "0.0.0.0", "::"} else bind
    shown = f"[{reached}]" if ":" in str(reached) else reached
    return f"{scheme}://{shown}:{mapping.public_port}"
