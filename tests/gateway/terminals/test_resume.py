"""A shell survives sockets, links and gateways: same shell, not a byte lost or doubled."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.terminals.asgi_socket import Screen
from tests.gateway.terminals.house import House, Machine, Person, eventually, house
from underpass.core.ids import new_id

COUNTER = "for i in $(seq 1 {n}); do echo line-$i; sleep 0.005; done; echo do''ne\n"


def lines(output: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"line-(\d+)\r\n", output)]


async def cast(person: Person, session_id: str) -> list[list[Any]]:
    recording = (await person.data(f"/api/v1/sessions/{session_id}"))["recording"]
    answer = await person.http.get(f"/api/v1/recordings/{recording}/cast")
    return [json.loads(line) for line in answer.text.splitlines()[1:]]


def shown(events: list[list[Any]]) -> bytes:
    return "".join(event[2] for event in events if event[1] == "o").encode()


def marks(events: list[list[Any]]) -> list[str]:
    return [event[2] for event in events if event[1] == "m"]


async def test_a_lost_browser_comes_back_to_the_same_shell(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.type(COUNTER.format(n=200))
    await screen.until(b"line-20\r")
    screen.socket.drop()
    await screen.socket.done.wait()
    await eventually(lambda: home.services.terminals.hubs[session_id].status == "detached")
    async with asyncio.timeout(10):  # the row follows the hub
        while (await ada.data(f"/api/v1/sessions/{session_id}"))["status"] != "detached":
            await asyncio.sleep(0.01)
    back = await ada.resume(box.id, session_id, screen.offset)
    assert (await back.control("session_id"))["session_id"] == session_id
    resumed = await back.control("resumed")
    assert resumed["offset"] == screen.offset
    assert resumed["input_offset"] == len(COUNTER.format(n=200))
    await back.until(b"done")
    assert lines(bytes(screen.output + back.output)) == list(range(1, 201))
    back.socket.type("exit 3\n")
    assert (await back.control("exit"))["code"] == 3
    events = await cast(ada, session_id)
    assert lines(shown(events)) == list(range(1, 201))
    assert marks(events)[:2] == ["detached: ada", "attached: ada"]
    kinds = {event["type"] for event in (await ada.data("/api/v1/events", page_size=100))["items"]}
    assert {
        "session.requested", "session.opened", "session.started", "session.detached",
        "session.resumed", "session.ended",
    } <= kinds  # fmt: skip


async def test_a_ticket_made_for_resuming_waits_for_the_offset(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.drop()
    ticket = await ada.ticket(box.id, session_id=session_id)
    back = home.screen("/api/v1/tty/ws", ticket["token"])
    await asyncio.sleep(0.3)
    back.socket.say("resume", session_id=session_id, offset=screen.offset)
    assert (await back.control("resumed"))["offset"] == screen.offset


async def test_a_second_window_takes_over(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)
    back = await ada.resume(box.id, session_id, screen.offset)
    await back.control("resumed")
    assert (await screen.end()).code == 4409
    assert screen.controls[-1]["code"] == "displaced"
    screen.socket.type("echo ghost''ly\n")
    back.socket.type("echo re''al\n")
    await back.until(b"real")
    assert b"ghostly" not in back.output


async def test_an_absurd_offset_starts_at_the_end(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)
    back = await ada.resume(box.id, session_id, 2**53)
    assert (await back.control("resumed"))["offset"] == screen.offset
    gone = await ada.resume(box.id, new_id(), 0)
    assert (await gone.end()).code == 4404


async def test_a_session_that_ended_meanwhile_still_gives_its_last_bytes(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.type("sleep 0.2; echo last''-words; exit 7\n")
    screen.socket.drop()
    await eventually(lambda: home.services.terminals.hubs[session_id].announced)
    back = await ada.resume(box.id, session_id, screen.offset)
    await back.until(b"last-words")
    assert (await back.control("exit"))["code"] == 7


async def test_a_cut_link_is_told_and_mended(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.type(COUNTER.format(n=200))
    await screen.until(b"line-20\r")
    await box.disconnect()
    while {"type": "state", "trunk": "lost"} not in screen.controls:
        await screen.step()
    screen.socket.type("echo typed''-while-away\n")
    await asyncio.sleep(0.2)
    answer = await box.connect()
    assert answer == {"terminate": []}
    await screen.until(b"typed-while-away", 15)
    assert lines(bytes(screen.output)) == list(range(1, 201))
    assert screen.output.count(b"typed-while-away") == 1
    screen.socket.type("exit\n")
    await screen.end()
    events = await cast(ada, session_id)
    assert lines(shown(events)) == list(range(1, 201))
    assert "link lost" in marks(events)
    assert "link restored" in marks(events)


async def test_an_agent_that_lost_the_session_ends_it(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    await box.disconnect()
    for entry in box.host.announce():
        box.host.terminate(entry["session_id"], "killed")
    await eventually(lambda: all(entry["exited"] for entry in box.host.announce()))
    box.host._sessions.clear()
    await box.connect()
    assert (await screen.end()).code == 4502
    row = await ada.data(f"/api/v1/sessions/{session_id}")
    assert row["status"] == "error"
    assert "no longer has the session" in row["error_message"]


async def test_an_agent_is_told_to_end_what_nobody_wants(
    home: House, ada: Person, box: Machine
) -> None:
    answer = await home.services.terminals.on_agent_sessions(
        box.node_link,  # type: ignore[arg-type]
        {"sessions": [{"session_id": new_id()}, "x", {"session_id": 5}]},
    )
    assert len(answer["terminate"]) == 1


async def test_another_machine_can_not_claim_a_session(
    home: House, ada: Person, box: Machine
) -> None:
    _, session_id = await ada.shell(box.id)
    thief = await home.machine(name="thief")
    answer = await home.services.terminals.on_agent_sessions(
        thief.node_link,  # type: ignore[arg-type]
        {"sessions": [{"session_id": session_id, "offset": 0}]},
    )
    assert answer["terminate"] == [session_id]
    hub = home.services.terminals.hubs[session_id]
    assert hub.outcome is None
    assert hub.info.agent_id == box.id


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restarted_gateway_goes_on_with_the_shell(tmp_path: Path, how: str) -> None:
    counter = COUNTER.format(n=400)
    async with house(tmp_path) as first:
        ada = await first.setup()
        box = await first.machine()
        screen, session_id = await ada.shell(box.id)
        screen.socket.type(counter)
        await screen.until(b"line-100\r")
        recorder = first.services.terminals.hubs[session_id].recorder
        assert recorder is not None
        if how == "kill":
            # As after kill -9: nothing is written any more, and the last line is half there.
            await eventually(lambda: recorder.position > 0)
            recorder._closing = True
            recorder._file.close()
            recorder.failed = recorder.failed or object()  # type: ignore[assignment]
            path = recorder._file.where.cast
            with path.open("ab") as file:
                file.write(b'[9.5,"o","half a li')
    output, offset = bytes(screen.output), screen.offset
    async with house(tmp_path) as second:
        ada = await second.sign_in("ada")
        second.boss = (await second.services.sign_in.identify(ada.token)).subject
        row = await ada.data(f"/api/v1/sessions/{session_id}")
        assert row["status"] == "detached"
        recording = await ada.data(f"/api/v1/recordings/{row['recording']}")
        assert recording["status"] == "recording"
        box.house = second
        second.machines.append(box)
        back = await ada.resume(box.id, session_id, offset)
        await asyncio.sleep(0.1)  # it waits for its machine
        assert await box.connect() == {"terminate": []}
        await back.until(b"done", 20)
        assert lines(output + bytes(back.output)) == list(range(1, 401))
        back.socket.type("exit 5\n")
        assert (await back.control("exit"))["code"] == 5
        events = await cast(ada, session_id)
        assert lines(shown(events)) == list(range(1, 401))
        assert "gateway restarted" in marks(events)
        times = [event[0] for event in events]
        assert times == sorted(times)
        row = await ada.data(f"/api/v1/sessions/{session_id}")
        assert (row["status"], row["exit_code"]) == ("closed", 5)
        await box.host.close()


async def test_after_a_restart_a_session_the_agent_lost_is_closed(tmp_path: Path) -> None:
    async with house(tmp_path) as first:
        ada = await first.setup()
        box = await first.machine()
        _, session_id = await ada.shell(box.id)
    await box.host.close()
    async with house(tmp_path) as second:
        ada = await second.sign_in("ada")
        box.house = second
        second.machines.append(box)
        await box.connect()
        row = await ada.data(f"/api/v1/sessions/{session_id}")
        assert row["status"] == "error"
        recording = await ada.data(f"/api/v1/recordings/{row['recording']}")
        assert recording["status"] == "interrupted"
        assert recording["sha256"]


async def test_after_a_restart_a_waiting_session_can_be_terminated(tmp_path: Path) -> None:
    async with house(tmp_path) as first:
        ada = await first.setup()
        box = await first.machine()
        _, session_id = await ada.shell(box.id)
    async with house(tmp_path) as second:
        ada = await second.sign_in("ada")
        assert (await ada.http.delete(f"/api/v1/sessions/{session_id}")).status_code == 200
        assert (await ada.data(f"/api/v1/sessions/{session_id}"))["status"] == "closed"
        box.house = second
        second.machines.append(box)
        assert (await box.connect()) == {"terminate": [session_id]}
        await box.host.close()


@pytest.mark.parametrize("who", ["browser", "agent"])
async def test_grace_ends_what_nobody_comes_back_to(tmp_path: Path, who: str) -> None:
    async with house(tmp_path, terminal_grace=0.5) as home:
        ada = await home.setup()
        box = await home.machine()
        screen, session_id = await ada.shell(box.id)
        if who == "browser":
            screen.socket.drop()
        else:
            await box.disconnect()
        hub = home.services.terminals.hubs[session_id]
        await eventually(lambda: hub.announced)
        row = await ada.data(f"/api/v1/sessions/{session_id}")
        assert row["status"] == ("closed" if who == "browser" else "error")
        if who == "agent":
            assert (await screen.end()).code == 4502
        await box.host.close()


async def test_input_typed_before_the_shell_is_there_arrives(
    home: House, ada: Person, box: Machine
) -> None:
    screen: Screen = await ada.open(box.id)
    screen.socket.type("echo ear''ly\n")
    await screen.until(b"early")
