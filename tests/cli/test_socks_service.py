"""Connections of ``underpass socks``: carried, refused with the right answer, and datagrams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.links.loops import read_all, socket_pair
from underpass.cli.socks_association import SocksAssociation
from underpass.cli.socks_service import SocksService
from underpass.core.errors import Forbidden, Unavailable, UnderpassError
from underpass.links.datagram_socket import DatagramSocket
from underpass.links.memory import memory_pair
from underpass.links.stream import Stream, StreamReset
from underpass.wire.datagrams import MAX_ADDRESSED, DatagramDecoder, encode
from underpass.wire.socks5 import ClientHandshake, build_udp, encode_address, parse_udp

CONNECT = b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"


class Machine:
    """What is opened, and the far ends of it."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, bool]] = []
        self.ends: list[Stream] = []
        self.failure: UnderpassError | None = None

    async def __call__(self, target: str, *, resume: bool = True) -> Stream:
        self.targets.append((target, resume))
        if self.failure is not None:
            raise self.failure
        near, far = memory_pair()
        self.ends.append(far)
        return near


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0)


async def test_a_connection_is_carried() -> None:
    machine = Machine()
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        client.write(CONNECT + b"ahead")
        await until(lambda: machine.ends)
        assert machine.targets == [("tcp:db:5432", True)]
        assert await machine.ends[0].read() == b"ahead"
        machine.ends[0].write(b"answer")
        machine.ends[0].finish()
        await client.write_eof()
        assert (await read_all(client)).endswith(b"\r\n\r\nanswer")
        await serving


async def test_a_refusal_is_answered_and_told() -> None:
    machine = Machine()
    machine.failure = Forbidden("Not there.")
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        client.write(CONNECT)
        assert (await read_all(client)).startswith(b"HTTP/1.1 403 ")
        await client.close()
        with pytest.raises(Forbidden):
            await serving


async def test_an_abrupt_end_is_told() -> None:
    machine = Machine()
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        client.write(CONNECT)
        await until(lambda: machine.ends)
        machine.ends[0].abort("resume_expired")
        with pytest.raises(UnderpassError) as caught:
            await serving
        assert caught.value.code == "resume_expired"


class Program:
    """A program that sends datagrams through the proxy."""

    def __init__(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self.got: list[tuple[str, int, bytes]] = []
        self.socket = DatagramSocket(sock, lambda data, _: self.got.append(parse_udp(data)))


async def associate(client: Stream) -> tuple[str, int]:
    handshake = ClientHandshake("0.0.0.0", 0, command="udp_associate")
    while True:
        client.write(handshake.data_to_send())
        if found := handshake.feed(await client.read()):
            return found[0].host, found[0].port


async def test_datagrams_go_both_ways_and_survive_their_stream() -> None:
    machine, program, stranger = Machine(), Program(), Program()
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        where = await associate(client)
        assert machine.targets == [("udp", False)]
        for number in range(2):
            await until(lambda: len(machine.ends) == number + 1)  # noqa: B023
            far = machine.ends[-1]
            decoder = DatagramDecoder(MAX_ADDRESSED)
            program.socket.send(build_udp("h", 53, b"ask"), where)
            payloads = decoder.feed(await far.read())
            assert payloads == [encode_address("h", 53) + b"ask"]
            stranger.socket.send(build_udp("h", 53, b"evil"), where)
            program.socket.send(b"\0\0\1fragment", where)
            far.write(encode(encode_address("192.0.2.1", 53) + b"answer"))
            await until(lambda: len(program.got) == number + 1)  # noqa: B023
            assert program.got[-1] == ("192.0.2.1", 53, b"answer")
            far.abort("link_lost")
        assert stranger.got == []
        await until(lambda: len(machine.ends) == 3)
        machine.ends[-1].write(b"\xff\xff" + bytes(10))  # incomplete: waits for more
        await client.close()
        await serving
        assert machine.ends[-1].closed or await gone(machine.ends[-1])
    program.socket.close()
    stranger.socket.close()


async def test_a_datagram_sent_with_the_first_breath_is_not_lost() -> None:
    machine, program = Machine(), Program()
    async with socket_pair() as (control, server):
        association = SocksAssociation(server, machine)
        program.socket.send(build_udp("h", 53, b"early"), association.open("127.0.0.1"))
        await asyncio.sleep(0.05)  # long there, and nobody has opened the way yet
        near, far = memory_pair()
        running = asyncio.create_task(association.run(near))
        (payload,) = DatagramDecoder(MAX_ADDRESSED).feed(await asyncio.wait_for(far.read(), 5))
        assert payload == encode_address("h", 53) + b"early"
        assert association.dropped == 0
        await control.close()
        await running
    program.socket.close()


async def gone(stream: Stream) -> bool:
    try:
        while await stream.read():
            pass
    except StreamReset:
        return True
    return False


async def test_no_other_stream_ends_the_association() -> None:
    machine = Machine()
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        await associate(client)
        machine.failure = Unavailable("no way", code="open_timeout")
        machine.ends[0].finish()
        with pytest.raises(UnderpassError) as caught:
            await serving
        assert caught.value.code == "open_timeout"
        assert server.closed


async def test_refused_associations() -> None:
    machine = Machine()
    machine.failure = Forbidden("No UDP.")
    async with socket_pair() as (client, server):
        serving = asyncio.create_task(SocksService(machine, None, "127.0.0.1").serve(server))
        with pytest.raises(UnderpassError):
            await associate(client)
        await client.close()
        with pytest.raises(Forbidden):
            await serving
    async with socket_pair() as (_, server):
        with pytest.raises(Unavailable):
            SocksAssociation(server, machine).open("192.0.2.1")
