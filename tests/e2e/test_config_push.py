"""A machine that listens for mappings was away for fifty changes, and catches up with each once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.cable import Cable
from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port, killing
from tests.e2e.tunnelled import connect, make, tcp_server


class Listening:
    """A machine ``laptop`` that listens, and mappings with their source there."""

    def __init__(self, gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram) -> None:
        self.gateway, self.admin, self.agent = gateway, admin, agent
        self.machine = str(gateway.machine(admin, "laptop")["id"])
        self.changes = 0

    def add(self, target: int, port: int | None = None) -> dict[str, Any]:
        self.changes += 1
        source = {"client_id": self.machine, "port": port or free_port()}
        return make(self.admin, self.machine, target_port=target, source=source)

    def change(self, mapping: dict[str, Any], **what: Any) -> dict[str, Any]:
        self.changes += 1
        answer = self.admin.patch(f"/api/v1/mappings/{mapping['id']}", json=what)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    def remove(self, mapping: dict[str, Any]) -> None:
        self.changes += 1
        assert self.admin.delete(f"/api/v1/mappings/{mapping['id']}").status_code == 200

    @property
    def ports(self) -> set[int]:
        """Where the agent listens, whatever it says."""
        connections = psutil.Process(self.agent.pid).net_connections("tcp")
        return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}

    @property
    def versions(self) -> tuple[int, int]:
        """The version of the list that the agent has, as it last said, and the newest."""
        last = re.findall(rf"config_known.*{self.machine}.*", self.gateway.text())[-1]
        fields = dict(re.findall(r"(newest|version)=(\d+)", last))
        return int(fields["version"]), int(fields["newest"])

    def opened(self, since: int) -> list[str]:
        """The ids of the mappings the agent has begun to listen for, as often as it did."""
        return re.findall(r"\blistening\b.*mapping=(\S+)", self.agent.text()[since:])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProgram]:
    """One that logs what agents say they have."""
    program = GatewayProgram(tmp_path, env={"UNDERPASS_LOG_LEVEL": "debug"})
    with contextlib.closing(program):
        yield program.start()


@pytest.fixture
def cable(gateway: GatewayProgram) -> Iterator[Cable]:
    with contextlib.closing(Cable(gateway.port)) as made:
        yield made


@pytest.fixture
def laptop(
    gateway: GatewayProgram, admin: httpx.Client, cable: Cable, tmp_path: Path
) -> Iterator[Listening]:
    agent = AgentProgram(tmp_path, gateway, "laptop", token=gateway.join_token(admin))
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://127.0.0.1:{cable.port}"
    with killing(agent):
        agent.start()
        yield Listening(gateway, admin, agent)


def speaks(port: int) -> bytes:
    with contextlib.suppress(OSError), connect(port, timeout=5) as sock:
        return sock.recv(10)
    return b""


@pytest.mark.parametrize("how", ["stopped", "cut off"])
def test_fifty_changes_while_away_arrive_once_each(
    laptop: Listening, cable: Cable, how: str
) -> None:
    def says(text: bytes) -> Callable[[Any], None]:
        return lambda sock: sock.sendall(text)

    with tcp_server(says(b"old")) as target, tcp_server(says(b"new")) as newer:
        first = [laptop.add(target) for _ in range(10)]
        eventually(lambda: len(laptop.ports) == 10, what="ten ports")
        eventually(lambda: laptop.versions[0] == laptop.versions[1], what="that being said")
        had = laptop.versions[0]
        before = len(laptop.agent.text())

        if how == "stopped":
            laptop.agent.stop()
        else:
            cable.cut(stay_down=True)
        asset = f"/api/v1/assets/{laptop.machine}"
        eventually(lambda: not laptop.admin.get(asset).json()["data"]["linked"], what="being away")
        laptop.changes = 0
        second = [laptop.add(target) for _ in range(20)]
        for mapping in first[:5]:
            laptop.remove(mapping)
        for mapping in first[5:8]:
            laptop.change(mapping, status="disabled")
        laptop.remove(first[8])
        heir = laptop.add(newer, first[8]["source"]["port"])
        for number in range(9):
            laptop.change(first[9], target_port=newer, limits={"connections": 100 + number})
        for mapping in second[:8]:
            laptop.remove(mapping)
        laptop.change(second[8], status="disabled")
        laptop.change(second[8], status="active")
        laptop.change(second[9], status="disabled")
        assert laptop.changes == 50
        new = [heir, second[8], *second[10:]]

        if how == "stopped":
            laptop.agent.start()
        else:
            cable.mend()
        wanted = {mapping["source"]["port"] for mapping in [first[9], *new]}
        eventually(lambda: laptop.ports == wanted, 30, f"just {sorted(wanted)}")
        eventually(lambda: laptop.versions[0] == laptop.versions[1], what="that being said")
        assert laptop.versions[0] > had

        # Each was begun once: nothing twice, nothing in between, and nothing that stayed as it was.
        begun = {mapping["id"] for mapping in new}
        if how == "stopped":
            begun.add(first[9]["id"])
        assert sorted(laptop.opened(before)) == sorted(begun)
        said = {port: speaks(port) for port in wanted}
        for mapping in (first[9], heir):
            assert said.pop(mapping["source"]["port"]) == b"new"
        assert set(said.values()) == {b"old"}

        listed = laptop.admin.get("/api/v1/mappings", params={"page_size": 500}).json()
        active = [each for each in listed["data"]["items"] if each["status"] == "active"]
        assert {each["source"]["port"] for each in active} == wanted
        assert len(active) == 13
        assert not [each for each in listed["data"]["items"] if each["status"] == "error"]
