"""TCP mappings: what passes, who is turned away, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.entrypoints.world import (
    OWNER,
    World,
    after_the_end,
    ask,
    echo,
    mapping,
    serving,
    until,
    world,
)
from tests.gateway.gateways import AGENT_ID
from tests.links.loops import anyio_backend  # noqa: F401
from underpass.control.mapping import Limits, Source
from underpass.core import metrics
from underpass.gateway.entrypoints.admission import AddressRules
from underpass.wire.proxy_protocol import Decoder, encode_v1, encode_v2


async def open_port(here: World, **wanted: Any) -> int:
    opened = await here.tunnels.open(mapping(**wanted))
    assert opened.public_port is not None
    return opened.public_port


def refusals(reason: str) -> float:
    return metrics.MAPPING_REFUSALS.labels("tcp", reason)._value.get()


async def first_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the address it sees, and everything it read."""
    data = await reader.read(-1)
    writer.write(data)
    await writer.drain()


def _free_run(count: int) -> int:
    """The first of *count* ports in a row; not of those that come by themselves to whoever asks
    for any, which others take meanwhile."""
    for _ in range(100):
        first = 20_000 + secrets.randbelow(10_000)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")


class TestPassing:
    async def test_half_close_is_kept_both_ways(self) -> None:
        async with world() as here, serving(after_the_end) as target:
            port = await open_port(here, port=target)
            assert await ask(port, b"x" * 300_000) == b"300000:" + b"x" * 300_000
            await until(lambda: here.at_rest)

    async def test_the_target_may_end_first(self) -> None:
        got: list[bytes] = []

        async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.write_eof()
            got.append(await reader.read(-1))

        async with world() as here, serving(greets) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read(-1) == b"hello"
            writer.write(b"still here")
            writer.write_eof()
            await until(lambda: got)
            assert got == [b"still here"]
            writer.close()
            await until(lambda: here.at_rest)

    async def test_ipv6_and_ipv4_share_the_port(self) -> None:
        async with world() as here, serving(echo, "::1") as target:
            port = await open_port(here, port=target, target_host="::1")
            assert await ask(port, b"four") == b"four"
            assert await ask(port, b"six", "::1") == b"six"
            assert here.opened[0][0] == f"tcp:[::1]:{target}"

    async def test_a_range_leads_to_a_range(self) -> None:
        async with world() as here, serving(echo) as target:
            first = _free_run(3)
            source = Source(port=first, port_range=(first, first + 2))
            wanted = mapping(port=target - 2, source=source)
            await here.tunnels.open(wanted)
            assert await ask(first + 2, b"third") == b"third"
            assert here.opened[0][0] == f"tcp:127.0.0.1:{target}"

    async def test_a_unix_socket_behind_a_port(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        server = await asyncio.start_unix_server(echo, path)
        async with world() as here:
            port = await open_port(here, protocol="unix", target_path=str(path))
            here.around.rights._known.clear()
            with contextlib.suppress(ConnectionError):
                # The default policy allows no Unix sockets; the opening still gets there.
                assert await ask(port, b"x") == b""
            assert here.opened == [(f"unix:{path}", here.opened[0][1])]
        server.close()

    @pytest.mark.parametrize("compression", ["zstd", "adaptive"])
    async def test_compressed_on_the_way(self, compression: Any) -> None:
        async with world() as here, serving(after_the_end) as target:
            port = await open_port(here, port=target, compression=compression)
            assert await ask(port, b"y" * 200_000) == b"200000:" + b"y" * 200_000
            assert here.opened[0][1]["layers"] == {"compression": compression}

    async def test_the_agent_hears_for_whom_and_from_where(self) -> None:
        async with world() as here, serving(echo) as target:
            await ask(await open_port(here, port=target), b"x")
            ((_target, meta),) = here.opened
            assert meta["user"] == {"id": OWNER, "username": "bob"}
            assert meta["source"].startswith("127.0.0.1:")

    async def test_it_is_counted(self) -> None:
        async with world() as here, serving(after_the_end) as target:
            port = await open_port(here, port=target)
            await ask(port, b"x" * 1000)
            await until(lambda: here.at_rest)
            live = here.tunnels.live("m-1")
            assert (live.active, live.total_connections) == (0, 1)
            assert (live.bytes_sent, live.bytes_received) == (1000, 1005)
            await here.tunnels.flush()
            assert here.mappings.usage[0]["sent"] == 1000
            assert here.tunnels.live("m-1").bytes_sent == 0


class TestTurningAway:
    async def test_above_the_limit_not_a_byte(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, connections=1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"in")
            assert await reader.read(10) == b"in"
            before = refusals("limit")
            assert await ask(port, b"") == b""
            assert refusals("limit") == before + 1
            writer.close()
            await until(lambda: here.at_rest)
            assert await ask(port, b"again") == b"again"

    async def test_the_gateway_has_its_own_limit(self) -> None:
        async with world() as here, serving(echo) as target:
            here.around.connections.limit = 0
            assert await ask(await open_port(here, port=target), b"") == b""
            assert here.opened == []

    @pytest.mark.parametrize(
        ("lists", "passes"),
        [
            ({"allow_ips": ("127.0.0.0/8",)}, True),
            ({"allow_ips": ("10.0.0.0/8",)}, False),
            ({"deny_ips": ("127.0.0.1/32",)}, False),
            ({"allow_ips": ("127.0.0.0/8",), "deny_ips": ("127.0.0.1/32",)}, False),
        ],
    )
    async def test_address_lists(self, lists: Any, passes: bool) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, **lists)
            with contextlib.suppress(ConnectionError):
                assert await ask(port, b"x") == (b"x" if passes else b"")
            assert bool(here.opened) == passes

    async def test_an_agent_that_is_away_costs_no_wait(self) -> None:
        async with world(agent=False) as here:
            port = await open_port(here, port=1)
            before = refusals("agent_away")
            for _ in range(5):
                assert await ask(port, b"") == b""
            assert refusals("agent_away") == before + 5
            (event,) = here.events.named("stream.failed")  # one, however many knock
            assert event["object_id"] == "m-1"
            assert event["ip"] == "127.0.0.1"
            assert event["details"]["reason"] == "agent_away"
            here.link_agent()
            async with serving(echo) as target:
                await here.tunnels.change(mapping(port=target))
                assert await ask(port, b"back") == b"back"

    async def test_a_target_nobody_listens_on(self) -> None:
        async with world() as here:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                free = probe.getsockname()[1]
            before = refusals("unreachable")
            assert await ask(await open_port(here, port=free), b"") == b""
            assert refusals("unreachable") == before + 1

    async def test_an_owner_who_may_not(self) -> None:
        async with world() as here, serving(echo) as target:
            here.agents.allowed.clear()
            assert await ask(await open_port(here, port=target), b"") == b""
            assert here.opened == []
            (event,) = here.events.named("stream.denied")
            assert event["details"]["reason"] == "permission"

    async def test_a_port_somebody_has(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            async with world() as here:
                taken = other.getsockname()[1]
                with pytest.raises(Exception, match="in use") as error:
                    await open_port(here, port=1, source=Source(port=taken))
                assert error.value.code == "port_in_use"  # type: ignore[attr-defined]
                assert len(here.tunnels) == 0


class TestProxyProtocol:
    SOURCE = ("203.0.113.9", 4711)

    @pytest.mark.parametrize("version", ["v1", "v2"])
    async def test_the_target_hears_of_the_client(self, version: Any) -> None:
        async with world() as here, serving(first_line) as target:
            port = await open_port(here, port=target, proxy_protocol=version, compression="gzip")
            decoder = Decoder()
            header = decoder.feed(await ask(port, b"data"))
            assert header is not None
            assert header.source is not None
            assert header.source[0] == "127.0.0.1"
            assert header.destination == ("127.0.0.1", port)
            assert header.version == int(version[1])
            assert decoder.leftover == b"data"

    @pytest.mark.parametrize("encode", [encode_v1, encode_v2])
    async def test_and_of_the_one_behind_a_balancer(self, encode: Any) -> None:
        async with world() as here, serving(first_line) as target:
            port = await open_port(
                here, port=target, proxy_protocol="v2", accept_proxy_protocol=True
            )
            header = encode(self.SOURCE, ("198.51.100.1", 443))
            decoder = Decoder()
            got = decoder.feed(await ask(port, header + b"data"))
            assert got is not None
            assert got.source == self.SOURCE
            assert decoder.leftover == b"data"
            assert here.opened[0][1]["source"] == "203.0.113.9:4711"

    async def test_a_header_in_pieces(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, accept_proxy_protocol=True)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in encode_v2(self.SOURCE, ("198.51.100.1", 443)) + b"!":
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await reader.read(10) == b"!"
            writer.close()

    async def test_no_header_is_no_way_in(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, accept_proxy_protocol=True)
            for data in (b"GET / HTTP/1.1\r\n\r\n", b""):
                with contextlib.suppress(ConnectionError):
                    assert await ask(port, data) == b""
            assert here.opened == []
            await until(lambda: here.at_rest)

    async def test_a_silent_balancer_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.gateway.entrypoints.tcp.PROXY_TIMEOUT", 0.02)
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, accept_proxy_protocol=True)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read(-1) == b""
            writer.close()
            assert here.opened == []

    async def test_the_one_named_may_be_denied(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(
                here, port=target, accept_proxy_protocol=True, deny_ips=("203.0.113.0/24",)
            )
            with contextlib.suppress(ConnectionError):
                assert await ask(port, encode_v1(self.SOURCE, ("198.51.100.1", 443))) == b""
            assert here.opened == []

    async def test_only_listed_balancers_are_believed(self) -> None:
        header = encode_v1(self.SOURCE, ("198.51.100.1", 443))
        listed, others = AddressRules(["127.0.0.1"]), AddressRules(["192.0.2.1"])
        async with world(balancers=listed) as here, serving(echo) as target:
            port = await open_port(
                here, port=target, accept_proxy_protocol=True, allow_ips=("203.0.113.0/24",)
            )
            assert await ask(port, header + b"x") == b"x"
        async with world(balancers=others) as here, serving(echo) as target:
            port = await open_port(here, port=target, accept_proxy_protocol=True)
            # It comes by itself: what it claims is data.
            assert await ask(port, header + b"x") == header + b"x"
            assert here.opened[0][1]["source"].startswith("127.0.0.1:")

    async def test_nobody_is_believed_unasked(self) -> None:
        async with world() as here, serving(echo) as target:
            header = encode_v1(self.SOURCE, ("198.51.100.1", 443))
            assert await ask(await open_port(here, port=target), header) == header
            assert here.opened[0][1]["source"].startswith("127.0.0.1:")


class TestChanging:
    async def test_limits_change_and_connections_stay(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(10) == b"1"
            await here.tunnels.change(mapping(port=target, connections=1))
            assert await ask(port, b"") == b""
            writer.write(b"2")
            assert await reader.read(10) == b"2"
            writer.close()

    async def test_a_limit_that_comes_while_bytes_flow(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 50_000)
            assert await reader.readexactly(50_000)
            await here.tunnels.change(mapping(port=target, bandwidth=20_000, burst=1000))
            start = asyncio.get_running_loop().time()
            writer.write(b"y" * 11_000)
            assert await reader.readexactly(11_000) == b"y" * 11_000
            # 10 kB above the burst, 20 kB/s, each way by itself: the ways overlap.
            assert asyncio.get_running_loop().time() - start >= 0.45
            await here.tunnels.change(mapping(port=target))
            writer.write(b"z" * 1_000_000)
            assert await asyncio.wait_for(reader.readexactly(1_000_000), 5)
            writer.close()
            await until(lambda: here.at_rest)

    async def test_another_target_ends_what_led_to_the_old(self) -> None:
        async with world() as here, serving(echo) as one, serving(after_the_end) as two:
            port = await open_port(here, port=one)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(10) == b"1"
            await here.tunnels.change(mapping(port=two))
            with contextlib.suppress(ConnectionError):
                assert await reader.read(10) == b""
            writer.close()
            assert await ask(port, b"new") == b"3:new"

    async def test_who_may_not_come_any_more_is_cut(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(10) == b"1"
            await here.tunnels.change(mapping(port=target, deny_ips=("127.0.0.0/8",)))
            with contextlib.suppress(ConnectionError):
                assert await reader.read(10) == b""
            writer.close()
            await until(lambda: here.at_rest)

    async def test_closing_ends_connections_and_frees_the_port(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(10) == b"1"
            await here.tunnels.close("m-1", "deleted")
            with contextlib.suppress(ConnectionError):
                assert await reader.read(10) == b""
            writer.close()
            assert here.at_rest
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
            # Taken back at once, whatever still waits out its minutes.
            assert await open_port(here, port=target, source=Source(port=port)) == port
            assert await ask(port, b"x") == b"x"

    async def test_one_that_is_being_opened_is_ended_too(self) -> None:
        async with world() as here, serving(echo) as target:
            here.gate = asyncio.Event()
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: here.opened)
            await here.tunnels.close("m-1", "deleted")
            with contextlib.suppress(ConnectionError):
                assert await reader.read(10) == b""
            writer.close()
            here.gate.set()
            await until(lambda: here.at_rest)

    async def test_idle_connections_end_when_asked_for(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target, idle_timeout=100.0)
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: here.tunnels.live("m-1").total_connections)
            here.entry(mapping()).tick()
            assert here.tunnels.active == 1
            await here.tunnels.change(mapping(port=target, idle_timeout=0.01))
            await asyncio.sleep(0.02)
            here.entry(mapping()).tick()
            await until(lambda: here.at_rest)
            writer.close()


class TestTheMiddleOfAStorm:
    async def test_nothing_is_left_after_a_storm(self) -> None:
        async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(100)
            if data.startswith(b"reset"):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif data:
                writer.write(data)

        async with world() as here, serving(moody) as target:
            port = await open_port(here, port=target, connections=40)

            async def visit(number: int) -> None:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    if number % 5:
                        writer.write(b"reset" if number % 3 else b"hello")
                    if number % 5 and number % 7:
                        await reader.read(100)
                    if number % 2:
                        writer.transport.abort()
                    writer.close()

            for round_ in range(5):
                await asyncio.gather(*(visit(number) for number in range(100)))
                if round_ == 2:
                    await here.cut_agent(here.links[1])
                    here.link_agent()
            await until(lambda: here.at_rest)
            assert here.tunnels.live("m-1").active == 0
            assert len(here.entry(mapping())._supervisor) == 0

    async def test_one_stuck_reader_stops_nobody_else(self) -> None:
        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            for _ in range(64):
                writer.write(b"x" * 65536)
                await writer.drain()

        async with world() as here, serving(flood) as target:
            port = await open_port(here, port=target)
            stuck_reader, stuck = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            stuck.transport.pause_reading()
            stuck.write(b"!")
            results = await asyncio.gather(*(ask(port, b"!") for _ in range(10)))
            assert {len(result) for result in results} == {64 * 65536}
            stuck.transport.abort()
            del stuck_reader
            await until(lambda: here.at_rest)

    async def test_an_agent_that_dies_takes_connections_and_no_port(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(10) == b"1"
            await here.cut_agent(here.links[1])
            with contextlib.suppress(ConnectionError):
                assert await reader.read(10) == b""
            writer.close()
            assert await ask(port, b"") == b""
            here.link_agent()
            assert await ask(port, b"back") == b"back"


class TestGroups:
    OTHER = "22222222-2222-4222-8222-222222222222"

    async def test_a_group_shares_a_port(self) -> None:
        async with world() as here, serving(echo) as target:
            here.link_agent(self.OTHER)
            first = mapping(port=target, group="web")
            opened = await here.tunnels.open(first)
            second = replace(opened, id="m-2", target_agent_id=self.OTHER)
            await here.tunnels.open(second)
            port = opened.public_port
            assert port is not None
            for _ in range(4):
                assert await ask(port, b"x") == b"x"
            counts = [here.tunnels.live(name).total_connections for name in ("m-1", "m-2")]
            assert counts == [2, 2]
            await here.tunnels.close("m-1", "deleted")
            assert await ask(port, b"y") == b"y"  # the port stays with the other one
            await here.tunnels.close("m-2", "deleted")
            with pytest.raises(OSError):
                await ask(port, b"z")

    async def test_who_is_away_is_passed_over(self) -> None:
        async with world() as here, serving(echo) as target:
            opened = await here.tunnels.open(mapping(port=target, group="web"))
            away = replace(opened, id="m-2", target_agent_id=self.OTHER)
            await here.tunnels.open(away)
            for _ in range(4):
                assert await ask(opened.public_port or 0, b"x") == b"x"
            assert {target_meta[0] for target_meta in here.opened} == {f"tcp:127.0.0.1:{target}"}

    async def test_least_connections(self) -> None:
        async with world() as here, serving(echo) as target:
            here.link_agent(self.OTHER)
            wanted = mapping(port=target, group="web")
            balancing = replace(wanted.balancing, balance="least_connections")
            opened = await here.tunnels.open(replace(wanted, balancing=balancing))
            await here.tunnels.open(replace(opened, id="m-2", target_agent_id=self.OTHER))
            writers = []
            for _ in range(6):
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.public_port)
                writer.write(b"x")
                await reader.read(1)
                writers.append(writer)
            assert [here.tunnels.live(name).active for name in ("m-1", "m-2")] == [3, 3]
            for writer in writers:
                writer.close()


def test_the_limit_of_a_mapping_is_part_of_it() -> None:
    assert mapping(connections=3).limits == Limits(connections=3)
    assert mapping().target_agent_id == AGENT_ID
