"""A terminal on a machine: the shell around :class:`underpass.wire.tty_client.TtyClient`.

Connects the WebSocket, the person's terminal and the engine; the engine decides everything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from underpass.cli.api import Api, is_local
from underpass.cli.options import Connection
from underpass.cli.raw_mode import leave_modes, raw_terminal, terminal_size
from underpass.cli.stdio import InputPipe, OutputPipe
from underpass.core.errors import (
    Conflict,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnderpassError,
)
from underpass.core.jitter import backoff
from underpass.links.trust import client_context
from underpass.wire.tty_client import Command, End, Retry, Say, Send, TtyClient, Write

__all__ = ["TerminalWindow", "Ticket", "access_ticket", "shell_ticket"]

CONNECT_TIMEOUT = 10.0
"""Seconds for the WebSocket to be there."""
PING_EVERY = 10.0
PING_TIMEOUT = 20.0
"""A connection that answers no ping for so long is given up, and made anew."""
PATIENCE = 600.0
"""Seconds of trying to come back; the grace a detached session has by default."""
EOT = b"\x04"
"""What a terminal sends for the end of input."""

Ticket = Callable[[str | None], str]
"""Asks the gateway for a token for the next socket, to begin a session (None) or to come back to
the one with this id; blocking; raises UnderpassError."""


def shell_ticket(
    connection: Connection,
    agent_id: str,
    size: Callable[[], tuple[int, int]],
    command: str | None = None,
    login: str | None = None,
) -> Ticket:
    """Tickets for a terminal on a machine (spec 1, "Opening a terminal")."""

    def ask(session_id: str | None) -> str:
        cols, rows = size()
        with Api(connection) as api:
            answer = api.get(
                f"/api/v1/assets/{agent_id}/tty/authorize",
                cols=cols, rows=rows, command=command, login=login,
                # Caps, maintenance and a machine on its way back refuse new sessions only.
                session_id=session_id,
            )  # fmt: skip
        return str(answer["token"])

    return ask


def access_ticket(connection: Connection) -> Ticket:
    """For observers: the access token itself (spec 7, "Terminal socket")."""
    return lambda _session_id: connection.required_token


class TerminalWindow:
    """One terminal in the person's window until it ends.

    Args:
        connection: the gateway.
        ticket: where the token for each socket comes from.
        engine: what decides.
        query: the socket's query parameters.
        stdin, stdout: file descriptors; both may be pipes.
    """

    def __init__(
        self,
        connection: Connection,
        ticket: Ticket,
        engine: TtyClient,
        *,
        query: str = "",
        stdin: int = 0,
        stdout: int = 1,
    ) -> None:
        self._connection = connection
        self._ticket = ticket
        self._engine = engine
        self._query = query
        self._stdin, self._stdout = stdin, stdout
        self._raw = False
        self._alternate_screen = False
        self._socket: ClientConnection | None = None
        # Bounded by the engine: it holds at most MAX_PENDING_INPUT, credit and sizes are small.
        self._outbox: asyncio.Queue[bytes | str] = asyncio.Queue()
        self._ended: asyncio.Future[End]
        self._screen: OutputPipe
        self._keys: InputPipe
        self._said_lost = False

    async def run(self) -> int:
        """Run to the end; gives the exit status.

        Raises:
            UnderpassError: it could not be opened at all.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        token = await asyncio.to_thread(self._ticket, self._engine.session_id)
        socket = await self._connect()
        self._screen = OutputPipe(self._stdout, self._written, self._screen_gone)
        with ExitStack() as stack:
            set_raw = stack.enter_context(raw_terminal(self._stdin))
            self._raw = os.isatty(self._stdin)
            self._on_signals(stack, set_raw)
            self._resized()
            self._keys = InputPipe(self._stdin, self._typed)
            try:
                async with asyncio.TaskGroup() as tasks:
                    sockets = tasks.create_task(self._sockets(socket, token))
                    end = await self._ended
                    sockets.cancel()
            finally:
                self._keys.stop()
            await self._screen.flush()
            if end.status >= 128:
                self._screen.write(leave_modes(self._alternate_screen) if self._raw else b"")
                await self._screen.flush()
        self._screen.stop()
        if end.text:
            print(f"underpass: {end.text}", file=sys.stderr)
        return end.status

    # -- sockets ---------------------------------------------------------------------------------

    async def _sockets(self, socket: ClientConnection, token: str) -> None:
        """Serve one socket after the other until the engine says it is over."""
        while not self._ended.done():
            await self._serve(socket, token)
            if self._ended.done():
                return
            found = await self._come_back()
            if found is None:
                return
            socket, token = found

    async def _serve(self, socket: ClientConnection, token: str) -> None:
        self._outbox = asyncio.Queue()
        self._socket = socket
        try:
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send(socket))
                self._do(self._engine.connected(token))
                with suppress(ConnectionClosed):
                    async for message in socket:
                        self._do(self._engine.received(message))
                        if self._engine.wants_input:
                            self._keys.resume()
                        if self._ended.done():
                            break
                sender.cancel()
        finally:
            self._socket = None
            await socket.close()
        self._do(self._engine.lost(socket.close_code, socket.close_reason or ""))

    async def _send(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):  # the reader notices, too, and says so
            while True:
                await socket.send(await self._outbox.get())

    async def _come_back(self) -> tuple[ClientConnection, str] | None:
        deadline = time.monotonic() + PATIENCE
        self._say("connection lost; reconnecting (~. gives up)")
        for wait in backoff(0.3, 5.0):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(wait)
            try:
                token = await asyncio.to_thread(self._ticket, self._engine.session_id)
                return await self._connect(), token
            except (Unavailable, Conflict, TooManyRequests):
                continue  # the gateway or the machine is not back yet
            except UnderpassError as error:
                self._do([End(255, str(error))])
                return None
        self._do([End(255, f"No way back within {PATIENCE:g} s; the session is given up.")])
        return None

    async def _connect(self) -> ClientConnection:
        server = self._connection.server
        url = f"ws{server.removeprefix('http')}/api/v1/tty/ws{self._query}"
        tls = client_context(self._connection.fingerprint) if server.startswith("https") else None
        options: dict[str, Any] = {"ssl": tls} if tls is not None else {}
        if is_local(server):
            options["proxy"] = None
        try:
            return await connect(
                url,
                additional_headers={"Authorization": f"Bearer {self._connection.required_token}"},
                open_timeout=CONNECT_TIMEOUT,
                close_timeout=2,
                ping_interval=PING_EVERY,
                ping_timeout=PING_TIMEOUT,
                compression=None,
                max_size=1 << 22,
                **options,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                raise Unauthenticated(f"The gateway refused the terminal ({status}).") from None
            raise Unavailable(
                f"No WebSocket with {server}: it answered {status}.",
                code="no_websocket",
                hint="Does a proxy in between let WebSockets through? See: underpass doctor",
            ) from None
        except (OSError, InvalidHandshake, TimeoutError, ssl.SSLError) as error:
            raise Unavailable(
                f"The terminal socket at {server} cannot be opened: {error or 'time is over'}.",
                code="unreachable",
                hint="Check with: underpass doctor",
            ) from None

    # -- what the engine wants -------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(data):
                    self._outbox.put_nowait(data)
                case Write(data):
                    self._watch_modes(data)
                    self._screen.write(data)
                case Say(text):
                    self._say(text)
                case Retry():
                    pass  # the socket is gone already; `_sockets` makes the next one
                case End():
                    if not self._ended.done():
                        self._ended.set_result(command)

    def _watch_modes(self, data: bytes) -> None:
        on, off = data.rfind(b"\x1b[?1049h"), data.rfind(b"\x1b[?1049l")
        if on != off:
            self._alternate_screen = on > off

    def _say(self, text: str) -> None:
        end = "\r\n" if self._raw else "\n"
        start = end if self._raw else ""
        sys.stderr.write(f"{start}underpass: {text}{end}")
        sys.stderr.flush()

    # -- what the person does --------------------------------------------------------------------

    def _typed(self, data: bytes) -> None:
        # Input that is no terminal ends with what a terminal would send for it.
        self._do(self._engine.typed(data or EOT))
        if not self._engine.wants_input:
            self._keys.pause()

    def _written(self, count: int) -> None:
        self._do(self._engine.written(count))

    def _screen_gone(self, error: OSError) -> None:
        self._do([End(141, "")])

    def _resized(self) -> None:
        self._do(self._engine.resized(*terminal_size(self._stdout)))

    def _on_signals(self, stack: ExitStack, set_raw: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def continued() -> None:
            set_raw()
            self._resized()

        def ended(number: int) -> None:
            self._do([End(128 + number, "")])

        handlers: list[tuple[int, Callable[[], None]]] = [
            (signal.SIGWINCH, self._resized),
            (signal.SIGCONT, continued),
            (signal.SIGTERM, lambda: ended(signal.SIGTERM)),
            (signal.SIGHUP, lambda: ended(signal.SIGHUP)),
        ]
        if not self._raw:
            handlers.append((signal.SIGINT, lambda: self._do(self._engine.typed(b"\x03"))))
        for number, handler in handlers:
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)
