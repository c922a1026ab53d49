"""A machine's underpass.yaml: what it says is public, all of it or nothing, while it runs."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port, killing, run
from tests.e2e.test_exec import token_of
from tests.e2e.tunnelled import after_the_end, connect, echo, ended, make, read_all, tcp_server


class Machine:
    """The agent ``box``, its file, and what the gateway makes of that."""

    def __init__(self, gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram) -> None:
        self.admin, self.agent = admin, agent
        self.file = agent.state / "underpass.yaml"
        self.id = str(gateway.machine(admin, "box")["id"])

    def mappings(self) -> dict[str, dict[str, Any]]:
        items = self.admin.get("/api/v1/mappings").json()["data"]["items"]
        return {item["name"]: item for item in items if item["declared_by"] == self.id}

    def declare(self, *items: str) -> None:
        self.file.write_text("mappings:\n" + "".join(f"- {{{item}}}\n" for item in items))

    def says(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.agent.text().count(text) >= times, 20, f"{text!r} in the log")


@pytest.fixture
def box(gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path) -> Iterator[Machine]:
    program = AgentProgram(tmp_path, gateway, "box", token=gateway.join_token(admin)).start()
    with killing(program):
        yield Machine(gateway, admin, program)


def carried(port: int) -> bool:
    with connect(port) as sock:
        sock.sendall(b"x" * 100_000)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock) == b"got 100000\n"


def talk(sock: socket.socket) -> None:
    sock.sendall(b"still there?")
    assert sock.recv(100) == b"still there?"


def test_from_the_first_line_to_the_last(
    gateway: GatewayProgram, admin: httpx.Client, box: Machine, tmp_path: Path
) -> None:
    first = 20_000 + secrets.randbelow(9_000)
    foreign = make(admin, box.id, target_port=1, source={"port": first})
    with tcp_server(echo) as talking, tcp_server(after_the_end) as counting:
        kept = f"name: kept, protocol: tcp, target: {talking}"

        # Not without leave, and the log says which command gives it.
        box.declare(kept, f"name: web, protocol: tcp, target: {counting}, source: {first + 1}")
        box.says("machines set box --may-declare")
        assert box.mappings() == {}
        allowed = run(
            gateway, tmp_path / "me", "machines", "set", "box", "--may-declare",
            token=token_of(admin),
        )  # fmt: skip
        assert allowed.returncode == 0, allowed.stderr
        eventually(lambda: set(box.mappings()) == {"kept", "web"}, 20, "both mappings")
        before = box.mappings()
        assert before["web"]["public_port"] == first + 1
        box.says(f"tcp://localhost:{first + 1}")
        assert carried(first + 1)

        with connect(before["kept"]["public_port"]) as sock:
            talk(sock)
            # One changes; the other is not touched, nor is its connection.
            box.declare(
                kept,
                f"name: web, protocol: tcp, target: {counting}, source: {first + 2}, "
                "limits: {connections: 7}",
            )
            eventually(
                lambda: box.mappings()["web"]["limits"]["connections"] == 7, 20, "the change"
            )
            assert carried(first + 2)
            talk(sock)
            now = box.mappings()
            assert now["web"]["id"] == before["web"]["id"]
            assert now["kept"]["version"] == before["kept"]["version"]

            # A broken edit changes nothing, and the log says where it is broken.
            box.declare(kept, "name: web, protocol: tcp, target: nowhere", "nam: x")
            box.says("line 3: mappings[1] (web): target 'nowhere'")
            versions = {name: one["version"] for name, one in now.items()}
            assert {name: one["version"] for name, one in box.mappings().items()} == versions

            # Somebody else's port: nothing of that edit is applied.
            box.declare(
                f"name: new, protocol: tcp, target: {counting}, source: {first + 3}",
                kept + ", limits: {connections: 3}",
                f"name: web, protocol: tcp, target: {counting}, source: {first}",
            )
            box.says(f"port {first} belongs to another mapping")
            after = box.mappings()
            assert set(after) == {"kept", "web"}
            assert after["kept"]["limits"]["connections"] is None
            assert after["web"]["public_port"] == first + 2
            assert carried(first + 2)
            with pytest.raises(ConnectionRefusedError):
                connect(first + 3)
            talk(sock)

            # By hand it can be looked at and switched, not changed.
            route = f"/api/v1/mappings/{after['web']['id']}"
            for refused in (admin.patch(route, json={"target_port": 1}), admin.delete(route)):
                assert (refused.status_code, refused.json()["code"]) == (409, "declared")
            assert admin.patch(route, json={"status": "disabled"}).status_code == 200
            assert admin.patch(route, json={"status": "active"}).status_code == 200
            assert carried(first + 2)

            # Gone from the file, gone from the gateway; its connections end.
            box.declare(f"name: web, protocol: tcp, target: {counting}, source: {first + 2}")
            assert ended(sock)
            eventually(lambda: set(box.mappings()) == {"web"}, 20, "one mapping")

        # While the machine is away they stay as they are; it comes back to the same.
        before = box.mappings()
        box.agent.kill()
        assert box.mappings()["web"]["id"] == before["web"]["id"]
        box.agent.start()
        gateway.machine(admin, "box")
        eventually(lambda: carried(first + 2), 20, "the machine back")
        assert box.mappings()["web"]["version"] == before["web"]["version"]

        box.file.unlink()
        eventually(lambda: not box.mappings(), 20, "nothing declared")
        with pytest.raises(ConnectionRefusedError):
            connect(first + 2)
    assert admin.get(f"/api/v1/mappings/{foreign['id']}").status_code == 200
    events = admin.get("/api/v1/events", params={"type": "mapping"}).json()["data"]["items"]
    assert {"mapping.declared", "mapping.declare_refused"} <= {one["type"] for one in events}


def test_it_may_come_in_at_another_machine(
    gateway: GatewayProgram, admin: httpx.Client, box: Machine, tmp_path: Path
) -> None:
    laptop = AgentProgram(tmp_path, gateway, "laptop", token=gateway.join_token(admin)).start()
    with killing(laptop), tcp_server(after_the_end) as target:
        far = gateway.machine(admin, "laptop")["id"]
        admin.patch(f"/api/v1/assets/{box.id}", json={"may_declare": True})
        port = free_port()
        box.declare(
            f"name: far, protocol: tcp, target: {target}, options: {{e2e: true}}, "
            f"source: {{client_id: {far}, port: {port}}}",
            f"name: near, protocol: tcp, target: {target}",
        )
        eventually(lambda: set(box.mappings()) == {"far", "near"}, 20, "both mappings")
        assert box.mappings()["far"]["source"] == {"client_id": far, "port": port}
        box.says(f"port {port} of the machine {far}")
        assert carried(port)
        # From there to the gateway, in place.
        before = box.mappings()["far"]["id"]
        box.declare(f"name: far, protocol: tcp, target: {target}")
        eventually(lambda: set(box.mappings()) == {"far"}, 20, "the change")
        after = eventually(
            lambda: (found := box.mappings().get("far")) and found["public_port"] and found,
            20, "a port of the gateway",
        )  # fmt: skip
        assert after["id"] == before
        assert carried(after["public_port"])
        with pytest.raises(ConnectionRefusedError):
            connect(port).close()
        # A machine that is not there: nothing of it is applied.
        box.declare(
            f"name: far, protocol: tcp, target: {target}, source: {{client_id: {uuid4()}, port: 1}}"
        )
        box.says("or the one that should listen")
        assert box.mappings()["far"]["public_port"] == after["public_port"]
