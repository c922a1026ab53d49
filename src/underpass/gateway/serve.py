"""Runs a gateway: compose, migrate, listen, say where, wait for a signal, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import structlog

from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import UnderpassError
from underpass.core.garbage import settle
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.gateway.app import make_app
from underpass.gateway.certificate import (
    Certificate,
    self_made_certificate,
    server_certificate,
)
from underpass.gateway.composition import compose
from underpass.gateway.cutting import Cutting
from underpass.gateway.front import Front, PortUnavailable, why_not_listening
from underpass.gateway.housekeeping import keep_house
from underpass.gateway.http.middleware import ForwardedHeaders
from underpass.gateway.local_agent import LocalAgent
from underpass.gateway.quic_front import QuicFront
from underpass.gateway.services import Services
from underpass.store.db.database import DatabaseError

__all__ = ["Gateway", "run_gateway", "serve"]

_log = structlog.get_logger(__name__)

CANNOT_START: Final = 2
"""Exit code when it can't start: bad settings, port in use, state or database unusable."""
MAX_DESCRIPTORS: Final = 65_536
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(settings: GatewaySettings) -> int:
    """Run a gateway until a signal, on uvloop where there is one; the process's exit code."""
    _allow_descriptors()
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run_gateway(settings))


async def run_gateway(
    settings: GatewaySettings, *, announce: Callable[[str], None] | None = None
) -> int:
    """Run a gateway until SIGTERM or SIGINT.

    Args:
        settings: what to run.
        announce: told the ready line; default: prints it on stdout.

    Returns:
        0 after draining; 2 when it could not start, with one line on stderr.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not the main thread
            loop.add_signal_handler(number, stop.set)
    gateway = Gateway(settings)
    try:
        try:
            await gateway.start()
        except (SettingsError, DatabaseError, PortUnavailable) as error:
            _say(f"underpass: {_one_line(error)}", sys.stderr)
            return CANNOT_START
        settle()
        (announce or _say)(await gateway.ready_line())
        await stop.wait()
        return 0
    finally:
        await gateway.stop()
        for number in _SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)


class Gateway:
    """A gateway that can be started and stopped, also several in one process (tests).

    Attributes:
        services: there after :meth:`start`.
        url: where this machine reaches it, after :meth:`start`.
        local_agent: the built-in agent, unless the settings say no.
        quic_front: the UDP port, unless the settings say no or it is not to be had.
    """

    services: Services

    def __init__(self, settings: GatewaySettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.url = ""
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._code: str | None = None
        self.quic_front: QuicFront | None = None
        self.local_agent: LocalAgent | None = None

    async def start(self) -> None:
        """Compose, listen and begin the background work.

        Raises:
            SettingsError, DatabaseError, PortUnavailable: it can't; nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        settings, stack = self.settings, self._stack
        await _check_port(settings)
        services = await stack.enter_async_context(compose(settings, self._clock))
        self.services = services
        certificate = server_certificate(settings, self._clock)
        if certificate is not None:
            services.tls_fingerprint = certificate.fingerprint
            services.tls_self_made = certificate.self_made
        self._code = await self._first_admin(services)

        # Undone in reverse: the port goes first, then what hangs on links, then the links, which
        # say goodbye over UDP, too.
        stack.push_async_callback(self._stop_quic)
        stack.push_async_callback(services.link_server.stop)
        stack.push_async_callback(services.allowances.stop)  # when nothing passes any more
        stack.push_async_callback(services.client_streams.stop)
        await services.allowances.start()
        await services.presence.load()
        await services.terminals.start()
        app = make_app(services)
        front = Front(
            app,
            host=settings.host,
            port=settings.port,
            on_link=services.link_server.take,
            on_spare=services.link_server.take_spare,
            tls=certificate.context() if certificate else None,
            forwarded=ForwardedHeaders(app, settings.trusted_proxies).rewrite,
        )
        try:
            await front.start()
        except BaseException:
            await services.terminals.stop()
            raise
        stack.push_async_callback(front.stop, settings.drain_timeout)
        stack.push_async_callback(services.terminals.stop)  # tells browsers to come back
        services.port = front.port
        stack.push_async_callback(services.tunnels.stop)
        await services.tunnels.start()
        if settings.quic:
            await self._listen_for_quic(certificate)
        self.url = self._own_url(certificate is not None)

        start = services.supervisor.start
        start(services.presence.run(), "presence")
        start(keep_house(services), "housekeeping")
        start(services.client_streams.watch(), "client streams")
        start(Cutting(services).run(), "cutting")
        if settings.local_agent:
            self.local_agent = LocalAgent(
                services, certificate.fingerprint if certificate else None
            )
            self.local_agent.start()
            stack.push_async_callback(self.local_agent.stop)
        services.ready = True
        stack.callback(self._not_ready)
        _log.info("gateway_started", url=self.url, node=services.secrets.node_id)

    async def _listen_for_quic(self, certificate: Certificate | None) -> None:
        """Open the UDP port; a gateway that can't goes on without, since TCP does all it does."""
        services = self.services
        try:
            front = QuicFront(
                host=self.settings.host,
                port=services.port,
                # Without TLS nobody knows this one; the link handshake covers it (ADR 8).
                certificate=certificate or self_made_certificate(self.settings.state, self._clock),
                on_link=services.link_server.take,
            )
            await front.start()
        except UnderpassError as error:
            _log.warning("quic_off", reason=error.message)
            return
        self.quic_front = front

    async def _stop_quic(self) -> None:
        if self.quic_front is not None:
            await self.quic_front.stop()

    async def stop(self) -> None:
        """Drain and end everything. Idempotent."""
        await self._stack.aclose()

    def _not_ready(self) -> None:
        self.services.ready = False
        self.services.bus.close()  # live streams end now, so that draining does not wait for them

    async def ready_line(self) -> str:
        """What to tell the person who started it: the address, with the set-up code if needed."""
        address = self.settings.public_url or self.url
        code = f"/setup?code={self._code}" if self._code else ""
        return f"Underpass is ready: {address}{code}"

    async def _first_admin(self, services: Services) -> str | None:
        settings = self.settings
        if settings.admin_user is not None and settings.admin_password is not None:
            try:
                await services.setup.complete_from_settings(
                    settings.admin_user, settings.admin_password.get_secret_value()
                )
            except UnderpassError as error:
                raise SettingsError(f"Can't make the first admin: {error.message}") from None
        return await services.setup.open()

    def _own_url(self, tls: bool) -> str:
        host = self.settings.host
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            if address.is_unspecified or address.is_loopback:
                host = "localhost"
            elif address.version == 6:
                host = f"[{host}]"
        return f"{'https' if tls else 'http'}://{host}:{self.services.port}"


async def _check_port(settings: GatewaySettings) -> None:
    """Fail before the database is touched (and anything logged) when the port is not to be had."""
    loop = asyncio.get_running_loop()
    try:
        probe = await loop.create_server(
            asyncio.Protocol, settings.host, settings.port, start_serving=False, reuse_address=True
        )
    except OSError as error:
        raise PortUnavailable(why_not_listening(error, settings.host, settings.port)) from None
    probe.close()


def _allow_descriptors() -> None:
    """Lift the soft limit of open files: shells give 1024, and every link and page is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # then the limit stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one_line(error: UnderpassError) -> str:
    return " ".join(str(error).split())


def _say(text: str, stream: object = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)  # type: ignore[arg-type]
