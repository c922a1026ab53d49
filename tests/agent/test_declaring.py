"""The file is watched, read when it has settled, and sent over every link; nothing else counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from underpass.agent.declared import DeclaredError
from underpass.agent.declaring import RETRIES, DeclaredFile, Declaring, public_address
from underpass.core.clock import ManualClock
from underpass.core.errors import Conflict
from underpass.links.link import Link, Peer
from underpass.links.memory import memory_links

ONE = "mappings: [{name: a, protocol: tcp, target: 1}]"
TWO = "mappings: [{name: a, protocol: tcp, target: 1}, {name: b, protocol: tcp, target: 2}]"
HINT = "Nothing was changed. Take another."
WRONG = "mappings: [{name: a, protocol: tcp, target: x}]"


class TestDeclaredFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> DeclaredFile:
        return DeclaredFile(tmp_path / "u.yaml")

    def names(self, file: DeclaredFile) -> list[str]:
        return [each.name for each in file.mappings or ()]

    def test_none_is_nothing_and_it_may_come_and_go(self, file: DeclaredFile) -> None:
        assert file.mappings is None
        assert file.look()
        assert file.mappings == ()
        assert not file.look()
        file.path.write_text(ONE)
        assert not file.look(), "it may still be being written"
        assert file.look()
        assert self.names(file) == ["a"]
        assert not file.look()
        file.path.unlink()
        assert not file.look(), "it may be being replaced"
        assert self.names(file) == ["a"]
        assert file.look()
        assert file.mappings == ()

    def test_as_long_as_it_changes_it_is_not_read(self, file: DeclaredFile) -> None:
        file.path.write_text(ONE)
        assert file.look()
        for number in range(3):
            file.path.write_text(TWO + " " * number)
            os.utime(file.path, ns=(number, number))
            assert not file.look()
        assert file.look()
        assert self.names(file) == ["a", "b"]

    def test_a_wrong_one_is_told_once_and_keeps_what_was(self, file: DeclaredFile) -> None:
        file.path.write_text(ONE)
        file.look()
        file.path.write_text(WRONG)
        file.look()
        with pytest.raises(DeclaredError):
            file.look()
        assert not file.look()
        assert self.names(file) == ["a"]
        with pytest.raises(DeclaredError):
            file.look(now=True)

    def test_what_is_no_file(self, file: DeclaredFile, tmp_path: Path) -> None:
        os.mkfifo(file.path)
        with pytest.raises(DeclaredError, match="is not a file"):
            file.look()
        with pytest.raises(DeclaredError, match="is not a file"):
            DeclaredFile(tmp_path).look()
        assert DeclaredFile(file.path / "x").look()


class Far:
    """A gateway that answers as told."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        self.path = tmp_path / "u.yaml"
        self.declaring = Declaring(self.path, host="gw.example.org", clock=self.clock)
        self.asked: list[list[str]] = []
        self.failure: Conflict | None = None
        self.links: list[Link] = []
        self.old = False

    def link(self) -> Link:
        agent, node = memory_links(Peer("agent", "a", "box", None, "1", frozenset()))
        self.declaring.prepare(agent)
        if not self.old:
            node.on_control("mappings.declare", self._declared)
        agent.start()
        node.start()
        self.links += [agent, node]
        self.declaring.linked(agent)
        return node

    async def _declared(self, _link: Link, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append([each["name"] for each in body["mappings"]])
        if self.failure is not None:
            raise self.failure
        return {
            "mappings": [
                {"name": each["name"], "protocol": "tcp", "source": {"port": 20_000 + number},
                 "status": "active", "error": None}
                for number, each in enumerate(body["mappings"])
            ]
        }  # fmt: skip

    async def turn(self, text: str | None = None) -> list[dict[str, Any]]:
        """What it logs while it looks twice and sends."""
        if text is not None:
            self.path.write_text(text)
        with capture_logs() as logs:
            self.declaring.look()
            self.declaring.look()
            await self.declaring.send()
        return [dict(each) for each in logs]


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    made = Far(tmp_path)
    yield made
    for link in made.links:
        await link.close("done", "The test is over.")


class TestDeclaring:
    async def test_once_for_each_list_and_link(self, far: Far) -> None:
        assert await far.turn(ONE) == []
        far.link()
        logs = await far.turn()
        assert [each["event"] for each in logs] == ["declared_mapping", "declared_mappings_applied"]
        assert logs[0]["public"] == "tcp://gw.example.org:20000"
        await far.turn()
        assert far.asked == [["a"]]
        logs = await far.turn(TWO)
        assert far.asked == [["a"], ["a", "b"]]
        assert [each.get("name") for each in logs] == ["b", None], "what is public where, once"
        far.link()
        await far.turn()
        assert far.asked[2:] == [["a", "b"]]
        far.path.unlink()
        await far.turn()
        assert far.asked[3:] == [[]]

    async def test_no_file_takes_back_what_an_earlier_one_declared(self, far: Far) -> None:
        far.link()
        assert await far.turn() == []
        assert far.asked == [[]]

    async def test_a_wrong_file_sends_nothing_and_says_why(self, far: Far) -> None:
        far.link()
        logs = await far.turn(WRONG)
        assert [each["event"] for each in logs] == ["declared_mappings_wrong"]
        assert logs[0]["reason"].startswith(f"{far.path}, line 1: ")
        assert far.asked == [], "not even that there is nothing"
        await far.turn(ONE)
        logs = await far.turn(WRONG + " ")
        assert [each["log_level"] for each in logs] == ["error"]
        assert far.asked == [["a"]]

    async def test_a_refusal_is_told_once_and_tried_again_ever_more_slowly(self, far: Far) -> None:
        far.failure = Conflict("a: the port is taken.", code="port_leased", hint="Take another.")
        far.link()
        logs = await far.turn(ONE)
        assert [each["event"] for each in logs] == ["declared_mappings_refused"]
        assert (logs[0]["reason"], logs[0]["hint"]) == ("a: the port is taken.", HINT)
        for number, wait in enumerate((*RETRIES, RETRIES[-1])):
            assert await far.turn() == []
            assert len(far.asked) == number + 1
            far.clock.advance(wait)
            assert await far.turn() == [], "the same again is no news"
            assert len(far.asked) == number + 2
        far.failure = None
        await far.turn(TWO)
        assert far.asked[-1] == ["a", "b"], "another file need not wait"

    async def test_the_gateway_may_ask_and_so_may_a_signal(self, far: Far) -> None:
        node = far.link()
        await far.turn(ONE)
        node.notify("mappings.declare_again", {})
        async with asyncio.timeout(5):
            while far.asked != [["a"], ["a"]]:
                await asyncio.sleep(0)
                await far.turn()
        far.declaring.reread()
        far.path.write_text(TWO)
        far.declaring.look()  # at once
        await far.declaring.send()
        assert far.asked[-1] == ["a", "b"]

    async def test_a_gateway_of_an_earlier_version_is_left_alone(self, far: Far) -> None:
        far.old = True
        far.link()
        logs = await far.turn(ONE)
        assert [each["event"] for each in logs] == ["declared_mappings_unknown"]
        far.clock.advance(10_000)
        assert await far.turn() == []
        far.old = False
        far.link()
        await far.turn()
        assert far.asked == [["a"]]

    async def test_a_lost_link_says_nothing(self, far: Far) -> None:
        node = far.link()
        await node.close("lost", "Gone.")
        await far.links[0].wait_closed()
        assert await far.turn(ONE) == []

    async def test_it_runs_until_it_is_ended(self, far: Far) -> None:
        far.path.write_text(ONE)
        far.link()
        running = asyncio.ensure_future(far.declaring.run())
        async with asyncio.timeout(10):
            while not far.asked:
                await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ({"protocol": "udp", "source": {"port": 5}}, "udp://gw:5"),
        ({"protocol": "unix", "source": {"port": 5, "bind": "0.0.0.0"}}, "tcp://gw:5"),
        ({"protocol": "socks5", "source": {"port": 5, "bind": "::1"}}, "socks5://[::1]:5"),
        ({"protocol": "tcp", "source": {"port_range": "7-9"}}, "tcp://gw:7-9"),
        ({"protocol": "tcp"}, "tcp://gw:None"),
    ],
)
def test_public_addresses(told: dict[str, Any], address: str) -> None:
    assert public_address(told, "gw") == address
