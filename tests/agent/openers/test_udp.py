"""UDP targets: boundaries, sizes, losses that end nothing, and the policy for every address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.links.loops import anyio_backend  # noqa: F401
from underpass.agent.openers import dispatch
from underpass.agent.openers.udp import udp_opener
from underpass.agent.openers.udp_association import Association
from underpass.agent.policy import Policy
from underpass.agent.policy_file import parse_policy
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.link import Link, OpenRefused
from underpass.links.memory import memory_links, memory_pair
from underpass.links.stream import Stream, StreamReset
from underpass.wire.datagrams import MAX_ADDRESSED, DatagramDecoder, encode
from underpass.wire.socks5 import decode_address, encode_address


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


class Echo:
    """Answers every datagram with itself; remembers who asked."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.asked: list[tuple[bytes, Any]] = []
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, port))
        self.port = sock.getsockname()[1]
        self.sock = DatagramSocket(sock, self._received)

    def _received(self, data: bytes, address: Address) -> None:
        self.asked.append((data, address))
        self.sock.send(data, address)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    yield made
    made.sock.close()


@pytest.fixture
async def node() -> AsyncIterator[Link]:
    agent, node = memory_links()
    agent.on_open(dispatch({"udp": udp_opener(Policy())}))
    agent.start()
    yield node
    await agent.close()
    await node.close()


class Reader:
    """Datagrams out of a stream."""

    def __init__(self, stream: Stream, limit: int = 65_507) -> None:
        self.stream = stream
        self.decoder = DatagramDecoder(limit)
        self.ready: list[bytes] = []

    async def next(self) -> bytes:
        async with asyncio.timeout(5):
            while not self.ready:
                data = await self.stream.read()
                assert data, "the flow ended"
                self.ready += self.decoder.feed(data)
        return self.ready.pop(0)


class TestOneAddress:
    async def test_boundaries_and_sizes(self, node: Link, echo: Echo) -> None:
        stream = await node.open(f"udp:127.0.0.1:{echo.port}")
        answers = Reader(stream)
        for data in (b"", b"x", b"y" * 1500, b"z" * 65_507):
            stream.write(encode(data))
            assert await answers.next() == data
        stream.abort()

    async def test_nobody_listening_ends_nothing(self, node: Link) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        stream = await node.open(f"udp:127.0.0.1:{port}")
        answers = Reader(stream)
        for _ in range(5):
            stream.write(encode(b"anybody?"))
            await asyncio.sleep(0.005)
        echo = Echo(port=port)
        stream.write(encode(b"now"))
        assert await answers.next() == b"now"
        echo.sock.close()
        stream.abort()

    async def test_nobody_else_is_heard(self, node: Link, echo: Echo) -> None:
        stream = await node.open(f"udp:127.0.0.1:{echo.port}")
        stream.write(encode(b"hello"))
        answers = Reader(stream)
        assert await answers.next() == b"hello"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"injected", echo.asked[0][1])
        stream.write(encode(b"bye"))
        assert await answers.next() == b"bye"
        stream.abort()

    async def test_ipv6(self, node: Link) -> None:
        echo = Echo("::1")
        stream = await node.open(f"udp:[::1]:{echo.port}")
        stream.write(encode(b"six"))
        assert await Reader(stream).next() == b"six"
        echo.sock.close()
        stream.abort()

    async def test_a_length_nobody_can_send_resets(self, node: Link, echo: Echo) -> None:
        stream = await node.open(f"udp:127.0.0.1:{echo.port}")
        stream.write(b"\xff\xff")
        with pytest.raises(StreamReset) as reset:
            await stream.read()
        assert reset.value.code == "bad_datagram"

    async def test_the_end_gives_the_socket_back(self, echo: Echo) -> None:
        agent, node = memory_links()
        opener = udp_opener(Policy(), max_flows=1)
        agent.on_open(opener)
        agent.start()
        for _ in range(3):  # a place is free again each time
            stream = await node.open(f"udp:127.0.0.1:{echo.port}")
            with pytest.raises(OpenRefused) as refused:
                await node.open(f"udp:127.0.0.1:{echo.port}")
            assert refused.value.code == "too_many_streams"
            await stream.write_eof()
            assert await stream.read() == b""
            await until(lambda: not agent.streams)
        await agent.close()
        await node.close()

    @pytest.mark.parametrize(
        ("target", "code"),
        [
            ("udp:203.0.113.1:53", "policy_denied"),
            ("udp:169.254.169.254:53", "policy_denied"),
            ("udp:0.0.0.0:53", "policy_denied"),
            ("udp:127.0.0.1", "invalid_target"),
            ("udp:127.0.0.1:0", "invalid_target"),
            ("udp:no.such.name.invalid:53", "resolve_failed"),
        ],
    )
    async def test_refusals(self, node: Link, target: str, code: str) -> None:
        with pytest.raises(OpenRefused) as refused:
            await node.open(target)
        assert refused.value.code == code

    async def test_the_address_decided_about_is_the_one_used(self, echo: Echo) -> None:
        answers = [["127.0.0.1"], ["169.254.169.254"]]

        async def resolve(_host: str, _port: int) -> list[str]:
            return answers.pop(0)

        agent, node = memory_links()
        agent.on_open(udp_opener(parse_policy("allow: [{kind: udp}]"), resolve=resolve))
        agent.start()
        stream = await node.open(f"udp:rebinding.example:{echo.port}")
        stream.write(encode(b"1"))
        assert await Reader(stream).next() == b"1"
        with pytest.raises(OpenRefused) as refused:
            await node.open(f"udp:rebinding.example:{echo.port}")
        assert refused.value.code == "policy_denied"
        await agent.close()
        await node.close()


