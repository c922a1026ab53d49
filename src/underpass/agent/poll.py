"""Poll mode: asks the gateway every few seconds what to open, and opens a WebSocket for each.

For networks that let short HTTPS requests pass and no long-lived link (spec 1, "Opening a
terminal", step 3). The answer to each signed poll lists sessions with a one-time token: new ones,
and running ones whose WebSocket was lost. Each is served over a WebSocket of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import msgspec
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from underpass.agent.terminals.host import TerminalHost
from underpass.agent.terminals.trunk import Trunk, TrunkLost, WebSocketTrunk
from underpass.core.errors import Unavailable, UnderpassError
from underpass.core.jitter import Jitter, spread
from underpass.core.supervisor import Supervisor
from underpass.links.dial import GatewayAddress
from underpass.links.trust import client_context
from underpass.wire.terminal import MAX_FRAME, Failure
from underpass.wire.terminal_requests import PtyRequest, parse_pty_request

__all__ = ["PENDING_PATH", "PollLoop", "RelayDialler", "SignedGet", "relay_dialler"]

_log = structlog.get_logger(__name__)

PENDING_PATH: Final = "/api/v1/agent/tty/pending-sessions"
RELAY_PATH: Final = "/api/v1/agent/tty/relay"

POLL_FROM, POLL_TO = 5.0, 6.5
"""Seconds between polls: the prompt must be there 8 s after the click, spec 1 asks for 5 to 8."""
POLL_SOON = 1.0
"""After something happened (a session was opened or its socket lost), more is likely to."""
_SOON_FOR = 5
_POLL_FAILED_TO = 15.0
_REQUEST_TIMEOUT = 10.0
_OPEN_TIMEOUT = 10.0
_MAX_ENTRIES = 64
_MAX_RELAYS = 256

SignedGet = Callable[[str], Awaitable[Any]]
"""A signed GET of a path of the gateway: gives the decoded JSON, raises UnderpassError."""


class RelayDialler(Protocol):
    """Opens the relay WebSocket of one session."""

    async def __call__(self, session_id: str, token: str) -> Trunk:
        """The trunk, once the gateway has taken the token.

        Raises:
            UnderpassError: the gateway refuses or cannot be reached.
        """
        ...


class _Entry(msgspec.Struct):
    """What poll mode adds to a session's request (see :class:`PtyRequest` for the rest)."""

    session_id: str
    token: str


