"""Which machine this one is: by its agent's state, by a running agent, by its name."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from underpass.cli import this_machine as module
from underpass.cli.api import Api
from underpass.cli.this_machine import this_machine
from underpass.core.errors import Conflict, NotFound
from underpass.core.ids import new_id


class Gateway:
    """Knows machines by id."""

    def __init__(self, *hostnames: str) -> None:
        self.machines = {new_id(): hostname for hostname in hostnames}

    def id_of(self, hostname: str) -> str:
        return next(one for one, name in self.machines.items() if name == hostname)

    def get(self, path: str) -> dict[str, Any]:
        agent_id = path.rpartition("/")[2]
        if agent_id not in self.machines:
            raise NotFound("There is no such machine.")
        return {"id": agent_id, "hostname": self.machines[agent_id]}

    def items(self, _path: str, q: str) -> list[dict[str, Any]]:
        return [
            {"id": one, "hostname": name}
            for one, name in self.machines.items()
            if q.lower() in name.lower()
        ]


class Process:
    """A process as psutil shows it."""

    def __init__(self, *words: str, cwd: str = "/", env: dict[str, str] | None = None) -> None:
        self.words, self.directory, self.env = list(words), cwd, env

    def cmdline(self) -> list[str]:
        if self.words == ["gone"]:
            raise psutil.NoSuchProcess(1)
        return self.words

    def environ(self) -> dict[str, str]:
        if self.env is None:
            raise psutil.AccessDenied(1)
        return self.env

    def cwd(self) -> str:
        return self.directory


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNDERPASS_STATE", raising=False)
    monkeypatch.setattr(module, "SERVICE_STATE", tmp_path / "service")
    monkeypatch.setattr(socket, "gethostname", lambda: "Host-1")
    running(monkeypatch)


def running(monkeypatch: pytest.MonkeyPatch, *processes: Process) -> None:
    monkeypatch.setattr(psutil, "process_iter", lambda: iter(processes))


def state(directory: Path, agent_id: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "client_id").write_text(agent_id + "\n")
    return directory


def found(gateway: Gateway) -> str:
    return str(this_machine(cast("Api", gateway))["hostname"])


def test_a_named_agent_by_the_default_state(tmp_path: Path) -> None:
    gateway = Gateway("Host-1", "web-1")
    state(tmp_path / "home" / ".underpass", gateway.id_of("web-1"))
    assert found(gateway) == "web-1"


def test_the_state_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway("web-1")
    monkeypatch.setenv("UNDERPASS_STATE", str(state(tmp_path / "s", gateway.id_of("web-1"))))
    assert found(gateway) == "web-1"


@pytest.mark.parametrize("place", ["service", "home/.underpass/agent"])
def test_a_service_and_the_agent_of_a_gateway(tmp_path: Path, place: str) -> None:
    gateway = Gateway("web-1")
    state(tmp_path / place, gateway.id_of("web-1"))
    assert found(gateway) == "web-1"


@pytest.mark.parametrize(
    "program", [("/opt/bin/underpass",), ("python3", "-m", "underpass.cli.main")]
)
@pytest.mark.parametrize("how", ["flag", "equals", "relative", "environment", "others"])
def test_an_agent_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...], how: str
) -> None:
    gateway = Gateway("Host-1", "web-1")
    directory = str(state(tmp_path / "s", gateway.id_of("web-1")))
    process = {
        "flag": Process(*program, "agent", "--state", directory, env={}),
        "equals": Process(*program, "agent", f"--state={directory}", env={}),
        "relative": Process(*program, "agent", "--state", "s", cwd=str(tmp_path), env={}),
        "environment": Process(*program, "agent", env={"UNDERPASS_STATE": directory}),
        "others": Process(*program, "agent", "--state", directory),
    }[how]
    running(monkeypatch, Process("gone"), Process("vi", "agent"), Process(), process)
    assert found(gateway) == "web-1"


def test_one_whose_state_can_not_be_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway("Host-1", "web-1", "web-10")
    words = ("underpass", "agent", "--state", "/nowhere/s", "--name")
    running(monkeypatch, Process(*words, "WEB-1"))
    assert found(gateway) == "web-1"
    running(monkeypatch, Process("underpass", "agent", env={"UNDERPASS_NAME": "web-10"}))
    assert found(gateway) == "web-10"
    running(monkeypatch, Process("underpass", "agent", "--state", "s", "--name"))
    assert found(gateway) == "Host-1"


def test_another_gateways_agent_lends_its_name_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(state(tmp_path / "s", new_id()))
    words = ("underpass", "agent", "--state", directory, "--name", "web-1")
    running(monkeypatch, Process(*words, env={}))
    with pytest.raises(NotFound):
        found(Gateway("web-1"))
    assert found(Gateway("web-1", "host-1")) == "host-1"


def test_what_is_no_id_is_none(tmp_path: Path) -> None:
    state(tmp_path / "home" / ".underpass", "../users")
    (state(tmp_path / "service", "x") / "client_id").write_bytes(b"\xff")
    assert found(Gateway("host-1")) == "host-1"


def test_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Conflict):
        found(Gateway("host-1", "HOST-1"))
    gateway = Gateway("a", "b")
    words = [
        ("underpass", "agent", "--state", str(state(tmp_path / name, gateway.id_of(name))))
        for name in ("a", "b")
    ]
    running(monkeypatch, *(Process(*each, env={}) for each in words))
    with pytest.raises(Conflict) as refused:
        found(gateway)
    assert refused.value.code == "ambiguous_machine"
    state(tmp_path / "home" / ".underpass", gateway.id_of("b"))
    assert found(gateway) == "b"  # the default one, without a look at the others


def test_nobody() -> None:
    with pytest.raises(NotFound, match="Host-1"):
        found(Gateway("elsewhere"))
