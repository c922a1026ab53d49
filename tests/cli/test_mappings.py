"""``underpass mappings`` and ``expose`` against a real gateway whose entry points are made up."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from tests.control.entry_points import FakeEntryPoints
from underpass.cli import exits
from underpass.cli import expose as expose_command
from underpass.cli.output import Output
from underpass.control.health import HealthStatus
from underpass.control.mapping import MappingLive
from underpass.core.errors import NotFound, Unavailable, UnderpassError

from .conftest import Result, RunningGateway
from .test_machines import apply

Call = Callable[..., Result]


@pytest.fixture
def entries(gateway: RunningGateway) -> Iterator[FakeEntryPoints]:
    mappings = gateway._gateway.services.mappings
    before, mappings.entry_points = mappings.entry_points, FakeEntryPoints()
    yield mappings.entry_points
    mappings.entry_points = before


@pytest.fixture
def machine(gateway: RunningGateway, signed_in: Call) -> str:
    name = f"box-{secrets.token_hex(3)}"
    apply(gateway, name)
    assert signed_in("approve", name).status == 0
    return name


def test_the_life_of_a_mapping(signed_in: Call, machine: str, entries: FakeEntryPoints) -> None:
    name = f"ssh-{machine}"
    made = signed_in("mappings", "create", "tcp", "22", "--on", machine, "--name", name)
    assert made.status == 0, made.err
    address = made.out.strip()
    assert address.startswith("tcp://127.0.0.1:2")
    listed = signed_in("mappings", "list", "--machine", machine)
    for text in (name, address, "127.0.0.1:22", machine, "active"):
        assert text in listed.out
    assert name in signed_in("mappings").out
    shown = signed_in("--json", "mappings", "show", name).json
    assert shown["public_url"] == address
    assert "options.compression" in signed_in("mappings", "show", shown["id"]).out
    changed = signed_in(
        "--json", "mappings", "update", name, "--to", "10.0.0.7:2222", "--bandwidth", "1M",
        "--allow", "192.0.2.0/24", "--idle-timeout", "5m", "--proxy-protocol", "v2",
    )  # fmt: skip
    assert changed.status == 0, changed.err
    assert changed.json["target_host"] == "10.0.0.7"
    assert changed.json["limits"]["bandwidth"] == 1_000_000
    assert changed.json["options"]["allow_ips"] == ["192.0.2.0/24"]
    assert changed.json["public_port"] == shown["public_port"]
    bound = signed_in("--json", "mappings", "update", name, "--bind", "127.0.0.1").json
    assert bound["source"] == {"port": shown["public_port"], "bind": "127.0.0.1"}
    assert signed_in("mappings", "disable", name).out == f"Disabled {name}.\n"
    assert shown["id"] not in entries.opened
    assert signed_in("mappings", "enable", name).status == 0
    assert shown["id"] in entries.opened
    assert signed_in("mappings", "delete", name).status == 0
    assert signed_in("mappings", "show", name).status == exits.NOT_FOUND
    assert "No mapping yet" in signed_in("mappings", "list", "--machine", machine).err


def test_health(signed_in: Call, machine: str, entries: FakeEntryPoints) -> None:
    name = f"web-{machine}"
    made = signed_in(
        "mappings", "create", "tcp", "80", "--on", machine, "--name", name, "--group", "web",
        "--health", "http:/ok,interval=5,fall=2",
    )  # fmt: skip
    assert made.status == 0, made.err
    shown = signed_in("--json", "mappings", "show", name).json
    assert shown["health"] == {
        "type": "http", "path": "/ok", "interval": 5, "fall": 2, "rise": 2,
    }  # fmt: skip
    entries.lives[shown["id"]] = MappingLive(health=HealthStatus("down", "It is asleep.", 5.0))
    listed = signed_in("mappings", "list", "--machine", machine).out
    assert "HEALTH" in listed.upper()
    assert "down" in listed
    assert "It is asleep." in signed_in("mappings", "show", name).out
    ended = signed_in("--json", "mappings", "update", name, "--health", "none")
    assert ended.json["health"] is None
    assert signed_in("mappings", "update", name, "--health", "ping").status == exits.USAGE
    assert signed_in("mappings", "delete", name).status == 0


def test_the_other_kinds(signed_in: Call, machine: str, entries: FakeEntryPoints) -> None:
    call = signed_in
    on = ("--on", machine)
    socks = call("mappings", "create", "socks5", *on, "--username", "ann")
    assert socks.status == 0, socks.err
    password = socks.out.splitlines()[1].removeprefix("password of ann: ")
    assert next(iter(entries.opened.values())).options.password == password
    unix = call("--json", "mappings", "create", "unix", "/run/x.sock", *on, "--disabled")
    assert (unix.json["target_path"], unix.json["status"]) == ("/run/x.sock", "disabled")
    at = call("--json", "mappings", "create", "tcp", "80", *on, "--at", machine, "--port", "8080")
    sealed = call("--json", "mappings", "update", at.json["name"], "--e2e")
    assert sealed.json["options"]["e2e"] is True, sealed.err
    assert call("mappings", "create", "tcp", "80", *on, "--e2e").status == 2
    assert at.json["source"]["port"] == 8080
    ranged = call("mappings", "create", "udp", "53", *on, "--port-range", "20100-20102")
    assert ranged.out.startswith("udp://")
    listed = call("mappings", "list", "--machine", machine)
    for text in (f"{machine}:8080", "udp:20100-20102", "anywhere", "/run/x.sock"):
        assert text in listed.out
    taken = call("mappings", "create", "udp", "53", *on, "--port", "20101")
    assert taken.status == exits.CONFLICT
    assert "20101" in taken.err
    for mapping in call("--json", "mappings", "list", "--machine", machine).json:
        assert call("mappings", "delete", mapping["id"]).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "tcp", "22"),
        ("create", "http", "80", "--on", "x"),
        ("create", "tcp", "ssh", "--on", "x"),
        ("create", "tcp", "22", "--on", "x", "--bandwidth", "much"),
        ("update",),
    ],
)
def test_wrong_usage(signed_in: Call, arguments: tuple[str, ...]) -> None:
    result = signed_in("mappings", *arguments)
    assert result.status == exits.USAGE
    assert len(result.err.strip().splitlines()) == 1


def test_nothing_to_change(signed_in: Call, machine: str, entries: FakeEntryPoints) -> None:
    made = signed_in("--json", "mappings", "create", "tcp", "22", "--on", machine).json
    assert signed_in("mappings", "update", made["id"]).status == exits.USAGE
    assert signed_in("mappings", "delete", made["id"]).status == 0


@pytest.fixture
def stop(entries: FakeEntryPoints) -> Iterator[Callable[[int], None]]:
    """Send this process a signal once something is open."""
    threads: list[threading.Thread] = []

    def later(number: int) -> None:
        def body() -> None:
            deadline = time.monotonic() + 20
            while not entries.opened and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=body))
        threads[-1].start()

    yield later
    for thread in threads:
        thread.join(25)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.OK)]
)
def test_expose_lasts_until_it_is_ended(
    signed_in: Call, machine: str, entries: FakeEntryPoints, stop: Callable[[int], None],
    number: int, status: int,
) -> None:  # fmt: skip
    stop(number)
    result = signed_in("expose", "tcp", "22", "--on", machine, "--port", "20300")
    assert result.status == status, result.err
    assert result.out == "127.0.0.1:20300\n"
    assert machine in result.err
    assert entries.opened == {}
    assert entries.calls == ["open", "close"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_expose_can_be_kept(
    signed_in: Call, machine: str, entries: FakeEntryPoints, stop: Callable[[int], None]
) -> None:
    stop(signal.SIGTERM)
    result = signed_in("--json", "expose", "udp", "53", "--on", machine, "--keep", "--name", "dns")
    assert result.status == 0, result.err
    assert result.json["address"] == f"127.0.0.1:{result.json['public_port']}"
    assert list(entries.opened) == [result.json["id"]]
    assert signed_in("mappings", "delete", "dns").status == 0


def test_expose_of_this_machine_by_its_host_name(
    gateway: RunningGateway, signed_in: Call, entries: FakeEntryPoints,
    stop: Callable[[int], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hostname = f"here-{secrets.token_hex(3)}"
    monkeypatch.setattr(socket, "gethostname", lambda: hostname.upper())
    missing = signed_in("expose", "tcp", "22")
    assert missing.status == exits.NOT_FOUND
    assert "--on" in missing.err
    apply(gateway, hostname)
    assert signed_in("approve", hostname).status == 0
    stop(signal.SIGTERM)
    result = signed_in("expose", "socks")
    assert result.status == 0, result.err
    address, url = result.out.splitlines()
    assert url.startswith("socks5h://underpass:")
    assert url.endswith(f"@{address}")


def test_expose_ends_when_somebody_deletes_its_mapping(
    signed_in: Call, machine: str, entries: FakeEntryPoints, gateway: RunningGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(expose_command, "LOOK_EVERY", 0.01)
    mappings = gateway._gateway.services.mappings

    def body() -> None:
        deadline = time.monotonic() + 20
        while not entries.opened and time.monotonic() < deadline:
            time.sleep(0.01)
        mapping_id = next(iter(entries.opened))
        gateway._call(mappings.remove(mapping_id, "in a test"))

    thread = threading.Thread(target=body)
    thread.start()
    result = signed_in("expose", "tcp", "22", "--on", machine)
    thread.join(25)
    assert result.status == exits.NOT_FOUND
    assert "deleted" in result.err


class Answers:
    """What the gateway says of a mapping, look by look."""

    def __init__(self, *answers: dict[str, Any] | UnderpassError) -> None:
        self._answers = list(answers)

    def get(self, _path: str) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, UnderpassError):
            raise answer
        return answer


def test_expose_says_what_becomes_of_its_mapping(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expose_command, "LOOK_EVERY", 0.0)
    well = {"status": "active", "error": None}
    ill = {"status": "error", "error": "The port is gone."}
    answers = Answers(well, ill, ill, Unavailable("No gateway."), well, well, NotFound("None."))
    with pytest.raises(NotFound, match="was deleted"):
        expose_command._watch(cast("Any", answers), "id", expose_command.Stopped(), Output())
    assert capfd.readouterr().err.splitlines() == [
        "error: The port is gone.", "No gateway.", "It is well again.",
    ]  # fmt: skip


def test_expose_of_a_web_server_says_when(signed_in: Call) -> None:
    result = signed_in("expose", "3000")
    assert result.status == exits.USAGE
    assert "later version" in result.err
    assert "underpass expose tcp 3000" in result.err
    assert signed_in("expose", "carrier-pigeon").status == exits.USAGE
