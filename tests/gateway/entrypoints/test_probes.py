"""Tries of real targets through an agent: what counts as well, and what is made of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.entrypoints.world import (
    OWNER,
    World,
    echo,
    mapping,
    serving,
    until,
    world,
)
from underpass.control.health import Health, HealthState, HealthStatus
from underpass.control.mapping import Balancing, Mapping
from underpass.core import metrics
from underpass.core.clock import ManualClock
from underpass.gateway.entrypoints import probes as probes_module
from underpass.gateway.entrypoints.probes import Probes

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def tried(port: int, id: str = "m-1", **more: Any) -> Mapping:  # noqa: A002
    names = ("type", "path", "interval", "fall", "rise")
    rules = Health(**{name: more.pop(name) for name in names if name in more})
    return mapping(port=port, id=id, balancing=Balancing(health=rules), **more)


def answering(text: str, heard: list[bytes] | None = None) -> Handler:
    """An HTTP server that says *text* to every request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(text.encode())
        await writer.drain()

    return handle


def said(mappings: Probes, id: str = "m-1") -> HealthState:  # noqa: A002
    status = mappings.status(id)
    assert status is not None
    return status.state


class Trying:
    """Probes in a world whose time stands still until told."""

    def __init__(self, here: World, clock: ManualClock) -> None:
        self.here = here
        self.clock = clock
        self.told: list[tuple[str, HealthState, HealthStatus]] = []
        self.probes = Probes(
            here.around.router, here.around.rights, clock, self._changed, lambda low, _high: low
        )

    def _changed(self, of: Mapping, before: HealthState, status: HealthStatus) -> None:
        self.told.append((of.id, before, status))

    async def once(self) -> None:
        """One round of tries."""
        self.probes.tick()
        await until(lambda: not len(self.probes._supervisor))
        self.clock.advance(10.0)

    def reason(self, id: str = "m-1") -> str:  # noqa: A002
        status = self.probes.status(id)
        assert status is not None
        return str(status.reason)


@asynccontextmanager
async def trying(**more: Any) -> AsyncIterator[Trying]:
    clock = ManualClock()
    async with world(clock=clock, **more) as here:
        made = Trying(here, clock)
        try:
            yield made
        finally:
            await made.probes.stop()
            states = ("up", "down", "unknown")
            assert [metrics.MAPPING_HEALTH.labels(s)._value.get() for s in states] == [0, 0, 0]


class TestTcp:
    async def test_whoever_takes_the_connection_is_well(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.probes.put(tried(target))
            assert said(made.probes) == "unknown"
            assert metrics.MAPPING_HEALTH.labels("unknown")._value.get() == 1
            await made.once()
            assert said(made.probes) == "up"
            assert metrics.MAPPING_HEALTH.labels("up")._value.get() == 1
            assert [told[1] for told in made.told] == ["unknown"]
            (opened,) = made.here.opened
            assert opened[0] == f"tcp:127.0.0.1:{target}"
            assert opened[1]["user"]["id"] == OWNER
            await until(lambda: made.here.at_rest)

    async def test_nobody_there_and_there_again(self) -> None:
        async with trying() as made:
            async with serving(echo) as target:
                made.probes.put(tried(target, fall=2, rise=2))
                await made.once()
            await made.once()
            assert not made.probes.is_down("m-1")
            await made.once()
            assert made.probes.is_down("m-1")
            assert "refused" in made.reason()
            server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", target)
            await made.once()
            assert made.probes.is_down("m-1")
            await made.once()
            assert not made.probes.is_down("m-1")
            assert [(told[1], told[2].state) for told in made.told] == [
                ("unknown", "up"), ("up", "down"), ("down", "up"),
            ]  # fmt: skip
            server.close()

    async def test_a_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        server = await asyncio.start_unix_server(lambda _r, w: w.close(), path)
        async with trying() as made:
            made.probes.put(
                tried(0, protocol="unix", target_host=None, target_path=str(path), fall=1)
            )
            await made.once()
            assert said(made.probes) == "down"  # the policy of this world allows no sockets
            assert "policy" in made.reason()
        server.close()

    async def test_an_agent_that_is_away(self) -> None:
        async with trying(agent=False) as made:
            made.probes.put(tried(9, fall=1))
            await made.once()
            assert "no link" in made.reason()

    async def test_an_owner_who_may_not_any_more(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.here.agents.allowed.clear()
            made.probes.put(tried(target, fall=1))
            await made.once()
            assert "may not use" in made.reason()
            assert made.here.opened == []
            del made.here.users.rows[OWNER]
            await made.once()
            assert "may not use" in made.reason()

    async def test_a_database_that_is_away_says_nothing_of_the_target(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.here.users.fails = True
            made.probes.put(tried(target, fall=1))
            await made.once()
            assert said(made.probes) == "unknown"
            made.here.users.fails = False
            await made.once()
            assert said(made.probes) == "up"

    async def test_no_answer_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probes_module, "TIMEOUT", 0.05)
        async with trying() as made:
            made.here.gate = asyncio.Event()
            made.probes.put(tried(9, fall=1))
            await made.once()
            assert made.reason() == "There was no answer within 0.05 s."
            made.here.gate.set()


class TestHttp:
    @pytest.mark.parametrize(
        "text",
        [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense behind the head",
        ],
    )
    async def test_well(self, text: str) -> None:
        heard: list[bytes] = []
        async with trying() as made, serving(answering(text, heard)) as target:
            made.probes.put(tried(target, type="http", path="/ok now?a=ü&b=1"))
            await made.once()
            assert said(made.probes) == "up"
        assert heard[0].startswith(b"GET /ok%20now?a=%C3%BC&b=1 HTTP/1.1\r\n")
        assert f"\r\nHost: 127.0.0.1:{target}\r\n".encode() in heard[0]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("HTTP/1.1 503 Busy\r\n\r\n", "The target answered 503."),
            ("HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n", "The target answered 404."),
            ("SSH-2.0-OpenSSH\r\n", "The target does not speak HTTP"),
            ("", "The target ended the connection without an answer."),
            ("HTTP/1.1 100 Continue\r\n\r\n", "The target ended the connection without an answer."),
            ("HTTP/1.1 200 OK\r\nX: " + "x" * 40_000, "does not end"),
        ],
    )
    async def test_not_well(self, text: str, reason: str) -> None:
        async with trying() as made, serving(answering(text)) as target:
            made.probes.put(tried(target, type="http", fall=1))
            await made.once()
            assert said(made.probes) == "down"
            assert reason in made.reason()
            await until(lambda: made.here.at_rest)

    async def test_silence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probes_module, "TIMEOUT", 0.2)
        over = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await over.wait()

        async with trying() as made, serving(silent) as target:
            made.probes.put(tried(target, type="http", fall=1))
            await made.once()
            assert "no answer" in made.reason()
            over.set()

    @pytest.mark.parametrize(
        ("version", "start"), [("v1", b"PROXY UNKNOWN\r\nGET "), ("v2", b"\r\n\r\n\0\r\nQUIT\n ")]
    )
    async def test_a_target_that_wants_the_proxy_header(self, version: str, start: bytes) -> None:
        heard: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"Connection: close\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async with trying() as made, serving(handle) as target:
            made.probes.put(tried(target, type="http", proxy_protocol=version))
            await made.once()
            assert said(made.probes) == "up"
        assert heard[0].startswith(start)

    async def test_a_socket_is_localhost(self) -> None:
        assert probes_module._host(mapping("unix", target_path="/run/x")) == "localhost"


