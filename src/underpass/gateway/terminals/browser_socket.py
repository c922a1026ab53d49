"""``/api/v1/tty/ws``: a person's socket on a session, from the first message to the close code.

The order of things is spec 1's: Origin, then the token (burned), then the session. After that two
tasks: one reads the browser (input, resize, credit), one sends what the hub has for it. Input
never waits behind output.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from underpass.control.subject import Subject
from underpass.core.errors import (
    Internal,
    InvalidRequest,
    TooManyRequests,
    Unauthenticated,
    UnderpassError,
)
from underpass.core.ids import is_id
from underpass.gateway.terminals.browser_messages import (
    MAX_INPUT,
    Auth,
    BrowserMessage,
    Credit,
    Ping,
    Resize,
    Resume,
    parse,
)
from underpass.gateway.terminals.gate import no_such_session
from underpass.gateway.terminals.hub import Hub, Viewer
from underpass.gateway.terminals.hub_core import Role
from underpass.gateway.terminals.service import Terminals

__all__ = ["AUTH_SECONDS", "BrowserSocket", "SignedIn"]

_log = structlog.get_logger(__name__)

AUTH_SECONDS = 10.0
"""How long a socket may stay silent before it says who it is."""
RESUME_SECONDS = 0.15
"""How long a new socket's ``resume`` may come after its ``auth`` when the ticket does not say
that there will be one. Any other message ends the wait."""
LAST_SECONDS = 30.0
"""How long an ended session's last output may take to reach a slow browser."""
CUT_SECONDS = 2.0
QUIET_SECONDS = 60.0
"""A client that pings and then is silent for so long is gone, whatever its socket says."""
_MAX_COMPLAINTS = 32
_CLOSED = (WebSocketDisconnect, RuntimeError, OSError)


class SignedIn(Protocol):
    """How the socket learns who a token belongs to (``gateway.http.security`` behind it)."""

    async def connection(self) -> Subject | None:
        """Whoever the handshake's cookie or bearer token says; None without one."""
        ...

    async def token(self, token: str) -> Subject:
        """Whose access token this is. Raises Unauthenticated."""
        ...


