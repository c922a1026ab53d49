"""What mappings look like over HTTP: asked for, and answered (specs 4 and 7)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "MappingAsked", "MappingBody", "MappingLiveStats", "MappingPatch", "Protocol", "Status",
]  # fmt: skip

Protocol = Literal["tcp", "udp", "socks5", "unix"]
Status = Literal["active", "disabled", "error"]

_AGENT: Final = "0b9c7f1e-5d1a-4a53-8f0e-3c1f2a7d9e44"
_EXAMPLE: Final[dict[str, Any]] = {
    "protocol": "tcp",
    "name": "web-1-ssh",
    "source": {"port": 0},
    "target_client_id": _AGENT,
    "target_host": "127.0.0.1",
    "target_port": 22,
    "limits": {"bandwidth": 1048576, "connections": 20},
    "options": {"allow_ips": ["192.0.2.0/24"], "proxy_protocol": "v2"},
}
_STATS: Final[dict[str, Any]] = {
    "total_connections": 12,
    "active": 1,
    "bytes_sent": 48211,
    "bytes_received": 1290331,
    "last_active_at": "2026-01-02T03:04:05.678Z",
}


class _Asked(BaseModel):
    # What is unknown or out of bounds is told by the domain, which names every field.
    model_config = ConfigDict(extra="allow", strict=True)


class SourceAsked(_Asked):
    """Where traffic comes in; without anything: any free port of the gateway."""

    port: int | None = Field(None, description="0: any, and the answer says which.")
    port_range: str | None = Field(
        None,
        description="`7000-7010`: each port goes to the target port as far behind the first.",
    )
    client_id: str | None = Field(None, description="A machine that listens, not the gateway.")
    bind: str | None = Field(None, description="The IP address to listen on.")


class LimitsBody(_Asked):
    """What a mapping may use; null: no limit."""

    bandwidth: int | None = Field(None, description="Bytes a second, each way.")
    connections: int | None = Field(None, description="Open at a time.")
    burst: int | None = Field(None, description="Bytes that may pass at once.")


class LoginAsked(_Asked):
    """What SOCKS5 clients must give."""

    username: str | None = None
    password: str | None = None


class OptionsAsked(_Asked):
    """How connections are treated; null brings a default back."""

    proxy_protocol: Literal["v1", "v2"] | None = None
    accept_proxy_protocol: bool | None = Field(
        None, description="From the gateway's trusted proxies."
    )
    allow_ips: list[str] | None = Field(None, description="Networks that may connect.")
    deny_ips: list[str] | None = Field(None, description="Networks that may not; wins.")
    compression: Literal["none", "zstd", "lz4", "gzip", "adaptive"] | None = None
    e2e: bool | None = Field(None, description="Needs `source.client_id`.")
    carrier: Literal["auto", "mux", "dedicated"] | None = None
    username: str | None = Field(None, description="SOCKS5.")
    password: str | None = Field(None, description="SOCKS5; never shown again.")
    basic_auth: LoginAsked | None = Field(None, description="SOCKS5: both in one.")
    idle_timeout: float | None = Field(None, description="Seconds without a byte.")


class HealthBody(_Asked):
    """How the targets of a group are tried."""

    type: Literal["tcp", "http"] = "tcp"
    path: str = "/"
    interval: float = 10
    fall: int = 3
    rise: int = 2


class MappingPatch(_Asked):
    """Only what is given changes; inside `limits` and `options`, too."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "disabled"}, {"limits": {"bandwidth": 65536}}]}
    )

    name: str | None = Field(None, description="Unique among one's own.")
    source: SourceAsked | None = None
    target_client_id: str | None = Field(None, description="The machine's id.")
    target_host: str | None = Field(None, description="As the machine sees it; 127.0.0.1.")
    target_port: int | None = None
    target_path: str | None = Field(None, description="The socket of a `unix` mapping.")
    status: Status | None = Field(None, description="`active` or `disabled`.")
    limits: LimitsBody | None = None
    options: OptionsAsked | None = None
    group: str | None = Field(None, description="One's mappings of a group share a port.")
    balance: Literal["round_robin", "least_connections"] | None = None
    health: HealthBody | None = None


