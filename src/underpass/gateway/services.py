"""The parts of a running gateway, in one place that routes and sockets can reach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from underpass.core.clock import Clock
from underpass.core.settings import GatewaySettings
from underpass.core.supervisor import Supervisor

if TYPE_CHECKING:
    from underpass.control.agent_secrets import AgentSecrets
    from underpass.control.agents import Agents
    from underpass.control.api_tokens import ApiTokens
    from underpass.control.declared import Declarations
    from underpass.control.enrolments import Enrolments
    from underpass.control.events import Events
    from underpass.control.guests import Guests
    from underpass.control.heartbeats import Heartbeats
    from underpass.control.join_tokens import JoinTokens
    from underpass.control.live import LiveBus
    from underpass.control.mappings import Mappings
    from underpass.control.nonces import Nonces
    from underpass.control.offers import Offers
    from underpass.control.presence import Presence
    from underpass.control.quotas import Quotas
    from underpass.control.rate_limits import RateLimits
    from underpass.control.recordings import Recordings
    from underpass.control.sessions import Sessions
    from underpass.control.setup import Setup
    from underpass.control.sign_in import SignIn
    from underpass.control.signed_requests import SignedRequests
    from underpass.control.users import Users
    from underpass.gateway.client_streams import ClientStreams
    from underpass.gateway.entrypoints.allowances import Allowances
    from underpass.gateway.link_server import LinkServer
    from underpass.gateway.registry import LinkRegistry
    from underpass.gateway.router import Router
    from underpass.gateway.secrets import GatewaySecrets
    from underpass.gateway.terminals.service import Terminals
    from underpass.gateway.tunnels import Tunnels
    from underpass.store.db.database import Database
    from underpass.store.kv import KeyValueStore

__all__ = ["Services", "services_of"]

_UNSET: Any = None


@dataclass(kw_only=True)
class Services:
    """Everything :func:`underpass.gateway.app.run_gateway` composes.

    The first group exists from the start; the rest is set by the composer, in the order of the
    layers. Tests may build one with only the parts their routes touch.
    """

    settings: GatewaySettings
    clock: Clock
    supervisor: Supervisor

    database: Database = _UNSET
    kv: KeyValueStore = _UNSET
    bus: LiveBus = _UNSET
    events: Events = _UNSET
    limits: RateLimits = _UNSET
    secrets: GatewaySecrets = _UNSET

    setup: Setup = _UNSET
    users: Users = _UNSET
    sign_in: SignIn = _UNSET
    guests: Guests = _UNSET
    api_tokens: ApiTokens = _UNSET

    agent_secrets: AgentSecrets = _UNSET
    nonces: Nonces = _UNSET
    signed_requests: SignedRequests = _UNSET
    enrolments: Enrolments = _UNSET
    join_tokens: JoinTokens = _UNSET
    agents: Agents = _UNSET
    heartbeats: Heartbeats = _UNSET
    presence: Presence = _UNSET
    sessions: Sessions = _UNSET
    recordings: Recordings = _UNSET
    quotas: Quotas = _UNSET
    allowances: Allowances = _UNSET
    mappings: Mappings = _UNSET
    tunnels: Tunnels = _UNSET
    declarations: Declarations = _UNSET
    offers: Offers = _UNSET

    registry: LinkRegistry = _UNSET
    router: Router = _UNSET
    link_server: LinkServer = _UNSET
    client_streams: ClientStreams = _UNSET
    terminals: Terminals = _UNSET

    live_streams: Counter[str] = field(default_factory=Counter[str])
    """How many live streams each user has open (``http/live.py``)."""
    ready: bool = False
    """Whether ``/ready`` says yes: the port is bound, migrations ran, and no drain has begun."""
    port: int = 0
    """The port really bound (it differs from the settings' when that is 0)."""
    tls_fingerprint: str | None = None
    """``sha256:`` + hex of our certificate's DER, when we terminate TLS."""
    tls_self_made: bool = False
    """Whether that certificate must be pinned; then join commands carry the fingerprint."""


def services_of(connection: HTTPConnection) -> Services:
    """The services behind a request or WebSocket."""
    return connection.app.state.services
