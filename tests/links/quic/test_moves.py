"""A client whose address changes keeps its link, and nobody else can take it along."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from typing import Any

import pytest

from tests.links.loops import (
    anyio_backend,  # noqa: F401
    quic_transports,
    read_all,
)
from tests.links.quic.test_quic_transport import cabled, send
from tests.links.test_pressure import MIB
from tests.links.test_transports import echo, until
from underpass.links.link import Link, Opening

MOVES = 10


def path_of(link: Link) -> Any:
    transport: Any = link._transport
    return transport._engine.path


@pytest.mark.parametrize("way", ["echo", "pour"])
async def test_ten_moves_lose_nothing(way: str) -> None:
    """Bulk both ways, or only from the gateway: all that is under way is lost, and it has to find
    the new address by itself."""
    enough = asyncio.Event()
    piece = os.urandom(50_000)
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def pour(stream: Any) -> None:
        while not enough.is_set():
            sent.update(piece)
            stream.write(piece)
            await stream.drain()
        await stream.write_eof()

    async def handler(opening: Opening) -> None:
        if way == "echo":
            await echo(opening)
        else:
            await pour(opening.accept())

    async with asyncio.timeout(100), cabled(handler) as (a, b, cable):
        stream = await a.open("x")
        path = path_of(b)
        moved = 0
        async with asyncio.TaskGroup() as group:
            if way == "echo":
                group.create_task(pour(stream))
            while data := await stream.read():
                got.update(data)
                if path.moves == moved < MOVES:
                    moved += 1
                    cable.move(f"127.0.0.{1 + moved % 7}")  # back to some, later
                elif path.moves == MOVES:
                    enough.set()
        assert got.digest() == sent.digest()
        assert path.moves == MOVES
        assert path.current[0] == f"127.0.0.{1 + MOVES % 7}"
        assert not a.closed
        assert not b.closed


class Thief:
    """Somebody who sees the packets, and sends copies from an address of their own."""

    def __init__(self, target: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.66", 0))
        self.sock.setblocking(False)
        self.target = ("127.0.0.1", target)
        self.seen: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.target)

    def gained(self) -> int:
        total = 0
        while True:
            try:
                total += len(self.sock.recv(65_536))
            except BlockingIOError:
                return total


@pytest.mark.parametrize("first", [True, False], ids=["before the original", "after it"])
async def test_copies_sent_from_elsewhere_do_not_take_the_link_along(first: bool) -> None:
    async with asyncio.timeout(60), cabled() as (a, b, cable):
        stream = await a.open("x")
        stream.write(b"x")
        assert await stream.read() == b"x"
        thief = Thief(cable.target)
        copied = 0

        def copy(data: bytes, outward: bool) -> bool:
            nonlocal copied
            if outward:
                copied += len(data)
                if first:
                    thief.send(data)
                else:
                    thief.seen.append(data)
            return False

        cable.lose = copy
        blob = os.urandom(MIB)
        async with asyncio.TaskGroup() as group:
            group.create_task(send(stream, blob))
            assert await read_all(stream) == blob
        cable.lose = lambda *_: False
        for data in thief.seen:
            thief.send(data)
        other = await a.open("y")
        other.write(b"still here")
        assert await other.read() == b"still here"
        assert path_of(b).moves == 0
        assert path_of(b).current[0] == "127.0.0.1"
        gained = thief.gained()
        if not first:
            assert gained == 0  # a repetition is nothing at all
        assert gained <= 3 * copied
        thief.sock.close()


async def test_packets_made_up_are_nothing() -> None:
    async with asyncio.timeout(30), cabled() as (a, b, cable):
        stream = await a.open("x")
        names: list[bytes] = []
        cable.lose = lambda data, outward: bool(outward and names.append(data[1:9]))
        stream.write(b"x")
        assert await stream.read() == b"x"
        await until(lambda: names)
        thief = Thief(cable.target)
        for size in (30, 200, 1200):
            thief.send(b"\x40" + names[-1] + os.urandom(size))
            thief.send(b"\x40" + os.urandom(size + 8))
        stream.write(b"y")
        assert await stream.read() == b"y"
        assert path_of(b).trial is None
        assert path_of(b).moves == 0
        assert thief.gained() == 0
        thief.sock.close()


async def test_a_question_that_is_lost_is_asked_again() -> None:
    async with asyncio.timeout(30), cabled() as (a, b, cable):
        stream = await a.open("x")
        stream.write(b"x")
        assert await stream.read() == b"x"
        cable.move("127.0.0.9")
        lost: list[bytes] = []
        cable.lose = lambda data, outward: not outward and len(lost) < 3 and not lost.append(data)
        stream.write(b"y")
        assert await stream.read() == b"y"
        await until(lambda: path_of(b).moves == 1)
        assert len(lost) == 3


async def test_nobody_moves_before_the_handshake_is_done() -> None:
    async with asyncio.timeout(30), quic_transports() as (_, far, _front):
        engine: Any = far._engine
        engine.settled = False
        fed: list[Any] = []
        engine.quic = type("Quic", (), {"receive_datagram": lambda *_: fed.append(_)})()
        far.received(b"\x40" * 40, 0, ("127.0.0.77", 7))
        assert not fed
        assert engine.path.trial is None
        engine.quic = far.quic
        engine.settled = True
