"""Puts the services of a gateway together, bottom layer first, and takes them apart in reverse."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

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
from underpass.control.mapping_orphans import MappingOrphans
from underpass.control.mappings import Mappings
from underpass.control.metric_history import MetricHistory
from underpass.control.monthly_traffic import MonthlyTraffic
from underpass.control.nonces import Nonces
from underpass.control.offers import Offers
from underpass.control.passwords import Passwords
from underpass.control.port_leases import DEFAULT_PORTS, PortRules
from underpass.control.presence import Presence
from underpass.control.quota import Quota, checked_limits
from underpass.control.quotas import Quotas
from underpass.control.rate_limits import RateLimits
from underpass.control.recordings import Recordings
from underpass.control.sessions import Sessions
from underpass.control.setup import Setup
from underpass.control.sign_in import SignIn
from underpass.control.signed_requests import SignedRequests
from underpass.control.tickets import Tickets
from underpass.control.users import Users
from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.core.supervisor import Supervisor
from underpass.gateway.agent_streams import AgentStreams
from underpass.gateway.client_streams import ClientStreams, needed_action
from underpass.gateway.declaration_desk import DeclarationDesk
from underpass.gateway.entrypoints.admission import AddressRules, Places
from underpass.gateway.entrypoints.allowances import Allowances
from underpass.gateway.entrypoints.entry_point import MAX_CONNECTIONS, MAX_FLOWS, Surroundings
from underpass.gateway.entrypoints.permission import OwnerRights
from underpass.gateway.entrypoints.refusals import Refusals
from underpass.gateway.guest_streams import GuestStreams
from underpass.gateway.link_server import LinkServer
from underpass.gateway.machines import connect_machines
from underpass.gateway.registry import LinkRegistry
from underpass.gateway.router import Router
from underpass.gateway.secrets import GatewaySecrets, check_database_key
from underpass.gateway.services import Services
from underpass.gateway.terminals.exec_audit import ExecAudit
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.gateway.terminals.service import Terminals
from underpass.gateway.tunnels import Tunnels
from underpass.store.db.database import Database
from underpass.store.files.recordings import LocalRecordings
from underpass.store.kv import MemoryStore

__all__ = ["compose"]


@asynccontextmanager
async def compose(
    settings: GatewaySettings, clock: Clock, *, passwords: Passwords | None = None
) -> AsyncGenerator[Services, None]:
    """All services, ready to be put behind an application; closed on leaving.

    Args:
        settings: what to run.
        clock: where time comes from.
        passwords: tests hand in cheaper hashing.

    Raises:
        SettingsError: the state directory or the keys can't be used.
        DatabaseError: the database can't be used.
    """
    async with AsyncExitStack() as stack:
        secrets = GatewaySecrets.load(settings)
        database = await Database.open(settings.database_url)
        stack.push_async_callback(database.close)
        await check_database_key(database, secrets.database_key, clock.now())

        supervisor = await stack.enter_async_context(Supervisor("gateway"))
        kv = MemoryStore(clock)
        stack.push_async_callback(kv.close)
        bus = LiveBus()
        stack.callback(bus.close)
        services = Services(
            settings=settings,
            clock=clock,
            supervisor=supervisor,
            database=database,
            kv=kv,
            bus=bus,
            events=Events(database, clock, bus),
            limits=RateLimits(kv, clock),
            secrets=secrets,
        )
        if passwords is None:
            passwords = Passwords()
            stack.callback(passwords.close)
        _compose_people(services, passwords)
        _compose_quotas(services)
        _compose_machines(services)
        _compose_mappings(services)
        _compose_terminals(services)
        connect_machines(services)
        _compose_links(services)
        yield services


def _compose_people(services: Services, passwords: Passwords) -> None:
    settings, database, clock = services.settings, services.database, services.clock
    events, bus, kv = services.events, services.bus, services.kv
    services.users = Users(database, clock, events=events, bus=bus, passwords=passwords)
    services.sign_in = SignIn(
        database,
        clock,
        kv=kv,
        events=events,
        bus=bus,
        passwords=passwords,
        idle=settings.session_idle,
        lifetime=settings.session_lifetime,
    )
    services.guests = services.sign_in.identities.guests = Guests(
        settings.guests,
        services.secrets.database_key,
        clock,
        events=events,
        limits=services.limits,
    )
    services.setup = Setup(
        database, clock, kv=kv, events=events, passwords=passwords, sign_in=services.sign_in
    )
    services.api_tokens = ApiTokens(database, clock, events=events, bus=bus)


def _compose_machines(services: Services) -> None:
    settings, database, clock = services.settings, services.database, services.clock
    events, bus = services.events, services.bus
    services.registry = LinkRegistry(services.supervisor)
    services.router = Router(services.registry)
    services.agent_secrets = AgentSecrets(database, services.secrets.database_key)
    services.nonces = Nonces(database, services.kv, clock)
    services.signed_requests = SignedRequests(services.agent_secrets, services.nonces, clock)
    services.join_tokens = JoinTokens(database, clock, events)
    services.presence = Presence(
        database,
        clock,
        events,
        bus,
        interval=settings.heartbeat_interval,
        missed=settings.offline_after,
    )
    history = MetricHistory()
    services.agents = Agents(
        database,
        clock,
        events,
        bus,
        presence=services.presence,
        history=history,
        is_linked=services.router.is_linked,
    )
    services.enrolments = Enrolments(
        database,
        clock,
        events,
        bus,
        rate_limits=services.limits,
        nonces=services.nonces,
        secrets=services.agent_secrets,
        join_tokens=services.join_tokens,
        gateway_key=services.secrets.public_key,
        quotas=services.quotas,
    )
    services.heartbeats = Heartbeats(
        database,
        clock,
        secrets=services.agent_secrets,
        presence=services.presence,
        history=history,
    )


def _compose_quotas(services: Services) -> None:
    database, clock, events = services.database, services.clock, services.events
    try:
        defaults = Quota().with_limits(checked_limits(services.settings.default_quota))
    except InvalidRequest as error:
        raise SettingsError(f"Bad setting default_quota.{error.message}") from None
    services.quotas = Quotas(database, clock, events=events, bus=services.bus, defaults=defaults)
    services.allowances = Allowances(
        services.quotas, MonthlyTraffic(database, clock, events), clock, services.bus
    )


def _compose_mappings(services: Services) -> None:
    settings = services.settings
    services.mappings = Mappings(
        services.database,
        services.clock,
        events=services.events,
        bus=services.bus,
        agents=services.agents,
        seals=services.agent_secrets,
        rules=PortRules(
            settings.public_ports or DEFAULT_PORTS, lambda: services.port or settings.port
        ),
        max_per_user=settings.max_mappings_per_user,
        quotas=services.quotas,
        default_bind=settings.host,
    )
    rights = OwnerRights(services.users, services.agents, services.clock, services.bus)
    around = Surroundings(
        router=services.router,
        rights=rights,
        refusals=Refusals(services.events, services.clock, services.supervisor),
        clock=services.clock,
        connections=Places(MAX_CONNECTIONS),
        flows=Places(MAX_FLOWS),
        balancers=AddressRules(settings.trusted_proxies) if settings.trusted_proxies else None,
        allowances=services.allowances,
    )
    services.tunnels = services.mappings.entry_points = Tunnels(
        services.mappings,
        around,
        bus=services.bus,
        clock=services.clock,
        registry=services.registry,
        own_address=settings.host,
    )
    AgentStreams(services.registry, services.tunnels.at_agent, services.agents.key_fingerprint)
    services.declarations = Declarations(
        services.database,
        services.mappings,
        services.events,
        services.limits,
        services.supervisor,
    )
    DeclarationDesk(services.registry, services.declarations, services.bus)
    orphans = MappingOrphans(services.database, services.bus, services.mappings.remove)
    services.supervisor.start(orphans.watch(), "mapping orphans")
    services.offers = Offers(
        services.database,
        services.clock,
        events=services.events,
        bus=services.bus,
        agents=services.agents,
        rights=rights,
        needed_action=needed_action,
        limits=services.limits,
        kv=services.kv,
        guests=services.guests,
    )
    services.supervisor.start(services.offers.watch(), "offers")


def _compose_terminals(services: Services) -> None:
    settings, clock, registry = services.settings, services.clock, services.registry
    services.sessions = Sessions(
        services.database,
        clock,
        per_user=settings.max_sessions_per_user,
        per_agent=settings.max_sessions_per_agent,
        quotas=services.quotas,
    )
    services.recordings = Recordings(services.database, clock)
    desk = RecordingDesk(
        store=_recording_store(settings),
        recordings=services.recordings,
        events=services.events,
        bus=services.bus,
        clock=clock,
        policy=settings.recording,
        retention=settings.recording_retention,
        quota=settings.recording_quota,
    )

    def address_of(agent_id: str) -> str | None:
        link = registry.agent(agent_id)
        return link.peer.address if link is not None else None

    terminals = services.terminals = Terminals(
        sessions=services.sessions,
        tickets=Tickets(services.kv),
        limits=services.limits,
        events=services.events,
        bus=services.bus,
        desk=desk,
        router=services.router,
        clock=clock,
        grace=settings.terminal_grace,
        address_of=address_of,
    )

    async def access_removed(agent_id: str, users: Collection[str]) -> None:
        for user_id in users:
            await terminals.close_for_user(
                user_id, "You may not use this machine any more.", agent_id
            )

    registry.on_agent_linked(
        lambda link: link.on_control("sessions.announce", terminals.on_agent_sessions)
    )
    registry.on_agent_lost(lambda agent_id, _link: terminals.on_agent_lost(agent_id))
    services.agents.on_access_removed(access_removed)


def _recording_store(settings: GatewaySettings) -> LocalRecordings:
    directory = settings.state / "recordings"
    try:
        return LocalRecordings(directory, 3 if settings.recording_format == "v3" else 2)
    except OSError as error:
        raise SettingsError(
            f"The recordings' directory {directory} can't be made: {error.strerror}."
        ) from None


def _compose_links(services: Services) -> None:
    settings, agents = services.settings, services.agents

    async def agent_name(agent_id: str) -> str:
        view = await agents.view(agent_id)
        return view.name if view is not None else agent_id

    services.client_streams = ClientStreams(
        router=services.router,
        agents=agents,
        events=services.events,
        bus=services.bus,
        exec_audit=ExecAudit(
            sessions=services.sessions,
            desk=services.terminals.desk,
            events=services.events,
            clock=services.clock,
        ),
        offers=services.offers,
        allowances=services.allowances,
        guests=GuestStreams(services.guests.quota, services.offers.guest_address),
    )
    services.terminals.end_program = services.client_streams.end_program
    services.link_server = LinkServer(
        services.registry,
        node_key=services.secrets.node_key,
        node_id=services.secrets.node_id,
        secrets=services.agent_secrets,
        identities=services.sign_in,
        events=services.events,
        bus=services.bus,
        clock=services.clock,
        agent_name=agent_name,
        agent_settings={
            "heartbeat": settings.heartbeat_interval,
            "grace": settings.terminal_grace,
        },
        serve_client=services.client_streams.serve,
        max_links=settings.max_links,
    )
