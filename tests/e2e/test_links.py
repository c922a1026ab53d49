"""Links that die, silently or loudly, are noticed and replaced; shells on them go on."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cable import Cable
from tests.e2e.programs import AgentProgram, GatewayProgram, eventually
from tests.e2e.terminal import Terminal
from tests.e2e.test_sessions_survive import COUNTER, cast_text, lines
from tests.e2e.tunnelled import connect, echo, ended, make, tcp_server, udp_server


@pytest.fixture
def cable(gateway: GatewayProgram) -> Iterator[Cable]:
    made = Cable(gateway.port)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["tcp", "websocket"])
def wired(
    request: pytest.FixtureRequest,
    gateway: GatewayProgram,
    admin: httpx.Client,
    cable: Cable,
    tmp_path: Path,
) -> Iterator[AgentProgram]:
    """An agent that reaches the gateway through the cable."""
    agent = AgentProgram(
        tmp_path, gateway, "wired", token=gateway.join_token(admin),
        arguments=["--transport", request.param],
    )  # fmt: skip
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://127.0.0.1:{cable.port}"
    agent.start()
    try:
        gateway.machine(admin, "wired")
        yield agent
    finally:
        if agent.alive:
            agent.stop()


def test_a_cut_link_comes_back_and_the_shell_with_it(
    gateway: GatewayProgram, admin: httpx.Client, cable: Cable, wired: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "wired")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.type(COUNTER.format(n=500, pause=0.01))
    for number in (30, 130, 230):
        terminal.until(rf"line-{number}\r", 20)
        cable.cut()
    terminal.until("done-counting", 40)
    assert lines(bytes(terminal.output)) == list(range(1, 501))
    terminal.type("exit 4\n")
    assert terminal.until_control("exit")["code"] == 4
    assert lines(cast_text(admin, terminal.session_id)) == list(range(1, 501))


def test_typing_while_the_link_is_away_arrives_once(
    gateway: GatewayProgram, admin: httpx.Client, cable: Cable, wired: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "wired")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.run("stty -echo")
    terminal.type("cat > typed.txt\n")
    for index in range(60):
        if index in (10, 30):
            cable.cut()
        terminal.type(f"word-{index}\n")
        time.sleep(0.02)
    terminal.type(b"\x04")
    assert b"ready" in terminal.run("echo rea''dy", 30)
    shown = terminal.run("cat typed.txt")
    assert [f"word-{n}".encode() for n in range(60)] == [
        line for line in shown.split(b"\r\n") if line.startswith(b"word-")
    ]


def test_a_half_open_link_is_noticed_and_replaced_within_forty_seconds(
    gateway: GatewayProgram, admin: httpx.Client, cable: Cable, wired: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "wired")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    started = time.monotonic()
    assert cable.freeze() >= 1
    terminal.type("echo back''-again\n")
    terminal.until("back-again", 45)
    assert time.monotonic() - started < 40
    eventually(lambda: gateway.machine(admin, "wired")["linked"], 5, "a new link")


@pytest.mark.long
def test_mappings_serve_again_within_forty_seconds_of_their_link_falling_silent(
    gateway: GatewayProgram, admin: httpx.Client, cable: Cable, wired: AgentProgram
) -> None:
    """Neither end hears that the other is gone: no FIN, no reset, nothing."""
    machine = str(gateway.machine(admin, "wired")["id"])
    with tcp_server(echo) as target, udp_server(lambda data: data) as datagrams:
        tcp = make(admin, machine, target_port=target)
        udp = make(admin, machine, protocol="udp", target_port=datagrams)
        with (
            connect(tcp["public_port"], timeout=45) as held,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
        ):
            source.settimeout(0.3)
            source.connect(("127.0.0.1", udp["public_port"]))
            held.sendall(b"x")
            assert held.recv(1) == b"x"
            assert _ask(source)
            started = time.monotonic()
            assert cable.freeze() >= 1
            assert not _ask(source)
            assert ended(held)  # by the gateway, which says so to who waits
            noticed = time.monotonic() - started

            def served() -> bool:
                with connect(tcp["public_port"], timeout=2) as sock:
                    sock.sendall(b"y")
                    return sock.recv(1) == b"y"

            eventually(served, 40, "new connections being carried")
            eventually(lambda: _ask(source), 40, "datagrams being carried")
            replaced = time.monotonic() - started
            print(f"noticed after {noticed:.1f} s, replaced after {replaced:.1f} s")
            assert replaced < 40


def _ask(source: socket.socket) -> bool:
    with contextlib.suppress(TimeoutError):
        source.send(b"anybody?")
        return source.recv(100) == b"anybody?"
    return False