class TestWhoIsTried:
    async def test_only_who_wants_it_and_only_streams(self) -> None:
        async with trying() as made:
            made.probes.put(mapping(port=9))
            made.probes.put(mapping("udp", 9, id="m-2", balancing=Balancing(health=Health())))
            assert made.probes.status("m-1") is None
            assert made.probes.status("m-2") is None
            assert not made.probes.is_down("m-9")
            made.probes.remove("m-9")

    async def test_a_change_keeps_what_is_known_unless_it_leads_elsewhere(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.probes.put(tried(target))
            await made.once()
            made.probes.put(tried(target, bandwidth=1000))
            assert said(made.probes) == "up"
            made.probes.put(tried(target, fall=7))
            assert said(made.probes) == "unknown"
            await made.once()
            made.probes.put(tried(target + 1, fall=7))
            assert said(made.probes) == "unknown"
            made.probes.put(mapping(port=target))
            assert made.probes.status("m-1") is None

    async def test_a_try_of_what_went_meanwhile_counts_for_nothing(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.here.gate = asyncio.Event()
            made.probes.put(tried(target, fall=1))
            made.probes.tick()
            made.probes.put(tried(1, fall=1))
            await until(lambda: made.here.opened)
            made.here.gate.set()
            await until(lambda: not len(made.probes._supervisor))
            assert said(made.probes) == "unknown"

    async def test_one_at_a_time_and_when_it_is_due(self) -> None:
        async with trying() as made, serving(echo) as target:
            made.here.gate = asyncio.Event()
            made.probes.put(tried(target))
            made.probes.tick()
            made.clock.advance(100)
            made.probes.tick()
            assert len(made.probes._supervisor) == 1
            made.here.gate.set()
            await until(lambda: not len(made.probes._supervisor))
            made.probes.tick()
            assert len(made.probes._supervisor) == 1  # it was due long ago
            await until(lambda: not len(made.probes._supervisor))
            made.probes.tick()
            assert len(made.probes._supervisor) == 0

    async def test_so_many_at_once_and_everybody_gets_a_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes_module, "MAX_AT_ONCE", 2)
        async with trying() as made, serving(echo) as target:
            for number in range(5):
                made.probes.put(tried(target, id=f"m-{number}"))
                made.clock.advance(0.001)
            for expected in (2, 4, 5):
                made.probes.tick()
                assert len(made.probes._supervisor) <= 2
                await until(lambda: not len(made.probes._supervisor))
                states = [said(made.probes, f"m-{number}") for number in range(5)]
                assert states.count("up") == expected

    async def test_news_that_waited_are_told_later(self) -> None:
        async with trying() as made:
            with contextlib.closing(await asyncio.start_server(_end, "127.0.0.1", 0)) as server:
                target = server.sockets[0].getsockname()[1]
                made.probes.put(tried(target, fall=1, rise=1, interval=1.0))
                await made.once()
            made.clock.advance(-9)
            await made.once()
            made.clock.advance(-9)
            server = await asyncio.start_server(_end, "127.0.0.1", target)
            await made.once()
            made.clock.advance(-9)
            assert [told[2].state for told in made.told] == ["up", "down"]
            made.clock.advance(20)
            made.probes.tick()
            assert [told[2].state for told in made.told] == ["up", "down", "up"]
            server.close()


async def _end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