class MappingAsked(MappingPatch):
    """A new mapping; `unix` needs `target_path`, `tcp` and `udp` need `target_port`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    protocol: str = Field(json_schema_extra={"enum": ["tcp", "udp", "socks5", "unix"]})
    target_client_id: str


class SourceBody(BaseModel):
    """Where traffic comes in: the port in use, or a range of them."""

    port: int | None = None
    port_range: str | None = None
    client_id: str | None = None
    bind: str | None = None


class OptionsBody(BaseModel):
    """How connections are treated; passwords are never shown."""

    proxy_protocol: Literal["v1", "v2"] | None
    accept_proxy_protocol: bool
    allow_ips: list[str]
    deny_ips: list[str]
    compression: Literal["none", "zstd", "lz4", "gzip", "adaptive"]
    e2e: bool
    carrier: Literal["auto", "mux", "dedicated"]
    username: str | None
    idle_timeout: float | None


class HealthStatusBody(BaseModel):
    """What the tries of a target have found."""

    health: Literal["up", "down", "unknown"]
    reason: str | None = Field(description="Why it is down.")
    since: str | None


class MappingStats(BaseModel):
    """What went through; *sent* is towards the target, *received* is back from it."""

    total_connections: int
    active: int
    bytes_sent: int
    bytes_received: int
    last_active_at: str | None


class MappingLiveStats(MappingStats):
    """The same, with what goes through right now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_STATS | {"sent_rate": 512.0, "received_rate": 20480.5, "dropped": 0}]
        }
    )

    sent_rate: float = Field(description="Bytes a second.")
    received_rate: float = Field(description="Bytes a second.")
    dropped: int = Field(description="Datagrams that found no room.")


class MappingBody(BaseModel):
    """A mapping: what comes in at its source goes to its target (specs 4 and 7)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _EXAMPLE
                | {
                    "id": "6f1c2a9e-0b7d-4c55-9d63-2f0a5b9e7c11",
                    "user_id": "b4d1f6a0-77a4-4a51-8a3e-0c5f1d2e3b66",
                    "source": {"port": 20017},
                    "target_path": None,
                    "status": "active",
                    "error": None,
                    "limits": {"bandwidth": 1048576, "connections": 20, "burst": None},
                    "options": {
                        "proxy_protocol": "v2",
                        "accept_proxy_protocol": False,
                        "allow_ips": ["192.0.2.0/24"],
                        "deny_ips": [],
                        "compression": "none",
                        "e2e": False,
                        "carrier": "auto",
                        "username": None,
                        "idle_timeout": None,
                    },
                    "group": None,
                    "balance": "round_robin",
                    "health": None,
                    "health_status": None,
                    "public_port": 20017,
                    "public_url": "tcp://gw.example.org:20017",
                    "declared_by": None,
                    "version": 1,
                    "stats": _STATS,
                    "created_at": "2026-01-01T00:00:00.000Z",
                    "updated_at": "2026-01-01T00:00:00.000Z",
                }
            ]
        }
    )

    id: str
    name: str
    user_id: str
    protocol: Protocol
    source: SourceBody
    target_client_id: str
    target_host: str | None
    target_port: int | None
    target_path: str | None
    status: Status
    error: str | None
    limits: LimitsBody
    options: OptionsBody
    group: str | None
    balance: Literal["round_robin", "least_connections"]
    health: HealthBody | None
    health_status: HealthStatusBody | None = Field(
        description="Nothing where the target is not tried."
    )
    public_port: int | None
    public_url: str | None
    declared_by: str | None = Field(
        description="The machine whose `underpass.yaml` asks for it; only `status` can be changed."
    )
    version: int
    stats: MappingStats
    created_at: str
    updated_at: str
