"""The agent's heartbeat: every 30 s over the link, or else over HTTPS; corrects the clock once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from underpass.agent.facts import Facts
from underpass.agent.signed_http import GatewayRefused, SignedHttp
from underpass.core.errors import UnderpassError
from underpass.core.jitter import Jitter, spread
from underpass.links.link import Link

__all__ = ["HEARTBEAT_PATH", "Heartbeat", "MachineUnknown"]

_log = structlog.get_logger(__name__)

HEARTBEAT_PATH = "/api/v1/heartbeat"
STATIC_EVERY = 20
"""Static facts ride on the first heartbeat, on every 20th, and whenever they changed."""
_UNKNOWN_BEFORE_GIVING_UP = 2
"""The gateway must say twice that it does not know us: once could be a moment of its database."""


class MachineUnknown(UnderpassError):
    """The gateway does not know this machine (any more): forget the secret and enrol again."""

    code, status = "unknown_agent", 404


class Heartbeat:
    """Sends heartbeats until cancelled.

    Args:
        http: signs, and sends when there is no link.
        facts: what to say about the machine.
        link: gives the live link, if there is one.
        mode: ``link`` or ``poll``; told to the gateway, for which a missing link is then normal.
        tty_status: gives ``{active_sessions, sessions}``.
        labels: what the machine says of itself; shown, never trusted.
        interval: seconds between two.
        sleep: waits (for tests).
    """

    def __init__(
        self,
        http: SignedHttp,
        facts: Facts,
        *,
        link: Callable[[], Link | None] = lambda: None,
        mode: str = "link",
        tty_status: Callable[[], Mapping[str, Any]] = dict,
        labels: Mapping[str, str] | None = None,
        interval: float = 30.0,
        jitter: Jitter = spread,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._facts = facts
        self._link = link
        self._mode = mode
        self._tty_status = tty_status
        self._labels = dict(labels or {})
        self._jitter = jitter
        self._sleep = sleep
        self._sent = 0
        self._told: dict[str, Any] | None = None
        self._unknown = 0
        self._sending = asyncio.Lock()
        self.interval = interval
        """Seconds; the gateway may say otherwise when a link is made."""

    async def run(self) -> None:
        """Send one now and one every interval, for ever.

        Raises:
            MachineUnknown: the gateway says so, repeatedly.
        """
        while True:
            try:
                await self.beat()
            except MachineUnknown:
                raise
            except UnderpassError as error:
                _log.warning("heartbeat_failed", code=error.code, reason=str(error))
            # 90 to 100 %: never late, so that three of them cannot be missed by waiting alone.
            await self._sleep(self._jitter(self.interval * 0.9, self.interval))

    async def beat(self) -> None:
        """Send one heartbeat; on clock skew correct the clock and send once more.

        Raises:
            MachineUnknown: see :meth:`run`.
            UnderpassError: it was refused or did not get through.
        """
        async with self._sending:
            fields = await self._fields()
            try:
                answer = await self._send(fields)
            except GatewayRefused as error:
                if not self._may_retry(error):
                    self._count_unknown(error)
                    raise
                answer = await self._send(fields)
            self._sent += 1
            self._unknown = 0
            if "static_info" in fields["metrics"]:
                self._told = fields["metrics"]["static_info"]
            _log.debug("heartbeat_sent", server_time=answer.get("server_time"))

    async def _fields(self) -> dict[str, Any]:
        static_info, dynamic_info = await self._facts.read()
        if self._labels:
            static_info = {**static_info, "labels": self._labels}
        metrics: dict[str, Any] = {"dynamic_info": dynamic_info, "mode": self._mode}
        if self._sent % STATIC_EVERY == 0 or static_info != self._told:
            metrics["static_info"] = static_info
        tty_status = dict(self._tty_status()) or {"active_sessions": 0, "sessions": []}
        return {"metrics": metrics, "tty_status": tty_status}

    async def _send(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        link = self._link()
        if link is None:
            return await self._http.signed_post(HEARTBEAT_PATH, fields)
        answer = await link.request("heartbeat", self._http.sign("POST", HEARTBEAT_PATH, fields))
        if answer.get("status") != "ok":
            # Refusals over a link come as answers, because they carry the server's time.
            raise GatewayRefused(int(answer.get("http_status", 500)), answer, None)
        return answer

    def _may_retry(self, error: GatewayRefused) -> bool:
        clock = self._http.clock
        if error.code == "clock_skew":
            corrected = clock.correct(error.details.get("server_time"))
            if corrected:
                _log.warning("clock_corrected", offset=round(clock.offset, 1))
            return corrected
        if error.code == "replayed":
            # Our clock went back since the last heartbeat, of this process or the one before.
            clock.skip_past(error.details.get("last_timestamp"))
            return True
        return False

    def _count_unknown(self, error: GatewayRefused) -> None:
        if error.code != "unknown_agent":
            return
        self._unknown += 1
        if self._unknown >= _UNKNOWN_BEFORE_GIVING_UP:
            raise MachineUnknown(error.message, hint=error.hint) from error
