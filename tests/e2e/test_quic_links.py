"""The real programs over QUIC: by flag and on their own, moved, frozen, blocked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cable import Cable
from tests.e2e.programs import (
    ADMIN,
    PASSWORD,
    AgentProgram,
    GatewayProgram,
    eventually,
    free_port,
    run,
)
from tests.e2e.terminal import Terminal
from tests.e2e.test_sessions_survive import COUNTER, lines
from tests.e2e.udp_cable import UdpCable


@pytest.fixture
def cable(gateway: GatewayProgram) -> Iterator[UdpCable]:
    made = UdpCable(gateway.port, free_port())  # one that is free for TCP, too
    try:
        yield made
    finally:
        made.close()


def enrolled(
    gateway: GatewayProgram, admin: httpx.Client, directory: Path, *arguments: str
) -> AgentProgram:
    """An agent that came in over TCP and was stopped: it knows the gateway's key."""
    agent = AgentProgram(directory, gateway, "moving", token=gateway.join_token(admin)).start()
    gateway.machine(admin, "moving")
    agent.stop()
    eventually(
        lambda: not admin.get("/api/v1/assets").json()["data"]["items"][0]["linked"], 10, "unlinked"
    )
    agent.arguments += arguments
    return agent


@pytest.fixture
def moving(
    gateway: GatewayProgram, admin: httpx.Client, cable: UdpCable, tmp_path: Path
) -> Iterator[AgentProgram]:
    """An agent that may use any way, at an address where only UDP gets through."""
    agent = enrolled(gateway, admin, tmp_path)
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://127.0.0.1:{cable.port}"
    agent.start()
    try:
        gateway.machine(admin, "moving")
        yield agent
    finally:
        if agent.alive:
            agent.stop()


def signed_in(gateway: GatewayProgram, home: Path, **env: str) -> None:
    done = run(
        gateway, home, "login", gateway.url, "--username", ADMIN, "--password-stdin",
        token="", stdin=PASSWORD.encode(), env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_agent_and_person_by_flag(tmp_path: Path, tls: bool) -> None:
    gateway = GatewayProgram(tmp_path, tls=tls)
    try:
        gateway.start()
        admin = gateway.login()
        pin = _fingerprint(gateway) if tls else None
        flags = ["--fingerprint", pin] if pin else []
        agent = AgentProgram(
            tmp_path, gateway, "box", token=gateway.join_token(admin),
            arguments=["--transport", "quic", *flags],
        )  # fmt: skip
        agent.start()
        try:
            gateway.machine(admin, "box")
            assert "carrier=quic" in agent.text() or '"carrier": "quic"' in agent.text()
            home = tmp_path / "cli"
            env = {"UNDERPASS_FINGERPRINT": pin} if pin else {}
            signed_in(gateway, home, **env)
            data = os.urandom(3 << 20)
            done = run(
                gateway, home, "--transport", "quic", "exec", "box", "--", "cat",
                token="", stdin=data, env=env,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout == data
            told = run(gateway, home, "doctor", "--json", token="", env=env).stdout
            found = {check["name"]: check for check in json.loads(told)}
            assert found["QUIC over UDP"]["result"] == "ok", found
            assert "version 1, round trip" in found["QUIC over UDP"]["detail"]
            text = gateway.text()
            assert text.count("carrier=quic") + text.count('"carrier": "quic"') == 2
        finally:
            agent.stop()
    finally:
        gateway.close()


def _fingerprint(gateway: GatewayProgram) -> str:
    import ssl

    from underpass.links.trust import fingerprint_of

    pem = ssl.get_server_certificate(("127.0.0.1", gateway.port))
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(pem))


@pytest.mark.long
def test_where_only_udp_gets_through_it_is_found_and_a_move_is_not_noticed(
    gateway: GatewayProgram, admin: httpx.Client, cable: UdpCable, moving: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "moving")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.type(COUNTER.format(n=300, pause=0.01))
    for move in range(10):
        terminal.until(rf"line-{20 + 25 * move}\r", 20)
        cable.move(f"127.0.0.{1 + move % 4}")  # to other addresses, and back
    terminal.until("done-counting", 40)
    assert lines(bytes(terminal.output)) == list(range(1, 301))
    assert moving.text().count("link_up") == 2  # the first was over TCP, to enrol
    assert "link_lost" not in moving.text().partition("carrier=quic")[2]


@pytest.mark.long
def test_a_path_that_falls_silent_is_noticed_and_replaced_within_forty_seconds(
    gateway: GatewayProgram, admin: httpx.Client, cable: UdpCable, moving: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "moving")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    started = time.monotonic()
    assert cable.freeze() >= 1
    terminal.type("echo back''-again\n")
    terminal.until("back-again", 45)
    assert time.monotonic() - started < 40


@pytest.mark.long
def test_when_udp_is_blocked_in_the_middle_the_link_comes_back_over_tcp(
    gateway: GatewayProgram, admin: httpx.Client, cable: UdpCable, moving: AgentProgram
) -> None:
    machine = str(gateway.machine(admin, "moving")["id"])
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    assert "carrier=quic" in moving.text()
    tcp = Cable(gateway.port, cable.port)  # TCP gets through now
    try:
        cable.lose = lambda *_: True  # and no datagram does, of whatever connection
        started = time.monotonic()
        terminal.type("echo back''-again\n")
        terminal.until("back-again", 60)
        assert time.monotonic() - started < 45
        text = moving.text().partition("carrier=quic")[2]
        assert "peer_silent" in text
        assert "carrier=tcp" in text
        assert "quic fell silent" in text
        counted = httpx.get(f"{gateway.url}/metrics").text
        if "underpass_links_made_total" in counted:  # unless it is for somebody signed in only
            assert 'carrier="quic",role="agent"' in counted
    finally:
        tcp.close()


@pytest.mark.long
def test_without_udp_nobody_notices_and_the_flag_says_why(tmp_path: Path) -> None:
    gateway = GatewayProgram(tmp_path, arguments=["--no-quic"])
    try:
        gateway.start()
        admin = gateway.login()
        agent = AgentProgram(tmp_path, gateway, "box", token=gateway.join_token(admin)).start()
        try:
            gateway.machine(admin, "box")
            home = tmp_path / "cli"
            signed_in(gateway, home)
            done = run(gateway, home, "exec", "box", "--", "echo", "hello", token="")
            assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
            done = run(
                gateway, home, "exec", "box", "--", "echo", "hello", token="",
                env={"UNDERPASS_TRANSPORT": "quic"},
            )  # fmt: skip
            assert done.returncode not in (0, 1)
            assert b"cannot be reached" in done.stderr
            assert b"Traceback" not in done.stderr
            assert "quic" not in agent.text()
        finally:
            agent.stop()
    finally:
        gateway.close()


def test_a_udp_port_in_use_does_not_stop_a_gateway(tmp_path: Path) -> None:
    gateway = GatewayProgram(tmp_path)
    squatter = UdpCable(9, gateway.port)
    try:
        gateway.start()
        assert "quic_off" in gateway.text()
    finally:
        squatter.close()
        gateway.close()
