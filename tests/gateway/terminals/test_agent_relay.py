"""Poll mode: a session waits for its agent, and its socket needs the token made for it."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.gateway.terminals.asgi_socket import AsgiSocket, Closed
from tests.gateway.terminals.house import BASH, House, Machine, Person, eventually
from underpass.agent.terminals.trunk import TrunkLost
from underpass.core.clock import SystemClock
from underpass.core.ids import new_id
from underpass.gateway.terminals import agent_relay, session_life
from underpass.gateway.terminals.trunk import SocketTrunk
from underpass.wire.terminal import (
    Control,
    Failure,
    decode_control,
    encode_control,
)
from underpass.wire.terminal_requests import parse_pty_request


class RelayTrunk:
    """The agent's end of a relay socket, as ``agent.terminals.trunk.WebSocketTrunk`` is."""

    def __init__(self, socket: AsgiSocket) -> None:
        self.socket = socket

    async def send(self, message: bytes | Control) -> None:
        if self.socket.done.is_set():
            raise TrunkLost("gone")
        if isinstance(message, bytes):
            self.socket.type(message)
        else:
            self.socket.text(encode_control(message).decode())

    async def receive(self) -> bytes | Control | None:
        while True:
            try:
                message = await self.socket.receive(60)
            except Closed:
                return None
            if isinstance(message, bytes):
                return message
            import json

            control = decode_control(json.dumps(message))
            if control is not None:
                return control

    async def finish(self) -> None:
        return

    async def close(self) -> None:
        self.socket.drop()

    def abort(self, code: str, message: str) -> None:
        self.socket.drop()


async def fetch(home: House, machine: Machine) -> RelayTrunk:
    """What the agent's poll loop does with the first pending session."""
    pending = await eventually(lambda: home.services.terminals.poll(machine.id))
    entry = pending[0]
    path = f"/api/v1/agent/tty/relay?session_id={entry['session_id']}&token={entry['token']}"
    socket = AsgiSocket(home.app, f"ws://test{path}").start(home.supervisor)
    trunk = RelayTrunk(socket)
    request = parse_pty_request(entry)
    home.supervisor.start(machine.host.attach(trunk, request), "relay")
    return trunk


async def test_a_shell_without_any_link(home: House, ada: Person) -> None:
    box = await home.machine(linked=False)
    assert await home.services.terminals.poll(box.id) == []
    screen = await ada.open(box.id)
    trunk = await fetch(home, box)
    await screen.until(b"$ ")
    screen.socket.type("echo $((6*7))\n")
    await screen.until(b"42\r\n")
    # The socket is lost: the agent finds the session in its next poll and goes on.
    with capture_logs() as logged:
        trunk.socket.drop()
        while {"type": "state", "trunk": "lost"} not in screen.controls:
            await screen.step()
        await eventually(trunk.socket.done.is_set)
    assert not [entry for entry in logged if entry["log_level"] == "error"]
    screen.socket.type("echo ba''ck\n")
    await fetch(home, box)
    await screen.until(b"back")
    screen.socket.type("exit 5\n")
    assert (await screen.control("exit"))["code"] == 5
    assert (await screen.end()).code == 1000
    await eventually(lambda: not box.host.announce())
    assert not len(home.services.terminals.relay)
    await box.host.close()


async def test_a_pending_session_tells_what_spec_1_says(home: House, ada: Person) -> None:
    box = await home.machine(linked=False)
    other = await home.machine(linked=False, name="other")
    await ada.open(box.id)
    (entry,) = await eventually(lambda: home.services.terminals.poll(box.id))
    assert (entry["cols"], entry["rows"], entry["command"]) == (100, 30, BASH)
    assert entry["user"]["username"] == "ada"
    assert await home.services.terminals.poll(other.id) == []
    # A new poll makes a new token; the old one is dead.
    (again,) = await home.services.terminals.poll(box.id)
    assert again["token"] != entry["token"]
    relay = f"/api/v1/agent/tty/relay?session_id={entry['session_id']}&token="
    for token in (entry["token"], "upr_guess", ""):
        assert (await home.screen(relay + token).end()).status == 401
    for session_id in (new_id(), "x"):
        wrong = home.screen(f"/api/v1/agent/tty/relay?session_id={session_id}&token=x")
        assert (await wrong.end()).status in (401, 404)
    good = AsgiSocket(home.app, f"ws://test{relay}{again['token']}").start(home.supervisor)
    await eventually(lambda: good.accepted)
    assert (await home.screen(relay + again["token"]).end()).status == 404


async def test_an_agent_that_refuses_is_heard(home: House, ada: Person) -> None:
    box = await home.machine(linked=False)
    await home.services.terminals.poll(box.id)
    screen = await ada.open(box.id)
    (entry,) = await eventually(lambda: home.services.terminals.poll(box.id))
    path = f"/api/v1/agent/tty/relay?session_id={entry['session_id']}&token={entry['token']}"
    socket = AsgiSocket(home.app, f"ws://test{path}").start(home.supervisor)
    socket.text(encode_control(Failure("login_forbidden", "Not as root.")).decode())
    closed = await screen.end()
    assert closed.code == 4500
    assert screen.controls[-1]["message"] == "Not as root."


async def test_an_agent_that_never_comes_is_an_error(
    home: House, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_life, "FETCH_SECONDS", 0.1)
    box = await home.machine(linked=False)
    screen = await ada.open(box.id)
    assert (await screen.end()).code == 4502
    assert screen.controls[-1]["code"] == "agent_silent"
    session_id = screen.controls[0]["session_id"]
    assert (await ada.data(f"/api/v1/sessions/{session_id}"))["status"] == "error"


async def test_the_poll_route_wants_a_signature(home: House, ada: Person) -> None:
    for path in ("pending-sessions", "sessions"):
        answer = await ada.http.get(f"/api/v1/agent/tty/{path}")
        assert answer.status_code == 401
        assert answer.json()["code"] == "unsigned"


async def test_a_token_does_not_wait_for_ever(
    home: House, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_relay, "TOKEN_SECONDS", 0.0)
    box = await home.machine(linked=False)
    await ada.open(box.id)
    (entry,) = await eventually(lambda: home.services.terminals.poll(box.id))
    path = f"/api/v1/agent/tty/relay?session_id={entry['session_id']}&token={entry['token']}"
    assert (await home.screen(path).end()).status == 401
    await asyncio.sleep(0)


async def test_a_socket_that_comes_as_its_session_gives_up_is_let_go() -> None:
    relay = agent_relay.AgentRelay(SystemClock())
    fetching = asyncio.ensure_future(relay.fetch("agent", "session", {}, 5.0))
    await asyncio.sleep(0)
    trunk = SocketTrunk(None)  # type: ignore[arg-type]
    relay._pending["session"].trunk.set_result(trunk)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert trunk.released.is_set()
    assert len(relay) == 0
