"""From one machine to another: an agent listens, the gateway decides, another agent connects."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port, killing
from tests.e2e.tunnelled import (
    after_the_end,
    connect,
    echo,
    ended,
    make,
    read_all,
    stats,
    tcp_server,
    udp_server,
)


@pytest.fixture
def listener(
    gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path
) -> Iterator[AgentProgram]:
    """A second agent, named ``laptop``, online and linked."""
    program = AgentProgram(tmp_path, gateway, "laptop", token=gateway.join_token(admin)).start()
    with killing(program):
        gateway.machine(admin, "laptop")
        yield program


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), connect(port) as sock:
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock).startswith(b"got 1")
    return False


def test_tcp_udp_and_what_may_go_wrong(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, listener: AgentProgram
) -> None:
    laptop = str(gateway.machine(admin, "laptop")["id"])
    with tcp_server(after_the_end) as target:
        made = make(admin, machine, target_port=target, source={"client_id": laptop, "port": 0})
        port = made["source"]["port"]
        assert made["status"] == "active"
        assert port > 0
        assert made["public_port"] is None
        with connect(port) as sock:
            sock.sendall(b"x" * 1_000_000)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"got 1000000\n"
        seen = eventually(
            lambda: (found := stats(admin, made))["active"] == 0 and found, what="counted"
        )
        assert (seen["total_connections"], seen["bytes_sent"]) == (1, 1_000_000)

        # Another mapping's port is in use: an error that says so, and that heals.
        with socket.create_server(("127.0.0.1", 0)) as blocker:
            taken = int(blocker.getsockname()[1])
            busy = make(
                admin, machine, target_port=target, source={"client_id": laptop, "port": taken}
            )
            assert busy["status"] == "error"
            assert f"port {taken} is in use" in busy["error"]

        def healed() -> bool:
            found = admin.get(f"/api/v1/mappings/{busy['id']}").json()["data"]
            return bool(found["status"] == "active")

        # Elsewhere than on loopback only with a rule of the machine's own.
        open_one = make(
            admin, machine, target_port=target,
            source={"client_id": laptop, "port": free_port(), "bind": "0.0.0.0"},
        )  # fmt: skip
        assert open_one["status"] == "error"
        assert "may not listen" in open_one["error"]

        eventually(healed, 20, "the port being had after all")
        assert answers(taken)

        # Killed agents and gateways come back with what they should listen for.
        listener.kill()
        assert not answers(port)
        admin.delete(f"/api/v1/mappings/{busy['id']}")
        listener.start()
        eventually(lambda: answers(port), 20, "the agent listening again")
        assert not answers(taken)
        gateway.kill()
        gateway.start()
        eventually(lambda: answers(port), 30, "the way through a new gateway")

        admin.delete(f"/api/v1/mappings/{made['id']}")
        eventually(lambda: not answers(port), 5, "the port given back")

    with udp_server(lambda data: b"re:" + data) as target:
        made = make(
            admin, machine, protocol="udp", target_port=target,
            source={"client_id": laptop, "port": 0},
        )  # fmt: skip
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", made["source"]["port"]))
            for size in (0, 1, 9000):
                sock.send(b"z" * size)
                assert sock.recv(70_000) == b"re:" + b"z" * size


def test_taken_off_the_machine(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, listener: AgentProgram
) -> None:
    laptop = str(gateway.machine(admin, "laptop")["id"])
    bob = gateway.add_user(admin, "bob")
    users = admin.get("/api/v1/users").json()["data"]["items"]
    me = next(user["id"] for user in users if user["username"] == "bob")
    body = {"protocol": "tcp", "target_client_id": machine, "target_port": 1,
            "source": {"client_id": laptop, "port": 0}}  # fmt: skip
    assert bob.post("/api/v1/mappings", json=body).status_code == 404
    for asset in (machine, laptop):
        answer = admin.patch(f"/api/v1/assets/{asset}", json={"allowed_users": [me]})
        assert answer.status_code == 200, answer.text
    with tcp_server(echo) as target:
        made = make(bob, machine, target_port=target, source={"client_id": laptop, "port": 0})
        with connect(made["source"]["port"]) as sock:
            sock.sendall(b"a")
            assert sock.recv(1) == b"a"
            began = time.monotonic()
            admin.patch(f"/api/v1/assets/{laptop}", json={"allowed_users": []})
            assert ended(sock)
            assert time.monotonic() - began < 5
        with connect(made["source"]["port"]) as sock:
            assert ended(sock)
