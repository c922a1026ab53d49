"""The window around the engine: modes it leaves, messages it says, what a refusal means.

The whole of it is driven for real in tests/e2e/test_shell_command.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from underpass.cli.options import Connection
from underpass.cli.raw_mode import leave_modes, raw_terminal, terminal_size
from underpass.cli.terminal import TerminalWindow, access_ticket
from underpass.core.errors import Forbidden, Unauthenticated, Unavailable
from underpass.wire.tty_client import TtyClient

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def terminal_server(handler: Handler) -> AsyncIterator[Connection]:
    """Something that speaks WebSocket; ends with the block."""
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield Connection(f"http://127.0.0.1:{port}", "access")


async def greeted(socket: ServerConnection) -> list[dict[str, object]]:
    """Take what the client says first, and give it a session."""
    said = [json.loads(await socket.recv())]
    await socket.send('{"session_id":"s1"}')
    return said


async def run_window(
    connection: Connection, engine: TtyClient, keys: bytes = b"", ticket: object = None
) -> tuple[int, bytes]:
    """Run a window with pipes for keys and screen; its status and what it showed."""
    keys_out, keys_in = os.pipe()
    screen_out, screen_in = os.pipe()
    os.write(keys_in, keys)
    window = TerminalWindow(
        connection,
        ticket or access_ticket(connection),  # type: ignore[arg-type]
        engine,
        stdin=keys_out,
        stdout=screen_in,
    )
    try:
        status = await asyncio.wait_for(window.run(), 20)
        os.close(screen_in)
        shown = os.read(screen_out, 65536)
    finally:
        for number in (keys_in, screen_out):
            os.close(number)
    return status, shown


async def test_bytes_keys_and_status() -> None:
    typed = bytearray()

    async def session(socket: ServerConnection) -> None:
        assert await greeted(socket) == [{"type": "auth", "token": "access"}]
        async for message in socket:
            if isinstance(message, bytes):
                typed.extend(message)
                await socket.send(b"\xffecho:" + message)
                await socket.send('{"type":"exit","code":3}')
                return

    async with terminal_server(session) as connection:
        status, shown = await run_window(connection, TtyClient(escapes=False), b"ls\r")
    assert status == 3
    assert bytes(typed) == b"ls\r"
    assert shown == b"\xffecho:ls\r"


async def test_a_cut_socket_is_made_anew_and_the_session_resumed() -> None:
    sockets = 0
    resumes: list[dict[str, object]] = []

    async def session(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        await socket.recv()
        if sockets == 1:
            await socket.send('{"session_id":"s1"}')
            await socket.send(b"first ")
            socket.transport.abort()
            return
        resumes.append(json.loads(await socket.recv()))
        await socket.send('{"session_id":"s1"}')
        await socket.send('{"type":"resumed","offset":6,"input_offset":0}')
        await socket.send(b"second")
        await socket.send('{"type":"exit","code":0}')

    async with terminal_server(session) as connection:
        status, shown = await run_window(connection, TtyClient())
    assert (status, shown) == (0, b"first second")
    assert resumes == [{"type": "resume", "session_id": "s1", "offset": 6}]


async def test_when_coming_back_is_refused_it_ends() -> None:
    asked = 0
    sessions: list[str | None] = []

    def ticket(session_id: str | None) -> str:
        nonlocal asked
        asked += 1
        sessions.append(session_id)
        if asked == 2:
            raise Unavailable("The gateway restarts.")
        if asked == 3:
            raise Forbidden("You may no longer use this machine.")
        return "t"

    async def session(socket: ServerConnection) -> None:
        await greeted(socket)
        socket.transport.abort()

    async with terminal_server(session) as connection:
        status, _ = await run_window(connection, TtyClient(), ticket=ticket)
    assert (status, asked) == (255, 3)
    assert sessions == [None, "s1", "s1"]  # caps are for new sessions


async def test_no_gateway_is_raised_before_the_terminal_is_touched() -> None:
    with pytest.raises(Unavailable):
        await run_window(Connection("http://127.0.0.1:9", "t"), TtyClient())


@pytest.mark.parametrize(("status", "error"), [(403, Unauthenticated), (502, Unavailable)])
async def test_a_refused_upgrade_is_explained(status: int, error: type[Exception]) -> None:
    async def never(socket: ServerConnection) -> None:
        raise AssertionError

    def refuse(connection: ServerConnection, request: object) -> object:
        return connection.respond(status, "no\n")

    async with serve(never, "127.0.0.1", 0, process_request=refuse) as server:  # type: ignore[arg-type]
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(error):
            await run_window(Connection(f"http://127.0.0.1:{port}", "t"), TtyClient())


def test_raw_mode_is_undone_even_by_an_exception() -> None:
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(ZeroDivisionError), raw_terminal(slave) as set_raw:
            assert termios.tcgetattr(slave) != before
            set_raw()
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_no_terminal_is_left_alone() -> None:
    reading, writing = os.pipe()
    with raw_terminal(reading) as set_raw:
        set_raw()
    assert terminal_size(reading) == (80, 24)
    os.close(reading)
    os.close(writing)


def test_leaving_shows_the_cursor_and_leaves_the_alternate_screen_only_when_on_it() -> None:
    assert b"\x1b[?25h" in leave_modes(False)
    assert b"\x1b[?1049l" not in leave_modes(False)
    assert leave_modes(True).startswith(b"\x1b[?1049l")