def to(host: str, port: int, data: bytes) -> bytes:
    return encode(encode_address(host, port) + data, limit=MAX_ADDRESSED)


@pytest.fixture
def names() -> Iterator[dict[str, list[str]]]:
    yield {"echo.example": ["127.0.0.1"], "bad.example": ["169.254.169.254"]}


class Asked:
    """An association on one end of a pair, its stream's other end in hand."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.questions: list[str] = []
        self.gate: asyncio.Event | None = None

        async def resolve(host: str, _port: int) -> list[str]:
            self.questions.append(host)
            if self.gate is not None:
                await self.gate.wait()
            if host in names:
                return names[host]
            if host.replace(".", "").isdigit() or ":" in host:
                return [host]
            raise OSError("no such name")

        self.association = Association(Policy(), resolve, 5.0)
        self.stream, far = memory_pair()
        self.answers = Reader(self.stream, MAX_ADDRESSED)
        self.task = asyncio.get_running_loop().create_task(self.association.run(far))

    async def answer(self) -> tuple[str, int, bytes]:
        payload = await self.answers.next()
        host, port, end = decode_address(payload)
        return host, port, payload[end:]

    async def end(self) -> None:
        self.stream.finish()
        await self.task
        await self.association.close()


@pytest.fixture
async def asked(names: dict[str, list[str]]) -> AsyncIterator[Asked]:
    made = Asked(names)
    await asyncio.sleep(0)
    yield made
    await made.end()


class TestManyAddresses:
    async def test_each_datagram_goes_where_it_says(self, asked: Asked, echo: Echo) -> None:
        other = Echo()
        asked.stream.write(to("127.0.0.1", echo.port, b"one"))
        assert await asked.answer() == ("127.0.0.1", echo.port, b"one")
        asked.stream.write(to("echo.example", other.port, b"two"))
        assert await asked.answer() == ("127.0.0.1", other.port, b"two")
        asked.stream.write(to("127.0.0.1", echo.port, b"z" * 65_507))
        assert (await asked.answer())[2] == b"z" * 65_507
        other.sock.close()

    async def test_a_name_is_asked_for_once(self, asked: Asked, echo: Echo) -> None:
        asked.gate = asyncio.Event()
        for number in range(20):  # four more than may wait for the answer
            asked.stream.write(to("echo.example", echo.port, b"%d" % number))
        await until(lambda: asked.questions)
        asked.gate.set()
        for number in range(16):
            assert (await asked.answer())[2] == b"%d" % number
        asked.stream.write(to("echo.example", echo.port, b"later"))
        assert (await asked.answer())[2] == b"later"
        assert asked.questions == ["echo.example"]
        assert asked.association.dropped == 4

    async def test_what_may_not_be_is_dropped_alone(self, asked: Asked, echo: Echo) -> None:
        for bad in (
            to("bad.example", 53, b"x"),
            to("203.0.113.1", 53, b"x"),
            to("no.example", 53, b"x"),
            to("127.0.0.1", 0, b"x"),
            encode(b"\x09rubbish"),
            encode(b""),
        ):
            asked.stream.write(bad)
        asked.stream.write(to("127.0.0.1", echo.port, b"still here"))
        assert (await asked.answer())[2] == b"still here"
        await until(lambda: asked.association.dropped == 6)

    async def test_strangers_are_not_heard(self, asked: Asked, echo: Echo) -> None:
        asked.stream.write(to("127.0.0.1", echo.port, b"hello"))
        await asked.answer()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"injected", ("127.0.0.1", echo.asked[0][1][1]))
        await until(lambda: asked.association.dropped == 1)
        asked.stream.write(to("127.0.0.1", echo.port, b"bye"))
        assert (await asked.answer())[2] == b"bye"

    async def test_over_a_link(self, node: Link, echo: Echo) -> None:
        stream = await node.open("udp")
        stream.write(to("127.0.0.1", echo.port, b"hi"))
        _host, port, end = decode_address(payload := await Reader(stream, MAX_ADDRESSED).next())
        assert (port, payload[end:]) == (echo.port, b"hi")
        await stream.write_eof()
        assert await stream.read() == b""