class PollLoop:
    """Polls for ever, and serves what it finds.

    Args:
        host: the machine's sessions.
        get: makes signed requests.
        dial: opens relay WebSockets.
        jitter: where the spread between polls comes from.
    """

    def __init__(
        self, host: TerminalHost, get: SignedGet, dial: RelayDialler, *, jitter: Jitter = spread
    ) -> None:
        self._host = host
        self._get = get
        self._dial = dial
        self._jitter = jitter
        self._hurry = asyncio.Event()
        self._soon = 0
        self._failures = 0
        self._relays: set[str] = set()

    async def run(self) -> None:
        """Poll until cancelled; the sessions then are detached, not ended."""
        async with Supervisor("poll") as supervisor:
            while True:
                # Cleared before asking: what happens from here on deserves another look.
                self._hurry.clear()
                await self.poll(supervisor)
                await self._pause()

    async def _pause(self) -> None:
        if self._failures:
            low = min(POLL_FROM * 2 ** (self._failures - 1), _POLL_FAILED_TO / 2)
            wait = self._jitter(low, min(low * 2, _POLL_FAILED_TO))
            await asyncio.sleep(wait)
            return
        if self._soon > 0:
            self._soon -= 1
            await asyncio.sleep(POLL_SOON)
            return
        try:
            async with asyncio.timeout(self._jitter(POLL_FROM, POLL_TO)):
                await self._hurry.wait()
            await asyncio.sleep(POLL_SOON / 2)
        except TimeoutError:
            return

    async def poll(self, supervisor: Supervisor) -> int:
        """Ask once and begin to serve what is there; returns how many sessions that were.

        Returns only when every new relay is connected or has failed: each poll makes new tokens,
        so another one meanwhile would spoil those just given.
        """
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                answer = await self._get(PENDING_PATH)
        except (UnderpassError, TimeoutError) as error:
            self._failures = min(self._failures + 1, 10)
            _log.warning("poll_failed", error=str(error) or "no answer in time")
            return 0
        self._failures = 0
        entries = answer[:_MAX_ENTRIES] if isinstance(answer, list) else []
        waits: list[asyncio.Future[None]] = []
        for entry in entries:
            found = _parse(entry)
            if found is None or found[0].session_id in self._relays:
                continue
            if len(self._relays) >= _MAX_RELAYS:
                _log.warning("relays_full", count=len(self._relays))
                break
            request, token = found
            self._relays.add(request.session_id)
            connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waits.append(connected)
            supervisor.start(self._relay(request, token, connected), f"relay {request.session_id}")
        if waits:
            self._soon = _SOON_FOR
            await asyncio.wait(waits, timeout=_OPEN_TIMEOUT)
        return len(waits)

    async def _relay(
        self, request: PtyRequest, token: str, connected: asyncio.Future[None]
    ) -> None:
        """Serve one session over one WebSocket, from its opening to its end."""
        try:
            try:
                async with asyncio.timeout(_OPEN_TIMEOUT):
                    trunk = await self._dial(request.session_id, token)
            finally:
                if not connected.done():
                    connected.set_result(None)
            try:
                session = await self._host.prepare(request)
            except UnderpassError as error:
                _log.info("session_refused", session=request.session_id, code=error.code)
                await trunk.send(Failure(error.code, str(error)[:512]))
                await trunk.close()
                return
            except BaseException:
                trunk.abort("cancelled", "The agent is stopping.")
                raise
            await self._host.serve(session, trunk, request.offset)
        except (TrunkLost, UnderpassError, TimeoutError) as error:
            _log.warning(
                "relay_failed", session=request.session_id, error=str(error) or "no answer in time"
            )
        finally:
            self._relays.discard(request.session_id)
            # If the socket was lost the gateway wants it back: look at once.
            self._soon = _SOON_FOR
            self._hurry.set()


def _parse(entry: Any) -> tuple[PtyRequest, str] | None:
    """One entry of the answer; None, and a line in the log, when it makes no sense."""
    try:
        known = msgspec.convert(entry, _Entry)
        return parse_pty_request(entry), known.token
    except (msgspec.ValidationError, UnderpassError) as error:
        _log.warning("pending_session_ignored", error=str(error))
        return None


def relay_dialler(server: str, fingerprint: str | None = None) -> RelayDialler:
    """Opens relay WebSockets at the gateway *server*.

    Args:
        server: the gateway's URL.
        fingerprint: the pinned fingerprint of its certificate, checked before the token is sent.
    """
    # Checks the address now, so that a typo is not a retry for ever.
    address = GatewayAddress.parse(server)
    base = f"{'wss' if address.tls else 'ws'}://{address.authority}{address.path}"
    context: ssl.SSLContext | None = client_context(fingerprint) if address.tls else None

    async def dial(session_id: str, token: str) -> Trunk:
        query = urlencode({"session_id": session_id, "token": token})
        try:
            connection = await connect(
                f"{base}{RELAY_PATH}?{query}",
                ssl=context,
                # Terminal bytes are often compressed or random already, and echo must not wait.
                compression=None,
                max_size=4 * MAX_FRAME,
                open_timeout=_OPEN_TIMEOUT,
                ping_interval=20,
                ping_timeout=20,
                close_timeout=5,
            )
        except InvalidStatus as error:
            raise Unavailable(
                f"The gateway refused the session's socket (HTTP {error.response.status_code}).",
                code="relay_refused",
            ) from None
        except (OSError, InvalidHandshake, InvalidURI) as error:
            # TimeoutError is an OSError. The other two may quote the URL: only their names.
            why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
            raise Unavailable(
                f"The gateway could not be reached for the session's socket ({why}).",
                code="relay_unreachable",
            ) from None
        return WebSocketTrunk(connection)

    return dial
