"""A shell survives what happens to sockets, links and gateways: no byte lost, none doubled."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually
from tests.e2e.terminal import Terminal, authorise

COUNTER = "for i in $(seq 1 {n}); do echo line-$i; sleep {pause}; done; echo done''-counting\n"


def lines(output: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"line-(\d+)\r\n", output)]


def session(client: httpx.Client, session_id: str) -> dict[str, object]:
    return dict(client.get(f"/api/v1/sessions/{session_id}").json()["data"])


def cast_text(client: httpx.Client, session_id: str) -> bytes:
    """Everything a recording shows, as bytes."""
    import json

    recording = session(client, session_id)["recording"]
    cast = client.get(f"/api/v1/recordings/{recording}/cast")
    assert cast.status_code in (200, 206), cast.text
    events = [json.loads(line) for line in cast.text.splitlines()[1:]]
    return "".join(event[2] for event in events if event[1] == "o").encode()


def markers(client: httpx.Client, session_id: str) -> list[str]:
    import json

    recording = session(client, session_id)["recording"]
    cast = client.get(f"/api/v1/recordings/{recording}/cast")
    events = [json.loads(line) for line in cast.text.splitlines()[1:]]
    return [event[2] for event in events if event[1] == "m"]


def test_a_cut_browser_socket_comes_back_to_the_same_shell(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    first = Terminal.open(admin, machine)
    first.type("echo pid=$$; " + COUNTER.format(n=300, pause=0.01))
    pid = first.until(r"pid=(\d+)").group(1)
    first.until(r"line-20\r")
    output, offset = bytes(first.output), first.offset
    first.drop()
    time.sleep(1)  # the shell goes on printing while nobody looks: that is the point of the test
    second = Terminal.resume_on(admin, machine, first.session_id, offset)
    assert second.session_id == first.session_id
    second.until("done-counting", 20)
    assert lines(output + bytes(second.output)) == list(range(1, 301))
    assert second.run("echo pid=$$").find(b"pid=" + pid) >= 0
    second.type("exit 3\n")
    assert second.until_control("exit")["code"] == 3
    shown = cast_text(admin, first.session_id)
    assert lines(shown) == list(range(1, 301))
    assert any("detach" in label for label in markers(admin, first.session_id))


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_gateway_restart_keeps_the_shell(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, how: str
) -> None:
    first = Terminal.open(admin, machine)
    first.type("echo pid=$$; " + COUNTER.format(n=400, pause=0.01))
    pid = first.until(r"pid=(\d+)").group(1)
    first.until(r"line-30\r")
    if how == "kill":
        gateway.kill()
    else:
        assert gateway.stop() == 0
    while first.close_code is None:
        first.step(5)
    output, offset = bytes(first.output), first.offset
    gateway.start()
    again = gateway.login()
    gateway.machine(again, "box")
    second = eventually(
        lambda: Terminal.resume_on(again, machine, first.session_id, offset), 20, "resuming"
    )
    second.until("done-counting", 30)
    assert lines(output + bytes(second.output)) == list(range(1, 401))
    assert second.run("echo pid=$$").find(b"pid=" + pid) >= 0
    second.type("exit\n")
    assert second.until_control("exit")["code"] == 0
    eventually(lambda: session(again, first.session_id)["status"] == "closed", 10, "closed")
    assert lines(cast_text(again, first.session_id)) == list(range(1, 401))


def test_nobody_else_can_resume(gateway: GatewayProgram, admin: httpx.Client, machine: str) -> None:
    mine = Terminal.open(admin, machine)
    mine.until(r"[$#] ")
    other = gateway.add_user(admin, "other")
    user = next(
        item for item in admin.get("/api/v1/users").json()["data"]["items"]
        if item["username"] == "other"
    )  # fmt: skip
    answer = admin.patch(f"/api/v1/assets/{machine}", json={"allowed_users": [user["id"]]})
    assert answer.status_code == 200, answer.text
    ticket = authorise(other, machine)
    with pytest.raises(AssertionError) as refused:
        Terminal(ticket["ws_url"], ticket["token"], resume=(mine.session_id, 0))
    assert "4404" in str(refused.value) or "4403" in str(refused.value)
    assert other.get(f"/api/v1/sessions/{mine.session_id}").status_code == 404
    mine.type("exit\n")
    mine.until_control("exit")


def test_an_agent_killed_mid_session_ends_it_with_a_reason(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    shells = agent.children()
    agent.kill()
    agent.start()
    gateway.machine(admin, "box")
    while terminal.close_code is None:
        terminal.step(20)
    assert terminal.close_code == 4502
    row = session(admin, terminal.session_id)
    assert row["status"] in ("error", "closed")
    assert row["error_message"]
    eventually(lambda: not any(shell.is_running() for shell in shells), 10, "no shell left behind")


def test_terminating_tells_both_ends_why(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    assert admin.delete(f"/api/v1/sessions/{terminal.session_id}").status_code in (200, 204)
    while terminal.close_code is None:
        terminal.step(10)
    assert any("terminat" in str(control).lower() for control in terminal.controls)
    eventually(
        lambda: not [child for child in agent.children() if child.name() == "bash"],
        10,
        "the shell being gone",
    )
    assert session(admin, terminal.session_id)["status"] == "closed"


def test_nothing_is_left_behind_after_a_storm(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str, tmp_path: Path
) -> None:
    warm = Terminal.open(admin, machine)
    warm.until(r"[$#] ")
    warm.type("exit\n")
    warm.until_control("exit")
    warm.close()
    time.sleep(0.5)
    before = gateway.descriptors(), agent.descriptors()
    for index in range(15):
        terminal = Terminal.open(admin, machine)
        terminal.until(r"[$#] ")
        if index % 3 == 0:
            terminal.type("exit\n")
            terminal.until_control("exit")
            terminal.close()
        elif index % 3 == 1:
            admin.delete(f"/api/v1/sessions/{terminal.session_id}")
            while terminal.close_code is None:
                terminal.step(10)
        else:
            terminal.type("exec sleep 0\n")
            terminal.until_control("exit")
            terminal.drop()

    def clean() -> bool:
        live = admin.get("/api/v1/sessions", params={"status": "active"}).json()["data"]["total"]
        return (
            live == 0
            and not agent.children()
            and gateway.descriptors() <= before[0] + 2
            and agent.descriptors() <= before[1] + 2
        )

    eventually(clean, 20, "every descriptor, child and row being given back")
    metrics = admin.get("/metrics").text
    for line in metrics.splitlines():
        if line.startswith(("underpass_sessions{", "underpass_streams{")):
            assert float(line.rsplit(" ", 1)[1]) == 0, line
