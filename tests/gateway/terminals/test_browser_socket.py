"""The terminal socket: first message, close codes, nonsense, sizes, roles, flow."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.gateway.terminals.asgi_socket import Screen
from tests.gateway.terminals.house import House, Machine, Person, eventually
from underpass.gateway.terminals import browser_socket
from underpass.wire.terminal import INITIAL_CREDIT


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://test.evil", "nonsense"])
async def test_a_foreign_origin_is_403_before_anything(
    home: House, ada: Person, box: Machine, origin: str
) -> None:
    ticket = await ada.ticket(box.id)
    screen = home.screen(f"/api/v1/tty/ws?token={ticket['token']}", headers={"Origin": origin})
    assert (await screen.end()).status == 403
    assert not screen.socket.accepted
    good = home.screen("/api/v1/tty/ws", ticket["token"], headers={"Origin": "http://test"})
    assert await good.control("session_id")


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("{", 4400),
        ('{"type":"resize","cols":1,"rows":1}', 4400),
        ('{"type":"auth","token":5}', 4400),
        ("x" * 5000, 4400),
        ('{"type":"auth","token":""}', 4401),
        ('{"type":"auth","token":"upx_guess"}', 4401),
        ('{"type":"auth","token":"nope"}', 4401),
    ],
)
async def test_a_bad_first_message(home: House, ada: Person, first: str, code: int) -> None:
    screen = home.screen("/api/v1/tty/ws")
    screen.socket.text(first)
    assert (await screen.end()).code == code
    assert screen.controls[-1]["type"] == "error"


async def test_a_binary_first_message_is_bad(home: House, ada: Person) -> None:
    screen = home.screen("/api/v1/tty/ws")
    screen.socket.type(b"upx_x")
    assert (await screen.end()).code == 4400


async def test_silence_is_4401(home: House, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_socket, "AUTH_SECONDS", 0.05)
    assert (await home.screen("/api/v1/tty/ws").end()).code == 4401


async def test_an_unknown_mode_is_4400(home: House, ada: Person) -> None:
    assert (await home.screen("/api/v1/tty/ws?mode=root").end()).code == 4400


async def test_a_database_that_is_away_is_said_not_kept_silent(
    home: House, ada: Person, box: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("the driver's own")

    ticket = await ada.ticket(box.id)
    monkeypatch.setattr(home.services.terminals, "open", away)
    screen = home.screen("/api/v1/tty/ws", ticket["token"])
    assert (await screen.end()).code == 4500
    assert screen.controls[-1]["type"] == "error"


async def test_the_old_form_with_the_token_in_the_address(
    home: House, ada: Person, box: Machine
) -> None:
    ticket = await ada.ticket(box.id, command="stty size")
    screen = home.screen(f"/api/v1/tty/ws?token={ticket['token']}&cols=77&rows=22")
    await screen.until(b"22 77")
    assert (await screen.control("exit"))["code"] == 0


async def test_nonsense_never_breaks_the_session(home: House, ada: Person, box: Machine) -> None:
    screen, _ = await ada.shell(box.id)
    for text in ("{", "[]", "", '{"type":"nope"}', '{"type":5}', '{"type":"resize"}', "x" * 70_000,
                 '{"type":"credit","bytes":-1}', '{"type":"resize","cols":"x","rows":1}',
                 '{"type":"auth","token":"upx_again"}', '{"type":"resume","session_id":"x"}',
                 "[" * 4000):  # fmt: skip
        screen.socket.text(text)
    screen.socket.type(b"y" * 70_000)
    screen.socket.type("echo still''-here\n")
    await screen.until(b"still-here")
    codes = {control.get("code") for control in screen.controls}
    assert {"bad_message", "message_too_large", "input_too_large", "too_late"} <= codes


async def test_ping_is_answered(home: House, ada: Person, box: Machine) -> None:
    screen, _ = await ada.shell(box.id)
    screen.socket.say("ping", t=123.5)
    assert (await screen.control("pong"))["t"] == 123.5
    screen.socket.say("pong", t=1)


async def test_bytes_are_never_decoded(home: House, ada: Person, box: Machine) -> None:
    screen = await ada.open(box.id, command="printf '\\377\\376\\303(\\0end'")
    await screen.until(b"\xff\xfe\xc3(\x00end")


async def test_two_hundred_resizes_arrive_as_a_few(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)
    for index in range(200):
        screen.socket.say("resize", cols=60 + index % 100, rows=20 + index % 30)
    screen.socket.say("resize", cols=-5, rows=10**9)
    await asyncio.sleep(0.3)
    screen.socket.type("stty size\n")
    await screen.until(b"1000 1\r")
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    screen.socket.type("exit\n")
    await screen.end()
    cast = await ada.http.get(f"/api/v1/recordings/{recording}/cast")
    resizes = [event[2] for event in map(json.loads, cast.text.splitlines()[1:]) if event[1] == "r"]
    assert 1 <= len(resizes) <= 10
    assert resizes[-1] == "1x1000"


async def test_the_browsers_credit_stops_the_shell_and_ctrl_c_still_acts(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.credit = False
    hub = home.services.terminals.hubs[session_id]
    screen.socket.type("yes\n")
    await eventually(lambda: hub.core.owner and hub.core.owner.offset >= INITIAL_CREDIT)
    await asyncio.sleep(0.2)
    assert hub.core.owner is not None
    assert hub.core.owner.offset < INITIAL_CREDIT + 1024
    # End to end no more is under way than the browser asked for.
    assert hub.core.log.end <= INITIAL_CREDIT + 1024
    started = asyncio.get_running_loop().time()
    screen.socket.type(b"\x03")
    await eventually(lambda: hub.core.input_acked == hub.core.input_end)
    assert asyncio.get_running_loop().time() - started < 0.5
    screen.credit = True
    screen.socket.say("credit", bytes=1 << 20)
    screen.socket.type("echo al''ive\n")
    await screen.until(b"alive")


async def test_without_credit_a_stalled_socket_stops_the_shell(
    home: House, ada: Person, box: Machine
) -> None:
    screen = await ada.open(box.id, path="?credit=off")
    session_id = (await screen.control("session_id"))["session_id"]
    await screen.until(b"$ ")
    screen.credit = False
    screen.socket.reading.clear()
    screen.socket.type("yes\n")
    hub = home.services.terminals.hubs[session_id]
    await eventually(lambda: hub.core.log.end >= INITIAL_CREDIT)
    await asyncio.sleep(0.3)
    assert hub.core.log.end <= 2 * INITIAL_CREDIT + 65536
    end = hub.core.log.end
    await asyncio.sleep(0.2)
    assert hub.core.log.end < end + 1024
    screen.socket.type(b"\x03")
    await eventually(lambda: hub.core.input_acked == hub.core.input_end)
    screen.socket.reading.set()
    screen.socket.type("echo al''ive\n")
    await screen.until(b"alive", 20)


async def test_a_paste_larger_than_every_buffer_does_not_deadlock(
    home: House, ada: Person, box: Machine
) -> None:
    screen = await ada.open(box.id, command="stty raw -echo; echo ready; head -c 600000 | wc -c")
    await screen.until(b"ready")
    for _ in range(60):
        screen.socket.type(b"x" * 10_000)
    await screen.until(b"600000", 20)


async def test_observers_see_but_do_not_touch(home: House, ada: Person) -> None:
    alice, eve = await home.person("alice"), await home.person("eve", role="auditor")
    box = await home.machine(alice)
    screen, session_id = await alice.shell(box.id)
    path = f"/api/v1/tty/ws?mode=observe&session_id={session_id}"
    watching = home.screen(path, eve.token)
    assert (await watching.control("session_id"))["mode"] == "observe"
    await watching.until(b"$ ")
    assert (await screen.control("attached"))["user"] == "eve"
    assert (await alice.data(f"/api/v1/sessions/{session_id}"))["observers"] == 1
    watching.socket.type("rm -rf /\n")
    watching.socket.say("resize", cols=10, rows=10)
    screen.socket.type("echo se''en\n")
    await watching.until(b"seen")
    assert b"rm -rf" not in screen.output
    assert {control.get("code") for control in watching.controls} >= {"read_only"}
    joining = home.screen(f"/api/v1/tty/ws?mode=join&session_id={session_id}", eve.token)
    assert (await joining.end()).code == 4403
    screen.socket.type("exit 4\n")
    assert (await watching.control("exit"))["code"] == 4
    assert (await watching.end()).code == 1000


async def test_a_stalled_observer_never_slows_the_owner(home: House, ada: Person) -> None:
    alice, eve = await home.person("alice"), await home.person("eve", role="auditor")
    box = await home.machine(alice)
    screen, session_id = await alice.shell(box.id)
    path = f"/api/v1/tty/ws?mode=observe&session_id={session_id}"
    watching = home.screen(path, eve.token, credit=False)
    await watching.control("session_id")
    screen.socket.type("head -c 4000000 /dev/zero | tr '\\0' x; echo do''ne\n")
    await screen.until(b"done", 30)
    assert screen.output.count(b"x") >= 4_000_000
    watching.credit = True
    watching.socket.say("credit", bytes=1 << 22)
    await watching.until(b"done")
    assert [control for control in watching.controls if control.get("type") == "resumed"][1:]


async def test_joining_needs_the_owners_consent(home: House, ada: Person) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    box = await home.machine(alice, bob)
    screen, session_id = await alice.shell(box.id)
    path = f"/api/v1/tty/ws?mode=join&session_id={session_id}"
    assert (await home.screen(path, bob.token).end()).code == 4404
    sharing = f"/api/v1/sessions/{session_id}/sharing"
    assert (await alice.http.post(sharing, json={"join": True})).status_code == 200
    joined = home.screen(path, bob.token)
    await joined.control("session_id")
    joined.socket.type("echo from''-bob\n")
    await screen.until(b"from-bob")
    assert (await alice.http.post(sharing, json={"join": False})).status_code == 200
    assert (await joined.end(5)).code == 4403
    assert screen.closed is None


async def test_an_admin_may_join_anybody(home: House, ada: Person) -> None:
    alice = await home.person("alice")
    box = await home.machine(alice)
    screen, session_id = await alice.shell(box.id)
    joined = home.screen(f"/api/v1/tty/ws?mode=join&session_id={session_id}", ada.token)
    await joined.control("session_id")
    joined.socket.say("resize", cols=91, rows=31)
    assert (await screen.control("resize"))["cols"] == 91


async def test_watching_needs_a_login_and_a_session(home: House, ada: Person) -> None:
    path = "/api/v1/tty/ws?mode=observe&session_id="
    assert (await home.screen(path + "x", ada.token).end()).code == 4404
    assert (await home.screen(path + ada.id, ada.token).end()).code == 4404
    assert (await home.screen(path + ada.id, "ups_wrong").end()).code == 4401
    assert (await home.screen(path + ada.id, "").end()).code == 4401


async def test_terminating_tells_both_ends_why(home: House, ada: Person) -> None:
    alice = await home.person("alice")
    box = await home.machine(alice)
    screen, session_id = await alice.shell(box.id)
    answer = await ada.http.request(
        "DELETE", f"/api/v1/sessions/{session_id}", json={"reason": "lunch"}
    )
    assert answer.status_code == 200
    assert (await screen.end()).code == 1000
    assert "terminated by the admin ada. Reason: lunch" in screen.controls[-1]["message"]
    row = await alice.data(f"/api/v1/sessions/{session_id}")
    assert row["status"] == "closed"
    assert "lunch" in row["error_message"]
    await eventually(lambda: not box.host.announce())
    again = await ada.http.delete(f"/api/v1/sessions/{session_id}")
    assert again.status_code == 409
    await box.host.close()


async def test_an_agent_that_refuses_says_why(home: House, ada: Person, box: Machine) -> None:
    screen = await ada.open(box.id, login="nobody-here")
    closed = await screen.end()
    assert closed.code in (4403, 4409)
    session_id = screen.controls[0]["session_id"]
    row = await ada.data(f"/api/v1/sessions/{session_id}")
    assert row["status"] == "error"
    assert row["error_message"]


async def test_gauges_return_to_zero(home: House, ada: Person, box: Machine) -> None:
    from underpass.core.metrics import REGISTRY

    def gauges() -> list[float | None]:
        return [
            REGISTRY.get_sample_value("underpass_sessions", {"state": state})
            for state in ("connecting", "active", "detached")
        ]

    screens: list[Screen] = []
    for _ in range(3):
        screen, _ = await ada.shell(box.id)
        screens.append(screen)
    assert gauges() == [0, 3, 0]
    screens[0].socket.drop()
    await eventually(lambda: gauges() == [0, 2, 1])
    for session in (await ada.data("/api/v1/sessions", status="live"))["items"]:
        await ada.http.delete(f"/api/v1/sessions/{session['id']}")
    assert gauges() == [0, 0, 0]
