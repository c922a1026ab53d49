"""Starting badly is one clear line; stopping is clean; a restart is no storm of false alarms."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import UNDERPASS, AgentProgram, GatewayProgram, environment, eventually


def serve(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*UNDERPASS, "serve", *arguments],
        capture_output=True, timeout=30, check=False, env=environment(home),
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 2, done.stderr
    text = done.stderr.decode()
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if line.strip()]) == 1, text
    return text


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = one_line(
            serve(tmp_path / "h", "--listen", f"127.0.0.1:{port}", "--state", str(tmp_path / "s"))
        )
    assert str(port) in text


def test_an_unusable_state_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    one_line(serve(tmp_path / "h", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "file")))


def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    text = one_line(
        serve(
            tmp_path / "h", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "s"),
            "--database", "postgresql://nobody:hidden-password@127.0.0.1:1/none",
        )
    )  # fmt: skip
    assert "hidden-password" not in text


def test_sigterm_ends_both_programs_with_status_zero(
    gateway: GatewayProgram, agent: AgentProgram, machine: str
) -> None:
    assert agent.stop() == 0
    assert gateway.stop() == 0


def test_a_gateway_restart_makes_no_false_offline_event(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    gateway.kill()
    gateway.start()
    again = gateway.login()
    gateway.machine(again, "box", 30)
    events = again.get("/api/v1/events", params={"agent": machine}).json()["data"]["items"]
    assert not [event for event in events if event["type"] == "agent.offline"]


def test_no_secret_is_in_any_log(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    ticket = admin.get(f"/api/v1/assets/{machine}/tty/authorize").json()["token"]
    admin.get("/api/v1/tty/ws", params={"token": ticket})
    token = admin.headers["Authorization"].removeprefix("Bearer ")
    secret = (agent.state / "agent_secret_key").read_text().strip()
    for program in (gateway, agent):
        for hidden in (ticket, token, secret, "correct horse battery"):
            assert hidden not in program.text()


@pytest.mark.parametrize("role", ["user", "auditor"])
def test_only_admins_decide(gateway: GatewayProgram, admin: httpx.Client, role: str) -> None:
    person = gateway.add_user(admin, f"some-{role}", role=role)
    for method, path, body in (
        ("POST", "/api/v1/approve", {"id": "x"}),
        ("POST", "/api/v1/join-tokens", {"uses": 1}),
        ("POST", "/api/v1/users", {"username": "evil", "password": "x" * 12, "role": "admin"}),
    ):
        assert person.request(method, path, json=body).status_code == 403


def test_a_disabled_user_loses_the_live_shell_within_five_seconds(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    import time

    from tests.e2e.terminal import Terminal

    person = gateway.add_user(admin, "leaver")
    user = next(
        item for item in admin.get("/api/v1/users").json()["data"]["items"]
        if item["username"] == "leaver"
    )  # fmt: skip
    admin.patch(f"/api/v1/assets/{machine}", json={"allowed_users": [user["id"]]})
    terminal = Terminal.open(person, machine)
    terminal.until(r"[$#] ")
    started = time.monotonic()
    assert admin.patch(f"/api/v1/users/{user['id']}", json={"disabled": True}).status_code == 200
    while terminal.close_code is None and time.monotonic() - started < 10:
        terminal.step(1)
    assert terminal.close_code in (4401, 4403)
    assert time.monotonic() - started < 5
    assert eventually(lambda: person.get("/api/v1/auth/me").status_code == 401, 5)
