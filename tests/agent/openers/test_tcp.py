"""TCP and Unix targets: the address the policy allowed is the one dialled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any, ClassVar

import pytest

from underpass.agent.openers import dispatch
from underpass.agent.openers.tcp import (
    parse_tcp_target,
    system_resolve,
    tcp_opener,
    unix_opener,
)
from underpass.agent.policy import Policy
from underpass.agent.policy_file import parse_policy
from underpass.core.errors import InvalidRequest, Unavailable
from underpass.links.compression import compressed
from underpass.links.layers import Layers
from underpass.links.link import Link, OpenRefused
from underpass.links.memory import memory_links, memory_pair

ANY = parse_policy("allow: [{kind: tcp, hosts: ['*']}]")


@pytest.fixture
async def links() -> tuple[Link, Link]:
    agent, node = memory_links()
    agent.start()
    return agent, node


async def echo() -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):  # an aborted stream says so on the wire
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def through(node: Link, target: str, data: bytes = b"hello") -> bytes:
    stream = await node.open(target, {"user": {"username": "ada"}})
    stream.write(data)
    await stream.write_eof()
    got = b""
    while chunk := await stream.read():
        got += chunk
    await stream.close()
    return got


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "parsed"),
        [
            ("tcp:127.0.0.1:22", ("127.0.0.1", 22)),
            ("tcp:[::1]:65535", ("::1", 65535)),
            ("tcp:db.example:5432", ("db.example", 5432)),
        ],
    )
    def test_good(self, target: str, parsed: tuple[str, int]) -> None:
        assert parse_tcp_target(target) == parsed

    @pytest.mark.parametrize(
        "target",
        [
            "tcp:", "tcp:22", "tcp:h:", "tcp:h:0", "tcp:h:65536", "tcp:h:x", "tcp::22",
            "tcp:::1:22", "tcp:[]:22", "tcp:a b:22", "tcp:a\0:22", "udp:h:22", "tcp:h:²²",
            "tcp:" + "h" * 254 + ":22", "tcp:h:000022",
        ],
    )  # fmt: skip
    def test_bad(self, target: str) -> None:
        with pytest.raises(InvalidRequest) as error:
            parse_tcp_target(target)
        assert error.value.code == "invalid_target"


class TestTcp:
    async def test_bytes_and_half_close(self, links: tuple[Link, Link]) -> None:
        agent, node = links
        server, port = await echo()
        agent.on_open(dispatch({"tcp": tcp_opener(Policy())}))
        assert await through(node, f"tcp:127.0.0.1:{port}", b"x" * 300_000) == b"x" * 300_000
        assert await through(node, f"tcp:localhost:{port}") == b"hello"
        server.close()
        await agent.close()

    @pytest.mark.parametrize("compression", ["zstd", "gzip", "lz4", "adaptive"])
    async def test_layers_are_put_on(self, links: tuple[Link, Link], compression: Any) -> None:
        agent, node = links
        server, port = await echo()
        agent.on_open(dispatch({"tcp": tcp_opener(Policy())}))
        layers = Layers(compression)
        below = await node.open(f"tcp:127.0.0.1:{port}", layers.to_meta())
        stream = compressed(below, compression)
        stream.write(b"x" * 300_000)
        await stream.write_eof()
        got = 0
        while chunk := await stream.read():
            got += len(chunk)
        assert got == 300_000
        assert below.bytes_in < 150_000
        await stream.close()
        server.close()
        await agent.close()

    @pytest.mark.parametrize("layers", [{"compression": "rot13"}, [], {"new": 1}])
    async def test_layers_nobody_knows_are_refused(
        self, links: tuple[Link, Link], layers: Any
    ) -> None:
        agent, node = links
        agent.on_open(dispatch({"tcp": tcp_opener(Policy()), "unix": unix_opener(Policy())}))
        for target in ("tcp:127.0.0.1:1", "unix:/x"):
            with pytest.raises(OpenRefused) as refused:
                await node.open(target, {"layers": layers})
            assert refused.value.code == "invalid_layers"
        await agent.close()

    async def test_encryption_without_a_key_of_ours_is_refused(
        self, links: tuple[Link, Link]
    ) -> None:
        agent, node = links
        agent.on_open(dispatch({"tcp": tcp_opener(Policy()), "unix": unix_opener(Policy())}))
        for target in ("tcp:127.0.0.1:1", "unix:/x"):
            with pytest.raises(OpenRefused) as refused:
                await node.open(target, {"layers": {"e2e": True}})
            assert refused.value.code == "e2e_unavailable"
        await agent.close()

    async def test_the_address_decided_about_is_the_one_dialled(
        self, links: tuple[Link, Link]
    ) -> None:
        """DNS rebinding: the name changes its mind right after the decision."""
        agent, node = links
        answers = [["203.0.113.7"], ["127.0.0.1"]]
        dialled: list[str] = []

        async def resolve(_host: str, _port: int) -> list[str]:
            return answers.pop(0)

        async def connect(host: str, port: int, timeout: float) -> Any:
            dialled.append(host)
            raise Unavailable(f"{host}:{port} refused the connection.", code="connect_refused")

        agent.on_open(tcp_opener(ANY, resolve=resolve, connect=connect))
        with pytest.raises(OpenRefused) as refused:
            await node.open("tcp:rebinding.example:80")
        assert dialled == ["203.0.113.7"]
        assert len(answers) == 1
        # The person reads the name they gave, not what is behind it.
        assert refused.value.message == "rebinding.example:80 refused the connection."
        await agent.close()

    async def test_denied_addresses_of_a_name_are_left_out(self, links: tuple[Link, Link]) -> None:
        agent, node = links
        dialled: list[str] = []

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["169.254.169.254", "203.0.113.7", "::ffff:169.254.169.254", "203.0.113.8"]

        async def connect(host: str, port: int, timeout: float) -> Any:
            dialled.append(host)
            if host.endswith(".8"):
                near, _far = memory_pair()
                return near
            raise Unavailable("no", code="connect_failed")

        agent.on_open(tcp_opener(ANY, resolve=resolve, connect=connect))
        await node.open("tcp:mixed.example:80")
        assert dialled == ["203.0.113.7", "203.0.113.8"]
        await agent.close()

    @pytest.mark.parametrize(
        ("target", "code", "status"),
        [
            ("tcp:169.254.169.254:80", "policy_denied", 403),
            ("tcp:[fe80::1]:80", "policy_denied", 403),
            ("tcp:0.0.0.0:80", "policy_denied", 403),
            ("tcp:203.0.113.1:80", "policy_denied", 403),
            ("tcp:x", "invalid_target", 400),
            ("udp:h:53", "unknown_target", 501),
        ],
    )
    async def test_refusals(
        self, links: tuple[Link, Link], target: str, code: str, status: int
    ) -> None:
        agent, node = links
        agent.on_open(dispatch({"tcp": tcp_opener(Policy())}))
        with pytest.raises(OpenRefused) as refused:
            await node.open(target)
        assert (refused.value.code, refused.value.status) == (code, status)
        await agent.close()

    async def test_an_address_is_looked_at_once_and_a_name_every_time(
        self, links: tuple[Link, Link]
    ) -> None:
        agent, node = links
        resolved: list[str] = []
        dialled: list[tuple[str, int]] = []

        async def resolve(host: str, _port: int) -> list[str]:
            resolved.append(host)
            return ["203.0.113.7"] if "example" in host else [host]

        async def connect(host: str, port: int, timeout: float) -> Any:
            dialled.append((host, port))
            return memory_pair()[0]

        agent.on_open(tcp_opener(ANY, resolve=resolve, connect=connect))
        for _ in range(2):
            await node.open("tcp:203.0.113.7:80")
            await node.open("tcp:[2001:db8::1]:81")
            await node.open("tcp:rebinding.example:80")
            with pytest.raises(OpenRefused) as refused:
                await node.open("tcp:169.254.169.254:80")
            assert refused.value.code == "policy_denied"
        v4, v6 = ("203.0.113.7", 80), ("2001:db8::1", 81)
        assert dialled == [v4, v6, v4] * 2
        assert resolved.count("203.0.113.7") == resolved.count("2001:db8::1") == 1
        assert resolved.count("rebinding.example") == resolved.count("169.254.169.254") == 2
        await agent.close()

    async def test_resolving_can_fail(self, links: tuple[Link, Link]) -> None:
        agent, node = links
        failures: list[Any] = [socket.gaierror(-2, "Name or service not known"), UnicodeError(), []]

        async def resolve(_host: str, _port: int) -> list[str]:
            failure = failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure

        agent.on_open(tcp_opener(ANY, resolve=resolve))
        while failures:
            with pytest.raises(OpenRefused) as refused:
                await node.open("tcp:nowhere.example:80")
            assert refused.value.code == "resolve_failed"
        await agent.close()

    async def test_a_resolver_that_hangs_ends_by_the_deadline(
        self, links: tuple[Link, Link]
    ) -> None:
        agent, node = links

        async def resolve(_host: str, _port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

        agent.on_open(tcp_opener(ANY, resolve=resolve, timeout=0.05))
        with pytest.raises(OpenRefused) as refused:
            await node.open("tcp:h:80")
        assert refused.value.code == "connect_timeout"
        await agent.close()

    async def test_nobody_listens(self, links: tuple[Link, Link]) -> None:
        agent, node = links
        server, port = await echo()
        server.close()
        await server.wait_closed()
        agent.on_open(tcp_opener(Policy()))
        with pytest.raises(OpenRefused) as refused:
            await node.open(f"tcp:127.0.0.1:{port}")
        assert refused.value.code == "connect_refused"
        await agent.close()

    async def test_the_cap_counts_what_is_open(self, links: tuple[Link, Link]) -> None:
        agent, node = links
        server, port = await echo()
        agent.on_open(tcp_opener(Policy(), max_streams=1))
        stream = await node.open(f"tcp:127.0.0.1:{port}")
        with pytest.raises(OpenRefused) as refused:
            await node.open(f"tcp:127.0.0.1:{port}")
        assert (refused.value.code, refused.value.status) == ("too_many_streams", 429)
        stream.abort()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await through(node, f"tcp:127.0.0.1:{port}") == b"hello"
                    break
                except OpenRefused:
                    await asyncio.sleep(0.01)
        server.close()
        await agent.close()

    async def test_an_opening_that_was_cancelled_leaves_no_socket(
        self, links: tuple[Link, Link]
    ) -> None:
        agent, node = links
        server, port = await echo()
        near, _far = memory_pair()

        class Answered:
            target = f"tcp:127.0.0.1:{port}"
            meta: ClassVar[dict[str, Any]] = {}

            def accept(self) -> Any:
                raise RuntimeError("answered already")

        async def connect(host: str, at: int, timeout: float) -> Any:
            return near

        with pytest.raises(RuntimeError):
            await tcp_opener(Policy(), connect=connect)(Answered())  # type: ignore[arg-type]
        assert near.closed
        server.close()
        await agent.close()
        await node.close()

    async def test_the_systems_resolver(self) -> None:
        assert "127.0.0.1" in await system_resolve("localhost", 80)


class TestUnix:
    async def test_links_are_resolved_before_the_decision(
        self, links: tuple[Link, Link], tmp_path: Path
    ) -> None:
        agent, node = links
        (tmp_path / "open").mkdir()
        (tmp_path / "secret").mkdir()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        servers = [
            await asyncio.start_unix_server(serve, tmp_path / "open" / "a.sock"),
            await asyncio.start_unix_server(serve, tmp_path / "secret" / "b.sock"),
        ]
        (tmp_path / "open" / "b.sock").symlink_to(tmp_path / "secret" / "b.sock")
        policy = parse_policy(f"allow: [{{kind: unix, paths: ['{tmp_path}/open/*']}}]")
        agent.on_open(dispatch({"unix": unix_opener(policy)}))
        assert await through(node, f"unix:{tmp_path}/open/a.sock") == b"hello"
        for path, code in (
            (f"{tmp_path}/open/b.sock", "policy_denied"),
            (f"{tmp_path}/open/../secret/b.sock", "policy_denied"),
            (f"{tmp_path}/secret/b.sock", "policy_denied"),
            (f"{tmp_path}/open/none.sock", "connect_failed"),
            ("relative", "invalid_target"),
            ("", "invalid_target"),
        ):
            with pytest.raises(OpenRefused) as refused:
                await node.open(f"unix:{path}")
            assert refused.value.code == code, path
        for server in servers:
            server.close()
        await agent.close()
