"""Entry points as they are stored: opened at the start, tried again, counted, and cut in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from tests.gateway.entrypoints.world import (
    OWNER,
    World,
    ask,
    echo,
    mapping,
    serving,
    until,
    world,
)
from tests.gateway.gateways import AGENT_ID
from underpass.control.health import UNKNOWN
from underpass.control.mapping import Balancing, Health, MappingLive, Source
from underpass.core import metrics
from underpass.core.clock import ManualClock
from underpass.core.errors import Unavailable
from underpass.gateway import tunnels


async def connected(port: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    return reader, writer


async def over(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""


class TestStarting:
    async def test_everything_stored_is_open(self) -> None:
        async with world() as here, serving(echo) as target:
            here.mappings.stored = [mapping(port=target), mapping("udp", 9, id="m-2")]
            await here.tunnels.start()
            assert len(here.tunnels) == 2
            assert here.mappings.statuses == []
            assert metrics.MAPPINGS.labels("udp")._value.get() == 1
        assert metrics.MAPPINGS.labels("udp")._value.get() == 0

    async def test_what_failed_is_marked_and_tried_again(self) -> None:
        clock = ManualClock()
        async with world(clock=clock) as here, serving(echo) as target:
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = other.getsockname()[1]
                here.mappings.stored = [mapping(port=target, source=Source(port=port))]
                await here.tunnels.start()
                (failed,) = here.mappings.statuses
                assert failed[:2] == ("m-1", "error")
                assert "in use" in (failed[2] or "")
                clock.advance(1)
                await here.tunnels.retry()
                clock.advance(1)
                await here.tunnels.retry()  # the second wait is longer
                assert len(here.mappings.statuses) == 2
            clock.advance(1)
            await here.tunnels.retry()
            assert here.mappings.statuses[-1] == ("m-1", "active", None)
            assert await ask(port, b"y") == b"y"

    async def test_one_that_failed_before_and_works_now_is_told(self) -> None:
        async with world() as here:
            here.mappings.stored = [replace(mapping(port=1), status="error", error="?")]
            await here.tunnels.start()
            assert here.mappings.statuses == [("m-1", "active", None)]

    async def test_what_is_deleted_meanwhile_is_not_tried_again(self) -> None:
        clock = ManualClock()
        async with world(clock=clock) as here:
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = other.getsockname()[1]
                here.mappings.stored = [mapping(port=1, source=Source(port=port))]
                await here.tunnels.start()
            await here.tunnels.close("m-1", "deleted")
            clock.advance(100)
            await here.tunnels.retry()
            assert len(here.tunnels) == 0


class TestTheInterface:
    async def test_opening_twice_and_closing_the_unknown(self) -> None:
        async with world() as here:
            first = await here.tunnels.open(mapping(port=1))
            assert await here.tunnels.open(first) == first
            assert len(here.tunnels) == 1
            await here.tunnels.close("m-9", "who?")
            assert here.tunnels.live("m-9") == MappingLive()

    async def test_changing_what_is_not_open_opens_it(self) -> None:
        async with world() as here:
            await here.tunnels.change(mapping(port=1))
            assert len(here.tunnels) == 1

    async def test_an_agent_that_can_not_listen(self) -> None:
        async with world() as here:
            with pytest.raises(Unavailable):
                await here.tunnels.open(mapping(source=Source("agent", 5000, agent_id=AGENT_ID)))


class TestHealth:
    async def test_a_member_that_is_down_gets_nothing(self) -> None:
        clock = ManualClock()
        rules = Balancing(health=Health(interval=1.0, fall=1, rise=1))
        async with world(clock=clock) as here, serving(echo) as good:
            async with serving(echo) as bad:
                first = mapping(port=good, group="web", balancing=rules)
                opened = await here.tunnels.open(first)
                port = opened.public_port
                assert port is not None
                second = mapping(port=bad, group="web", id="m-2", balancing=rules)
                await here.tunnels.open(second)
                assert here.tunnels.live("m-2").health == UNKNOWN

            async def tried(state: str) -> None:
                clock.advance(2)
                here.tunnels.probes.tick()
                await until(lambda: not len(here.tunnels.probes._supervisor))
                status = here.tunnels.live("m-2").health
                assert status is not None
                assert status.state == state

            await tried("down")
            for _ in range(4):
                assert await ask(port, b"y") == b"y"
            assert here.entry(first).traffic.pending().connections == 4
            await until(lambda: here.events.named("mapping.health_changed"))
            back = await asyncio.start_server(echo, "127.0.0.1", bad)
            await tried("up")
            await here.tunnels.change(replace(second, balancing=Balancing()))
            assert here.tunnels.live("m-2").health is None
            await here.tunnels.close("m-1", "deleted")
            assert here.tunnels.probes.status("m-1") is None
            back.close()

    async def test_tries_are_made_by_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.gateway.tunnels.TICK", 0.01)
        async with world() as here, serving(echo) as target:
            await here.tunnels.start()
            rules = Balancing(health=Health(interval=1.0))
            await here.tunnels.open(mapping(port=target, balancing=rules))
            await until(lambda: (here.tunnels.live("m-1").health or UNKNOWN).state == "up")

    async def test_where_a_machine_listens_it_is_shown(self) -> None:
        async with world() as here:
            rules = Balancing(health=Health())
            source = Source("agent", 5000, agent_id=AGENT_ID)
            with pytest.raises(Unavailable):
                await here.tunnels.open(mapping(source=source, balancing=rules))
            assert here.tunnels.probes.status("m-1") is None


class TestUsage:
    async def test_it_is_written_and_what_could_not_be_is_kept(self) -> None:
        async with world() as here, serving(echo) as target:
            port = (await here.tunnels.open(mapping(port=target))).public_port
            assert port is not None
            await ask(port, b"12345")
            here.mappings.fails = True
            await here.tunnels.flush()
            here.mappings.fails = False
            await here.tunnels.flush()
            await here.tunnels.flush()
            (usage,) = here.mappings.usage
            assert (usage["connections"], usage["sent"], usage["received"]) == (1, 5, 5)
            assert usage["last_active_at"] is not None

    async def test_a_download_shows_while_it_runs(self) -> None:
        async with world() as here, serving(echo) as target:
            opened = await here.tunnels.open(mapping(port=target))
            _reader, writer = await connected(opened.public_port)
            live = here.tunnels.live("m-1")
            assert (live.active, live.bytes_sent, live.bytes_received) == (1, 1, 1)
            writer.close()

    async def test_the_end_is_written_too(self) -> None:
        async with world() as here, serving(echo) as target:
            opened = await here.tunnels.open(mapping(port=target))
            _reader, writer = await connected(opened.public_port)
            await here.tunnels.stop()
            assert here.mappings.usage[0]["sent"] == 1
            assert here.at_rest
            writer.close()

    async def test_the_end_waits_for_totals_that_are_being_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnels, "FLUSH", 0.0)
        monkeypatch.setattr(tunnels, "TICK", 0.0)
        async with world() as here, serving(echo) as target:
            port = (await here.tunnels.open(mapping(port=target))).public_port
            assert port is not None
            here.mappings.answers.clear()
            await here.tunnels.start()
            await ask(port, b"12345")
            await until(lambda: here.mappings.adding > 0)
            async with asyncio.TaskGroup() as group:
                group.create_task(here.tunnels.stop())
                for _ in range(20):
                    await asyncio.sleep(0)
                here.mappings.answers.set()
            assert sum(usage["sent"] for usage in here.mappings.usage) == 5
            assert sum(usage["received"] for usage in here.mappings.usage) == 5

    async def test_a_database_that_does_not_answer_does_not_hold_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnels, "STOP_TIMEOUT", 0.01)
        async with world() as here, serving(echo) as target:
            port = (await here.tunnels.open(mapping(port=target))).public_port
            assert port is not None
            await ask(port, b"12345")
            here.mappings.answers.clear()
            await here.tunnels.stop()
            assert here.at_rest
            assert here.mappings.usage == []


class TestLosingTheRight:
    async def watched(
        self, here: World, target: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        here.mappings.stored = []
        await here.tunnels.start()
        opened = await here.tunnels.open(mapping(port=target))
        return await connected(opened.public_port)

    async def test_news_of_the_machine_cut(self) -> None:
        async with world() as here, serving(echo) as target:
            reader, writer = await self.watched(here, target)
            here.agents.allowed.clear()
            here.bus.publish("agent", {"id": AGENT_ID, "change": "updated"})
            await over(reader)
            await until(lambda: here.events.named("stream.cut"))
            (event,) = here.events.named("stream.cut")
            assert event["object_id"] == "m-1"
            assert event["details"]["count"] == 1
            writer.close()

    async def test_news_of_the_owner_cut(self) -> None:
        async with world() as here, serving(echo) as target:
            reader, writer = await self.watched(here, target)
            here.users.rows[OWNER]["disabled"] = True
            here.bus.publish("user", {"id": OWNER, "reason": "disabled"})
            await over(reader)
            writer.close()
            del here.users.rows[OWNER]
            here.bus.publish("user", {"id": OWNER, "reason": "deleted"})
            assert await ask(here.entry(mapping()).mapping.public_port or 0, b"") == b""

    async def test_without_news_it_takes_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.gateway.tunnels.RECHECK", 0.02)
        monkeypatch.setattr("underpass.gateway.entrypoints.permission.MAX_AGE", 0.0)
        async with world() as here, serving(echo) as target:
            reader, writer = await self.watched(here, target)
            here.agents.allowed.clear()
            await over(reader)
            writer.close()

    async def test_a_database_that_is_away_cuts_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.gateway.tunnels.RECHECK", 0.02)
        monkeypatch.setattr("underpass.gateway.entrypoints.permission.MAX_AGE", 0.0)
        async with world() as here, serving(echo) as target:
            reader, writer = await self.watched(here, target)
            here.users.fails = True
            asked = here.users.asked
            await until(lambda: here.users.asked >= asked + 3)
            writer.write(b"y")
            assert await reader.read(1) == b"y"
            here.users.fails = False
            here.agents.allowed.clear()
            await over(reader)  # and the watch goes on
            writer.close()

    async def test_others_are_not_concerned(self) -> None:
        async with world() as here, serving(echo) as target:
            reader, writer = await self.watched(here, target)
            here.agents.allowed.add("u-3")
            here.bus.publish("agent", {"id": AGENT_ID, "change": "updated"})
            here.bus.publish("user", {"id": "u-3", "reason": "disabled"})
            await here.tunnels.recheck()
            writer.write(b"y")
            assert await reader.read(1) == b"y"
            writer.close()
