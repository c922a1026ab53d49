"""Poll mode against a gateway of a few lines: new sessions, lost sockets, refusals, outages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from underpass.agent import poll as polls
from underpass.agent.poll import PENDING_PATH, PollLoop, relay_dialler
from underpass.agent.terminals.host import TerminalHost
from underpass.core.errors import InvalidRequest, Unavailable
from underpass.core.supervisor import Supervisor
from underpass.wire.terminal import (
    Attached,
    Control,
    Exit,
    Failure,
    decode_control,
)


class Socket:
    """The gateway's end of one relay."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.output = bytearray()
        self.controls: list[Control] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                message = await self.connection.recv()
                if isinstance(message, bytes):
                    self.output += message
                else:
                    control = decode_control(message)
                    assert control is not None
                    self.controls.append(control)

    async def ended(self) -> Exit | Failure:
        await self.until(lambda: isinstance((self.controls or [None])[-1], Exit | Failure))
        end = self.controls[-1]
        assert isinstance(end, Exit | Failure)
        return end


class Gateway:
    """Lists what is pending, each time with new tokens, and takes relays that know them."""

    def __init__(self) -> None:
        self.pending: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.polls = 0
        self.paths: list[str] = []
        self.fail = False
        self.answer: Any = None
        self.url = ""
        self.done = asyncio.Event()

    async def get(self, path: str) -> Any:
        self.polls += 1
        self.paths.append(path)
        if self.fail:
            raise Unavailable("The gateway is away.")
        if self.answer is not None:
            return self.answer
        result: list[dict[str, Any]] = []
        for session_id, meta in self.pending.items():
            self.tokens[session_id] = f"t{self.polls}"
            result.append({"session_id": session_id, "token": f"t{self.polls}", **meta})
        return result

    async def relay(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        session_id, token = query["session_id"][0], query["token"][0]
        if self.tokens.pop(session_id, None) != token:
            await connection.close(4401, "bad token")
            return
        self.pending.pop(session_id)
        self.sockets.put_nowait(Socket(connection))
        await self.done.wait()

    async def next(self) -> Socket:
        async with asyncio.timeout(15):
            return await self.sockets.get()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    async with serve(gateway.relay, "127.0.0.1", 0) as server:
        gateway.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield gateway
        gateway.done.set()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[TerminalHost]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    host = TerminalHost(login_allowed=lambda name: name == "self", environ=environ)
    yield host
    await host.close()


@pytest.fixture
async def loop(
    gateway: Gateway, host: TerminalHost, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PollLoop]:
    monkeypatch.setattr(polls, "POLL_SOON", 0.02)
    loop = PollLoop(
        host, gateway.get, relay_dialler(gateway.url), jitter=lambda low, high: low / 100
    )
    async with Supervisor("test") as supervisor:
        supervisor.start(loop.run(), "poll")
        yield loop


async def test_a_session_over_a_websocket(gateway: Gateway, loop: PollLoop) -> None:
    gateway.pending["s1"] = {
        "command": None, "cols": 90, "rows": 20, "user": {"id": "u", "username": "ann"},
        "login": None, "offset": None, "grace": 60.0,
    }  # fmt: skip
    socket = await gateway.next()
    await socket.connection.send(b"stty size; exit 3\n")
    assert await socket.ended() == Exit(code=3, offset=len(socket.output))
    assert isinstance(socket.controls[0], Attached)
    assert b"20 90" in socket.output
    assert set(gateway.paths) == {PENDING_PATH}


async def test_a_lost_socket_comes_back_where_it_was(
    gateway: Gateway, loop: PollLoop, host: TerminalHost
) -> None:
    # The second half waits for a line, so the lost socket can't have seen everything.
    command = "stty -onlcr -echo; seq 2500; read x; seq 2501 5000; read x; exit 5"
    gateway.pending["s1"] = {"command": command}
    socket = await gateway.next()
    await socket.until(lambda: len(socket.output) > 5000)
    socket.connection.transport.abort()
    gateway.pending["s1"] = {"command": command, "offset": len(socket.output)}
    again = await gateway.next()
    await again.connection.send(b"\n")
    await again.until(lambda: b"5000\n" in again.output)
    first = again.controls[0]
    assert isinstance(first, Attached)
    assert first.offset == len(socket.output)
    assert socket.output + again.output == b"".join(b"%d\n" % n for n in range(1, 5001))
    await again.connection.send(b"\n")
    assert await again.ended() == Exit(code=5, offset=len(socket.output) + len(again.output))
    await again.connection.close()
    async with asyncio.timeout(10):
        while len(host):
            await asyncio.sleep(0.01)


async def test_refusals_are_told_over_the_socket(gateway: Gateway, loop: PollLoop) -> None:
    gateway.pending["s1"] = {"login": "nobody"}
    end = await (await gateway.next()).ended()
    assert isinstance(end, Failure)
    assert end.code == "login_forbidden"
    gateway.pending["s2"] = {"offset": 7}
    end = await (await gateway.next()).ended()
    assert isinstance(end, Failure)
    assert end.code == "session_gone"


async def test_nonsense_is_skipped(gateway: Gateway, loop: PollLoop) -> None:
    for answer in ("text", {"a": 1}, None, [1, None, {}, {"session_id": "x"}, {"token": "x"}]):
        gateway.answer = answer
        seen = gateway.polls
        async with asyncio.timeout(10):
            while gateway.polls < seen + 2:
                await asyncio.sleep(0.005)
    gateway.answer = None
    gateway.pending["s1"] = {"command": "exit 1", "cols": "wide"}
    gateway.pending["s2"] = {"command": "exit 1"}
    socket = await gateway.next()
    assert isinstance(await socket.ended(), Exit)


async def test_an_outage_is_survived(gateway: Gateway, loop: PollLoop) -> None:
    gateway.fail = True
    async with asyncio.timeout(10):
        while gateway.polls < 3:
            await asyncio.sleep(0.005)
    gateway.fail = False
    gateway.pending["s1"] = {"command": "exit 0"}
    assert isinstance(await (await gateway.next()).ended(), Exit)


async def test_several_at_once_each_with_its_token(gateway: Gateway, loop: PollLoop) -> None:
    for number in range(5):
        gateway.pending[str(number)] = {"command": f"exit {number}"}
    ends = [await (await gateway.next()).ended() for _ in range(5)]
    assert sorted(end.code for end in ends if isinstance(end, Exit)) == [0, 1, 2, 3, 4]


async def test_a_refused_socket_starts_nothing(
    gateway: Gateway, host: TerminalHost, caplog: pytest.LogCaptureFixture
) -> None:
    dial = relay_dialler(gateway.url)
    loop = PollLoop(host, gateway.get, dial)
    gateway.answer = [{"session_id": "s1", "token": "wrong", "command": "exit 0"}]
    async with Supervisor("test") as supervisor:
        assert await loop.poll(supervisor) == 1
        async with asyncio.timeout(10):
            while len(supervisor):
                await asyncio.sleep(0.01)
    assert "wrong" not in caplog.text


async def test_dialling_errors_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        relay_dialler("gopher://x")
    with pytest.raises(Unavailable) as caught:
        await relay_dialler("http://127.0.0.1:1")("s", "secret-token")
    assert caught.value.code == "relay_unreachable"
    assert "secret-token" not in str(caught.value)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="HTTP 404") as caught:
            await relay_dialler(f"http://127.0.0.1:{port}")("s", "secret-token")
        assert "secret-token" not in str(caught.value)


async def test_waits_grow_with_failures_and_shrink_when_something_happens(
    host: TerminalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    async def get(path: str) -> Any:
        raise Unavailable("away")

    loop = PollLoop(host, get, relay_dialler("http://127.0.0.1:1"), jitter=jitter)
    async with Supervisor("test") as supervisor:
        await loop._pause()
        for _ in range(4):
            await loop.poll(supervisor)
            await loop._pause()
    assert asked == [(5.0, 6.5), (5.0, 10.0), (7.5, 15.0), (7.5, 15.0), (7.5, 15.0)]