class BrowserSocket:
    """One WebSocket of a person.

    Args:
        websocket: not accepted yet; its Origin has been checked.
        terminals: the service.
        signed_in: who is behind the connection or a token.
    """

    def __init__(self, websocket: WebSocket, terminals: Terminals, signed_in: SignedIn) -> None:
        self._ws = websocket
        self._terminals = terminals
        self._signed_in = signed_in
        self._held: BrowserMessage | bytes | None = None
        self._pinged = False
        self._complaints = 0

    async def serve(self) -> None:
        """From accept to close. Raises nothing but cancellation."""
        ws = self._ws
        await ws.accept()
        subject: Subject | None = None
        session_id = ws.query_params.get("session_id")
        try:
            mode = ws.query_params.get("mode", "")
            if mode in ("observe", "join"):
                subject = await self._who_watches()
                hub, viewer = await self._watch(subject, mode)
            elif mode in ("", "shell"):
                subject, hub, viewer = await self._open_or_resume()
            else:
                raise InvalidRequest("mode: it is observe, join, or left away.")
        except _CLOSED as error:
            if WebSocketState.CONNECTED is ws.client_state is ws.application_state:
                # The browser is there; what failed is a driver's connection of ours.
                _log.error("terminal_socket_failed", exc_info=error)
                await self._refuse(
                    Internal(
                        "The gateway can't reach its database right now.",
                        code="database_unavailable",
                    )
                )
            return
        except UnderpassError as error:
            await self._terminals.gate.denied(
                subject, None, error,
                session_id=session_id if session_id and is_id(session_id) else None,
                ip=self._address,
            )  # fmt: skip
            await self._refuse(error)
            return
        except Exception as error:  # noqa: BLE001 - a defect is told as one, and logged as one
            _log.error("terminal_socket_failed", exc_info=error)
            await self._refuse(Internal("The gateway failed; its log says why."))
            return
        await self._show(hub, viewer)

    @property
    def _address(self) -> str | None:
        return self._ws.client.host if self._ws.client else None

    # -- who, and which session -------------------------------------------------------------------

    async def _who_watches(self) -> Subject:
        subject = await self._signed_in.connection()
        token = self._ws.query_params.get("token")
        if subject is None and token is None:
            token = (await self._auth()).token
        if subject is None:
            if not token:
                raise Unauthenticated("This needs a login.", hint="Send an access token.")
            subject = await self._signed_in.token(token)
        return subject

    async def _watch(self, subject: Subject, mode: str) -> tuple[Hub, Viewer]:
        session_id = self._ws.query_params.get("session_id", "")
        if not is_id(session_id):
            raise no_such_session()
        hub = await self._terminals.watch(subject, session_id, mode)
        await self._send({"session_id": hub.info.id, "mode": mode})
        role: Role = "writer" if mode == "join" else "observer"
        offset = _whole(self._ws.query_params.get("offset"))
        viewer = await self._terminals.attach(hub, subject, role, offset, credit=self._credit)
        return hub, viewer

    async def _open_or_resume(self) -> tuple[Subject, Hub, Viewer]:
        query = self._ws.query_params
        token = query.get("token")
        bare = token is not None
        if token is None:
            token = (await self._auth()).token
        if not token:
            raise Unauthenticated("The first message held no token.", code="bad_ticket")
        presented_by = await self._signed_in.connection()
        ticket, person = await self._terminals.gate.redeem(token, presented_by=presented_by)
        subject = person.subject(self._address)
        resume = self._resume_in_query()
        if resume is None and ticket.session_id is not None:
            resume = Resume(ticket.session_id, 0)
            message = await self._next(AUTH_SECONDS)
            if isinstance(message, Resume) and message.session_id == ticket.session_id:
                resume = message
            else:
                self._held = message
        elif resume is None and not bare:
            message = await self._next(RESUME_SECONDS)
            if isinstance(message, Resume):
                resume = message
            else:
                self._held = message
        if resume is not None:
            hub = await self._terminals.resume(subject, ticket, resume.session_id)
            await self._send({"session_id": hub.info.id})
            viewer = await self._terminals.attach(
                hub, subject, "owner", resume.offset, credit=self._credit
            )
            return subject, hub, viewer
        cols = _whole(query.get("cols")) or ticket.cols
        rows = _whole(query.get("rows")) or ticket.rows
        hub = await self._terminals.open(subject, ticket, cols, rows)
        viewer = await self._terminals.attach(
            hub, subject, "owner", None, credit=self._credit, first=True
        )
        try:
            await self._send({"session_id": hub.info.id})
        except BaseException:  # the browser went while its shell was made
            await asyncio.shield(self._terminals.detach(hub, viewer))
            raise
        return subject, hub, viewer

    @property
    def _credit(self) -> bool:
        return self._ws.query_params.get("credit") != "off"

    def _resume_in_query(self) -> Resume | None:
        session_id = self._ws.query_params.get("session_id")
        if not session_id:
            return None
        return Resume(session_id[:64], _whole(self._ws.query_params.get("offset")) or 0)

    async def _auth(self) -> Auth:
        """The first message.

        Raises:
            Unauthenticated: none came in time.
            InvalidRequest: it is anything but ``auth``.
        """
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                raw = await self._receive()
        except TimeoutError:
            raise Unauthenticated(
                f"No token came within {AUTH_SECONDS:g} seconds.", code="auth_timeout"
            ) from None
        message = parse(raw) if isinstance(raw, str) else None
        if not isinstance(message, Auth):
            raise InvalidRequest(
                'The first message must be {"type":"auth","token":…}.', code="bad_first_message"
            )
        return message

    async def _next(self, seconds: float) -> BrowserMessage | bytes | None:
        """The next message if it comes within *seconds*; nonsense counts as none."""
        try:
            async with asyncio.timeout(seconds):
                raw = await self._receive()
        except TimeoutError:
            return None
        if isinstance(raw, bytes):
            return raw
        try:
            return parse(raw)
        except InvalidRequest as error:
            await self._complain(error)
            return None

    # -- the session ------------------------------------------------------------------------------

    async def _show(self, hub: Hub, viewer: Viewer) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._quietly(self._send_all, viewer))
                reader = group.create_task(self._quietly(self._read_all, viewer))
                over = group.create_task(viewer.over.wait())
                await asyncio.wait({sender, reader, over}, return_when=asyncio.FIRST_COMPLETED)
                if over.done() and not reader.done():
                    cut = viewer.end is not None
                    await asyncio.wait(
                        {sender, reader},
                        timeout=CUT_SECONDS if cut else LAST_SECONDS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                for task in (sender, reader, over):
                    task.cancel()
        finally:
            await asyncio.shield(self._terminals.detach(hub, viewer))
        end = viewer.end
        if end is not None:
            await self._close(end.close_code, end.code or "ended")
        elif viewer.over.is_set():
            await self._close(1000, "ended")

    async def _quietly(self, work: Callable[[Viewer], Awaitable[None]], viewer: Viewer) -> None:
        try:
            await work(viewer)
        except _CLOSED:
            return

    async def _send_all(self, viewer: Viewer) -> None:
        while True:
            viewer.wake.clear()
            while (message := viewer.next()) is not None:
                if isinstance(message, bytes):
                    await self._ws.send_bytes(message)
                else:
                    await self._send(message)
            if viewer.end is not None:
                return
            await viewer.wake.wait()

    async def _read_all(self, viewer: Viewer) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            await self._handle(viewer, held)
        while True:
            try:
                async with asyncio.timeout(QUIET_SECONDS if self._pinged else None):
                    raw = await self._receive()
            except TimeoutError:
                return
            try:
                await self._handle(viewer, raw if isinstance(raw, bytes) else parse(raw))
            except InvalidRequest as error:
                await self._complain(error, viewer)

    async def _handle(self, viewer: Viewer, message: BrowserMessage | bytes) -> None:
        hub = viewer.hub
        match message:
            case bytes():
                if not viewer.may_write:
                    raise InvalidRequest("Observers can't type.", code="read_only")
                if len(message) > MAX_INPUT:
                    raise InvalidRequest(
                        f"An input message may be {MAX_INPUT} bytes long at most; this one was "
                        "dropped.",
                        code="input_too_large",
                    )
                if viewer.end is not None:
                    return  # taken over or cut: what this socket still sends is not typed
                hub.input(message)
                if hub.core.input_full:
                    viewer.reading_paused = True
                    viewer.wake.set()
                    try:
                        await hub.input_room()
                    finally:
                        viewer.reading_paused = False
            case Resize(cols, rows):
                if not viewer.may_write:
                    raise InvalidRequest("Observers can't resize.", code="read_only")
                if viewer.end is None:
                    hub.resize(viewer, cols, rows)
            case Credit(count):
                viewer.credit(count)
            case Ping(t):
                self._pinged = True
                viewer.tell({"type": "pong", "t": t})
            case Auth() | Resume():
                raise InvalidRequest(
                    "The session is open already; this message was ignored.", code="too_late"
                )
            case _:
                return  # a pong: it is enough that something came

    # -- the socket -------------------------------------------------------------------------------

    async def _receive(self) -> bytes | str:
        message = await self._ws.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        return data if data is not None else message.get("text") or ""

    async def _send(self, message: dict[str, Any]) -> None:
        await self._ws.send_text(json.dumps(message, separators=(",", ":")))

    async def _complain(self, error: UnderpassError, viewer: Viewer | None = None) -> None:
        message = {"type": "error", "code": error.code, "message": str(error)}
        if viewer is not None:
            viewer.tell(message)
        elif self._complaints < _MAX_COMPLAINTS:
            self._complaints += 1
            await self._send(message)

    async def _refuse(self, error: UnderpassError) -> None:
        body: dict[str, Any] = {**error.details, "type": "error", "code": error.code}
        body["message"] = str(error)
        if isinstance(error, TooManyRequests) and error.retry_after is not None:
            body["retry_after"] = error.retry_after
        try:
            async with asyncio.timeout(CUT_SECONDS):
                await self._send(body)
        except (*_CLOSED, TimeoutError):
            return
        await self._close(error.close_code, error.code)

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CUT_SECONDS):
                await self._ws.close(code, reason[:100])
        except (*_CLOSED, TimeoutError):
            return  # it is closed already, or does not read any more; the server lets go of it


def _whole(text: str | None) -> int | None:
    """A count in the address: digits only, and not absurdly many."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 17 \
        else None  # fmt: skip
