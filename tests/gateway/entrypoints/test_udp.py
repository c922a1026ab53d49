"""UDP mappings: one flow per source, boundaries, losses that end nothing, and the end of flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.entrypoints.world import UdpClient, UdpEcho, World, mapping, until, world
from tests.links.loops import anyio_backend  # noqa: F401
from underpass.control.mapping import Source
from underpass.core import metrics
from underpass.core.clock import ManualClock
from underpass.gateway.entrypoints.udp import UdpEntryPoint
from underpass.wire.proxy_protocol import Decoder


@asynccontextmanager
async def echoing(host: str = "127.0.0.1") -> AsyncIterator[UdpEcho]:
    made = UdpEcho(host)
    try:
        yield made
    finally:
        made.sock.close()


async def open_port(here: World, target: int, **options: Any) -> int:
    opened = await here.tunnels.open(mapping("udp", target, **options))
    assert opened.public_port is not None
    return opened.public_port


def drops(why: str) -> float:
    return metrics.DATAGRAMS_DROPPED.labels(why)._value.get()


class TestPassing:
    async def test_boundaries_and_sizes(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port))
            for data in (b"", b"x", b"y" * 1500, b"z" * 65_507):
                assert await client.ask(data) == data
            client.sock.close()

    async def test_a_flow_per_source(self) -> None:
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port)
            clients = [UdpClient(port) for _ in range(20)]
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            for number, client in enumerate(clients):
                assert await client.next() == b"%d" % number
            assert here.tunnels.live("m-1").active == 20
            assert len({address for _, address in target.heard}) == 20
            for client in clients:
                client.sock.close()

    async def test_ipv6(self) -> None:
        async with world() as here, echoing("::1") as target:
            port = await open_port(here, target.port, target_host="::1")
            four, six = UdpClient(port), UdpClient(port, "::1")
            assert await four.ask(b"four") == b"four"
            assert await six.ask(b"six") == b"six"
            four.sock.close()
            six.sock.close()

    async def test_compressed_on_the_way(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port, compression="zstd"))
            for size in (0, 10, 60_000):
                assert await client.ask(b"c" * size) == b"c" * size
            client.sock.close()

    async def test_each_datagram_names_the_client(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port, proxy_protocol="v2"))
            for data in (b"one", b"two"):
                decoder = Decoder()
                header = decoder.feed(await client.ask(data))
                assert header is not None
                assert (header.source, header.transport) == (client.address, "udp")
                assert decoder.leftover == data
            client.sock.close()

    async def test_answers_leave_from_where_the_client_sent_to(self) -> None:
        everywhere = Source(bind="0.0.0.0")
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port, source=everywhere, proxy_protocol="v2")
            for spoken_to in ("127.0.0.2", "127.0.0.3"):
                client = UdpClient(port, spoken_to)  # connected: deaf to any other address
                decoder = Decoder()
                header = decoder.feed(await client.ask(b"hello"))
                assert header is not None
                assert header.destination == (spoken_to, port)
                client.sock.close()

    async def test_it_is_counted(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port))
            await client.ask(b"x" * 1000)
            live = here.tunnels.live("m-1")
            assert (live.total_connections, live.bytes_sent, live.bytes_received) == (1, 1000, 1000)
            client.sock.close()


class TestLosing:
    async def test_an_oversize_datagram_does_not_end_the_flow(self) -> None:
        """IPv6 carries up to 65,527 bytes; a flow carries what IPv4 can."""
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port)
            client = UdpClient(port, "::1")
            assert await client.ask(b"before") == b"before"
            before = drops("size")
            client.send(b"z" * 65_520)
            await until(lambda: drops("size") == before + 1)
            assert await client.ask(b"after") == b"after"
            assert here.tunnels.live("m-1").dropped == 1
            assert here.tunnels.live("m-1").total_connections == 1
            client.sock.close()

    async def test_nobody_at_the_target_does_not_end_the_flow(self) -> None:
        async with world() as here:
            async with echoing() as gone:
                port = gone.port
            client = UdpClient(await open_port(here, port))
            for _ in range(5):
                client.send(b"anybody?")
                await asyncio.sleep(0.02)
            again = UdpEcho(port=port)
            assert await client.ask(b"now") == b"now"
            again.sock.close()
            assert len(here.opened) == 1
            assert here.tunnels.live("m-1").active == 1
            client.sock.close()

    async def test_what_comes_while_the_way_is_opened_waits_within_bounds(self) -> None:
        async with world() as here, echoing() as target:
            here.gate = asyncio.Event()
            client = UdpClient(await open_port(here, target.port))
            before = drops("opening")
            for number in range(100):
                client.send(b"%d" % number)
            await until(lambda: drops("opening") == before + 36)
            here.gate.set()
            assert [await client.next() for _ in range(64)] == [b"%d" % n for n in range(64)]
            client.sock.close()

    async def test_a_full_link_drops(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port))
            assert await client.ask(b"1") == b"1"
            entry = here.entry(mapping("udp"))
            assert isinstance(entry, UdpEntryPoint)
            (flow,) = entry._flows.values()

            class Full:
                full = True

            stream, flow._stream = flow._stream, Full()  # type: ignore[assignment]
            before = drops("full")
            client.send(b"2")
            await until(lambda: drops("full") == before + 1)
            flow._stream = stream
            assert await client.ask(b"3") == b"3"
            client.sock.close()

    async def test_above_the_bandwidth_datagrams_are_lost_and_no_more(self) -> None:
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port, bandwidth=1_000_000, burst=5000)
            client = UdpClient(port)
            assert await client.ask(b"1" * 1000) == b"1" * 1000
            before = drops("limit")
            for _ in range(50):
                client.send(b"2" * 1000)
            await until(lambda: drops("limit") > before)
            await here.tunnels.change(mapping("udp", target.port))
            while client.waiting:
                await client.next()
            assert await client.ask(b"3" * 1000) in (b"2" * 1000, b"3" * 1000)
            client.sock.close()


class TestTurningAway:
    async def test_so_many_flows_and_no_more(self) -> None:
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port, connections=1)
            first, second = UdpClient(port), UdpClient(port)
            assert await first.ask(b"1") == b"1"
            before = drops("places")
            second.send(b"2")
            await until(lambda: drops("places") == before + 1)
            assert await first.ask(b"3") == b"3"
            first.sock.close()
            second.sock.close()

    async def test_the_usual_caps(self) -> None:
        async with world() as here:
            await open_port(here, 1)
            assert here.entry(mapping("udp"))._places.limit == 1024
            await here.tunnels.change(mapping("udp", 1, connections=5000))
            assert here.entry(mapping("udp"))._places.limit == 5000

    async def test_all_flows_of_the_gateway(self) -> None:
        async with world() as here, echoing() as target:
            here.around.flows.limit = 0
            client = UdpClient(await open_port(here, target.port))
            before = drops("places")
            client.send(b"x")
            await until(lambda: drops("places") == before + 1)
            assert here.entry(mapping("udp"))._places.taken == 0
            client.sock.close()

    async def test_address_lists(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port, deny_ips=("127.0.0.0/8",)))
            before = drops("address")
            client.send(b"x")
            await until(lambda: drops("address") == before + 1)
            await here.tunnels.change(mapping("udp", target.port))
            assert await client.ask(b"y") == b"y"
            client.sock.close()

    async def test_an_agent_away_is_not_asked_for_every_datagram(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.gateway.entrypoints.udp._COOLING", 0.2)
        async with world(agent=False) as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port))
            refused = metrics.MAPPING_REFUSALS.labels("udp", "agent_away")._value.get
            before = refused()
            for _ in range(50):
                client.send(b"x")
            await until(lambda: here.events.named("stream.failed"))
            assert refused() == before + 1
            here.link_agent()
            await until(lambda: here.tunnels.active == 0)
            assert await client.ask(b"back") == b"back"
            client.sock.close()


class TestTheEnd:
    async def test_a_silent_flow_ends_and_a_busy_one_stays(self) -> None:
        clock = ManualClock()
        async with world(clock=clock) as here, echoing() as target:
            port = await open_port(here, target.port)
            busy, silent = UdpClient(port), UdpClient(port)
            await busy.ask(b"1")
            await silent.ask(b"1")
            entry = here.entry(mapping("udp"))
            entry.tick()
            for _ in range(3):
                clock.advance(25)
                await busy.ask(b"")  # nothing in it, and yet a datagram
                entry.tick()
                await asyncio.sleep(0)
            await until(lambda: here.tunnels.active == 1)
            assert await silent.ask(b"2") == b"2"  # begins a new flow
            assert here.tunnels.live("m-1").total_connections == 3
            entry.tick()
            clock.advance(61)
            entry.tick()
            await until(lambda: here.at_rest)
            busy.sock.close()
            silent.sock.close()

    async def test_the_time_is_the_mappings(self) -> None:
        clock = ManualClock()
        async with world(clock=clock) as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port, idle_timeout=5.0))
            await client.ask(b"1")
            here.entry(mapping("udp")).tick()
            clock.advance(5)
            here.entry(mapping("udp")).tick()
            await until(lambda: here.at_rest)
            client.sock.close()

    async def test_a_cut_cable_ends_flows_and_the_port_stays(self) -> None:
        async with world() as here, echoing() as target:
            client = UdpClient(await open_port(here, target.port))
            assert await client.ask(b"1") == b"1"
            await here.cut_agent(here.links[1])
            await until(lambda: here.tunnels.active == 0)
            here.link_agent()
            assert await client.ask(b"2") == b"2"
            client.sock.close()

    async def test_closing_ends_flows_and_frees_the_port(self) -> None:
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port)
            client = UdpClient(port)
            assert await client.ask(b"1") == b"1"
            await here.tunnels.close("m-1", "deleted")
            assert here.at_rest
            again = UdpEcho()
            again.sock.close()
            client.sock.close()

    async def test_nothing_is_left_after_a_storm(self) -> None:
        async with world() as here, echoing() as target:
            port = await open_port(here, target.port, connections=100)
            for _ in range(3):
                clients = [UdpClient(port) for _ in range(150)]
                for client in clients:
                    for size in (0, 100, 9000):
                        client.sock.send(b"s" * size)
                await asyncio.sleep(0.05)
                await here.cut_agent(here.links[-1])
                here.link_agent()
                for client in clients:
                    client.sock.close()

            def over() -> bool:
                # The kernel may still hold datagrams that begin a flow when they are read.
                for passage in tuple(here.entry(mapping("udp"))._passages):
                    passage.cut()
                return here.at_rest

            await until(over)
            entry = here.entry(mapping("udp"))
            assert isinstance(entry, UdpEntryPoint)
            assert entry._flows == {}
            assert len(entry._supervisor) == 0
