"""The built-in agent: makes the gateway's own machine reachable, by the same way as any other.

It is a whole agent with a state directory of its own. The only thing special about it is where its
join token comes from: made in this process, used once, never seen by anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Final

import structlog
from pydantic import SecretStr

from underpass.agent.app import run_agent
from underpass.agent.settings import AgentSettings
from underpass.agent.state import AgentState
from underpass.core.errors import UnderpassError
from underpass.core.jitter import backoff
from underpass.gateway.services import Services
from underpass.store.db.models import Agent

__all__ = ["LocalAgent", "loopback_url"]

_log = structlog.get_logger(__name__)

STOP_TIMEOUT: Final = 8.0
"""Seconds its terminals get to end before it is cancelled."""
JOIN_SECONDS: Final = 600.0


class LocalAgent:
    """Runs the built-in agent beside the gateway.

    Args:
        services: of the gateway, whose port is bound.
        fingerprint: of the gateway's certificate, with TLS.
    """

    def __init__(self, services: Services, fingerprint: str | None = None) -> None:
        self._services = services
        self._fingerprint = fingerprint
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.linked = asyncio.Event()
        """Set when it has been linked for the first time."""

    @property
    def state(self) -> Path:
        """Its state directory, inside the gateway's."""
        return self._services.settings.state / "agent"

    def start(self) -> None:
        """Begin; a failure is logged and tried again, the gateway goes on without."""
        self._task = self._services.supervisor.start(self._run_for_ever(), "built-in agent")

    async def stop(self) -> None:
        """End its terminals, tell who watches them, then end it."""
        self._stop.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=STOP_TIMEOUT)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _run_for_ever(self) -> None:
        for wait in backoff(1.0, 60.0):
            try:
                status = await run_agent(
                    await self._settings(), ready=self.linked.set, stop=self._stop
                )
            except (UnderpassError, OSError) as error:
                _log.error("built_in_agent_failed", error=str(error))
            except Exception:  # noqa: BLE001 - whatever it is, the gateway goes on, and tries again
                _log.exception("built_in_agent_failed")
            else:
                if self._stop.is_set():
                    return
                _log.error("built_in_agent_ended", status=status)
            try:
                async with asyncio.timeout(wait):
                    await self._stop.wait()
                return
            except TimeoutError:
                continue

    async def _settings(self) -> AgentSettings:
        services, settings = self._services, self._services.settings
        token = None
        if not await self._known():
            made = await services.join_tokens.create(None, uses=1, expires_in=JOIN_SECONDS)
            token = SecretStr(str(made["token"]))
        return AgentSettings(
            server=loopback_url(settings.host, services.port, tls=settings.uses_tls),
            join=token,
            fingerprint=self._fingerprint,
            state=self.state,
            name=settings.node_name,
            heartbeat=settings.heartbeat_interval,
            grace=settings.terminal_grace,
        )

    async def _known(self) -> bool:
        """Whether it has a secret that this gateway's database has heard of.

        When the database was made anew, it has not. A machine that was deleted it remembers, and
        whoever did that decides whether it comes back.
        """
        state = AgentState(self.state)
        if not state.enrolled:
            return False
        async with self._services.database.reading() as db:
            if await db.get(Agent, state.client_id()) is not None:
                return True
        state.forget_enrolment()
        return False


def loopback_url(host: str, port: int, *, tls: bool) -> str:
    """The URL at which this machine reaches a gateway that listens on *host*."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
