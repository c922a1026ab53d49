"""The two programs of the links benchmark: a gateway and an agent made of the product's own links.

``gateway`` listens for one link and on one port per target, ``agent`` dials it and opens what it is
asked to. No handshake: what is measured is what comes after it. The gateway says on stdout where
it listens, then takes commands on stdin, one per line, and answers each with a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from underpass.core.errors import UnderpassError
from underpass.core.garbage import settle
from underpass.core.supervisor import Supervisor
from underpass.links.carriers.holder import CARRIER, Carriers
from underpass.links.carriers.pool import SpareDesk, SparePool
from underpass.links.carriers.preface import SPARE_PREFACE
from underpass.links.link import Link, Opening, Peer
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.stream import Stream
from underpass.links.transports.connection import StreamTransport, adopt, connect
from underpass.links.transports.websocket import accept_websocket, connect_websocket

PATH = "/api/v1/link"
KEY = bytes(32)
"""Of the spares; there is no handshake here to make one."""
AGENT = Peer("agent", "bench", "bench", None, "0", frozenset())
DEDICATED = ("dedicated", "dedicated-copied")
"""A link over TCP with spares beside it; the second relays without splicing."""


class Upgrade(asyncio.Protocol):
    """Looks at the first bytes of a connection and makes it a WebSocket link."""

    def __init__(self, accepted: Any) -> None:
        self._accepted = accepted

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._accepted(accept_websocket(self._transport, data, PATH))


class FirstBytes(asyncio.Protocol):
    """Tells spares from the link."""

    def __init__(self, accepted: Any, desk: SpareDesk) -> None:
        self._accepted = accepted
        self._desk = desk

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(SPARE_PREFACE):
            self._desk.take(self._transport, data)
        else:
            self._accepted(adopt(self._transport, "tcp", data))


OPENED: Counter[str] = Counter()
"""How many streams went which way."""


async def open_stream(link: Link, pool: SparePool | None, target: str, interactive: bool) -> Stream:
    """A stream on a spare when there is one; what somebody types goes in the link, as always."""
    spare = pool.take() if pool is not None and not interactive else None
    OPENED["link" if spare is None else "spare"] += 1
    if spare is None:
        return await link.open(target, interactive=interactive)
    stream = spare.claim()
    try:
        stream.hold(await link.open(target, {CARRIER: spare.ticket}))
    except BaseException:
        stream.abort()
        raise
    return stream


async def run_gateway(carrier: str, targets: list[str], state: Path) -> None:
    """Wait for a link, forward one port per target over it, take commands."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Any] = loop.create_future()
    desk = SpareDesk()
    tls = None
    if carrier == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(state / "cert.pem", state / "key.pem")

    class Accepting(StreamTransport):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            arrived.set_result(self)

    def factory() -> asyncio.Protocol:
        if carrier == "websocket":
            return Upgrade(arrived.set_result)
        if carrier in DEDICATED:
            return FirstBytes(arrived.set_result, desk)
        return Accepting("tls" if tls else "tcp")

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls, backlog=1024)
    say({"link": server.sockets[0].getsockname()[1]})
    async with asyncio.timeout(20):
        transport = await arrived
    if carrier == "websocket":
        await transport.upgraded()
    link = Link(transport, AGENT, dialler=False)
    link.start()
    pool = desk.open(link, KEY) if carrier in DEDICATED else None

    users = Supervisor("users")

    async def forward(user: SocketStream, target: str, interactive: bool) -> None:
        try:
            stream = await open_stream(link, pool, target, interactive)
        except UnderpassError as error:
            user.abort(error.code)
            return
        await relay(user, stream, splice=carrier != "dedicated-copied")

    def user_factory(target: str, interactive: bool) -> Any:
        def connected(stream: SocketStream) -> None:
            users.start(forward(stream, target, interactive), target)

        return lambda: SocketStream(connected)

    ports: list[int] = []
    listeners: list[Any] = []
    for target in targets:
        name, _, kind = target.partition("!")
        listener = await loop.create_server(
            user_factory(name, kind == "interactive"), "127.0.0.1", 0, backlog=4096
        )
        listeners.append(listener)
        ports.append(listener.sockets[0].getsockname()[1])
    say({"ports": ports})
    settle()
    await take_commands(link)
    await link.close()
    await users.close()


async def take_commands(link: Link) -> None:
    """Answer the benchmark until it closes our stdin."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        command, _, argument = line.decode().strip().partition(" ")
        if command == "streams":
            say({"per_second": await count_streams(link, float(argument))})
        elif command == "opened":
            say(dict(OPENED))
            OPENED.clear()
        elif command == "rtt":
            say({"rtt": link.rtt})


async def count_streams(link: Link, seconds: float) -> float:
    """Open, accept and close streams as fast as 64 tasks can; streams per second."""
    started = time.perf_counter()
    done = 0

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            stream = await link.open("nothing")
            await stream.close()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(one_after_another())
    return done / (time.perf_counter() - started)


async def run_agent(carrier: str, port: int, state: Path) -> None:
    """Dial the gateway and open what it asks for."""
    transport: Any
    if carrier == "websocket":
        transport = await connect_websocket(f"ws://127.0.0.1:{port}{PATH}")
    elif carrier == "tls":
        tls = ssl.create_default_context(cafile=str(state / "cert.pem"))
        transport = await connect("127.0.0.1", port, tls=tls, server_hostname="localhost")
    else:
        transport = await connect("127.0.0.1", port)
    node = Peer("node", "bench", "bench", f"127.0.0.1:{port}", "0", frozenset())
    link = Link(transport, node, dialler=True)

    async def opener(opening: Opening) -> None:
        if opening.target == "nothing":
            await opening.accept().close()
            return
        _, host, number = opening.target.split(":")
        service = await connect_tcp(host, int(number))
        await relay(opening.accept(), service, splice=carrier != "dedicated-copied")

    async with Carriers() as carriers:
        link.on_open(carriers.serve(link, KEY, opener) if carrier in DEDICATED else opener)
        link.start()
        settle()
        await link.wait_closed()


def say(answer: dict[str, Any]) -> None:
    """One line of JSON to whoever started us."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Run as a child of the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["gateway", "agent"])
    parser.add_argument("carrier", choices=["tcp", "tls", "websocket", *DEDICATED])
    parser.add_argument("--state", type=Path, required=True, help="holds cert.pem and key.pem")
    parser.add_argument("--port", type=int, default=0, help="agent: where the gateway waits")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--target", dest="targets", action="append", default=[])
    asked = parser.parse_args()
    runner = uvloop.run if asked.loop == "uvloop" else asyncio.run
    if asked.role == "gateway":
        runner(run_gateway(asked.carrier, asked.targets, asked.state))
    else:
        runner(run_agent(asked.carrier, asked.port, asked.state))


if __name__ == "__main__":
    main()
