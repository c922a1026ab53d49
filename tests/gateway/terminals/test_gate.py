"""Who gets a ticket, who may use one: every check of spec 1 with its own status and code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.gateway.terminals.house import House, Machine, Person, eventually, house
from underpass.core.errors import Conflict, Unavailable
from underpass.core.ids import hash_secret, new_id
from underpass.store.db.models import Agent


async def change(home: House, machine: Machine, **fields: Any) -> None:
    async with home.services.database.session() as db:
        await db.execute(update(Agent).where(Agent.id == machine.id).values(**fields))


async def denials(home: House, **wanted: Any) -> list[dict[str, Any]]:
    from underpass.control.events import EventFilter

    items, _ = await home.services.events.page(
        EventFilter(type="session.denied"), page=1, page_size=50
    )
    return items


async def test_the_answer_is_what_scripts_expect(home: House, ada: Person, box: Machine) -> None:
    answer = await ada.authorise(box.id, cols=5000, rows=-3, command="/bin/bash")
    body = answer.json()
    assert answer.status_code == 200
    assert body["token"].startswith("upx_")
    assert len(body["token"]) >= 4 + 43
    assert body["expires_in"] == 300
    assert body["ws_url"] == "ws://test/api/v1/tty/ws"
    assert body["session"] == {"command": "/bin/bash", "cols": 1000, "rows": 1}
    stored = await home.services.kv.get(f"ticket:{hash_secret(body['token'])}")
    assert stored is not None
    assert body["token"].encode() not in stored


async def test_nobody_gets_401(home: House, ada: Person, box: Machine) -> None:
    ada.http.headers.pop("Authorization")
    assert (await ada.authorise(box.id)).status_code == 401


async def test_what_is_not_visible_and_what_is_not_there_look_the_same(
    home: House, ada: Person, box: Machine
) -> None:
    bob = await home.person("bob")
    hidden = await bob.authorise(box.id)
    missing = await bob.authorise(new_id())
    nonsense = await bob.authorise("..")
    await change(home, box, is_deleted=True)
    deleted = await ada.authorise(box.id)
    assert {answer.status_code for answer in (hidden, missing, deleted)} == {404}
    assert hidden.content == missing.content == deleted.content
    assert nonsense.status_code == 404
    assert len(await denials(home)) >= 3


async def test_seeing_is_not_using(home: House, ada: Person, box: Machine) -> None:
    auditor = await home.person("eve", role="auditor")
    answer = await auditor.authorise(box.id)
    assert answer.status_code == 403
    assert (await denials(home))[0]["rule"] == "default-deny"


async def test_allowed_users_may(home: House, ada: Person) -> None:
    bob = await home.person("bob")
    box = await home.machine(bob)
    assert (await bob.authorise(box.id)).status_code == 200
    await box.host.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("offline", "agent_offline"),
        ("maintenance", "agent_maintenance"),
        ("degraded", "agent_unlinked"),
    ],
)
async def test_a_machine_that_is_not_there_is_409(
    home: House, ada: Person, status: str, code: str
) -> None:
    box = await home.machine(linked=False)
    await change(home, box, status=status)
    answer = await ada.authorise(box.id)
    assert (answer.status_code, answer.json()["code"]) == (409, code)


async def test_maintenance_is_409_even_with_a_link(home: House, ada: Person, box: Machine) -> None:
    await change(home, box, status="maintenance")
    assert (await ada.authorise(box.id)).json()["code"] == "agent_maintenance"


@pytest.mark.parametrize("cap", ["max_sessions_per_user", "max_sessions_per_agent"])
async def test_caps_are_429_and_count_detached_sessions(tmp_path: Path, cap: str) -> None:
    async with house(tmp_path, **{cap: 1}) as home:
        ada = await home.setup()
        box = await home.machine()
        spare = await ada.ticket(box.id)
        screen, session_id = await ada.shell(box.id)
        screen.socket.drop()
        await screen.socket.done.wait()
        answer = await ada.authorise(box.id)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_sessions")
        assert answer.json()["limit"] == 1
        # A ticket from before does not get round the cap.
        late = home.screen("/api/v1/tty/ws", spare["token"])
        assert (await late.end()).code == 4429
        # Coming back is not one more.
        assert (await ada.authorise(box.id, session_id=session_id)).status_code == 200
        await box.host.close()


async def test_too_many_attempts_are_429_with_retry_after(
    home: House, ada: Person, box: Machine
) -> None:
    codes = []
    for _ in range(121):
        answer = await ada.authorise(new_id())
        codes.append(answer.status_code)
    assert codes[0] == 404
    assert codes[-1] == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await ada.authorise(box.id)).status_code == 429
    assert len(await denials(home)) <= 120


async def test_an_old_clients_user_id_must_be_its_own(
    home: House, ada: Person, box: Machine
) -> None:
    assert (await ada.authorise(box.id, user_id=ada.id)).status_code == 200
    answer = await ada.authorise(box.id, user_id=new_id())
    assert (answer.status_code, answer.json()["code"]) == (403, "not_your_user_id")


@pytest.mark.parametrize("query", [{"login": "a b"}, {"login": "-x"}, {"command": "x" * 4000}])
async def test_what_can_not_be_a_command_or_login_is_400(
    home: House, ada: Person, box: Machine, query: dict[str, str]
) -> None:
    assert (await ada.authorise(box.id, **query)).status_code == 400


async def test_strict_recording_refuses_when_the_disk_is_full(tmp_path: Path) -> None:
    async with house(tmp_path, recording="strict") as home:
        ada = await home.setup()
        box = await home.machine()
        spare = await ada.ticket(box.id)
        home.services.terminals.desk.store.free_bytes = lambda: 10  # type: ignore[method-assign]
        answer = await ada.authorise(box.id)
        assert (answer.status_code, answer.json()["code"]) == (503, "recording_unavailable")
        screen = home.screen("/api/v1/tty/ws", spare["token"])
        assert (await screen.end()).code == Unavailable.close_code
        await box.host.close()


async def test_best_effort_goes_on_without_a_recording(
    home: House, ada: Person, box: Machine
) -> None:
    home.services.terminals.desk.store.free_bytes = lambda: 10  # type: ignore[method-assign]
    screen, session_id = await ada.shell(box.id)
    assert (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"] is None
    screen.socket.type("exit\n")
    await screen.end()
    events = await ada.data("/api/v1/events", type="recording.failed")
    assert events["total"] == 1


async def test_a_ticket_works_once_and_only_for_its_owner(
    home: House, ada: Person, box: Machine
) -> None:
    bob = await home.person("bob")
    ticket = await ada.ticket(box.id)
    stolen = home.screen(
        "/api/v1/tty/ws", ticket["token"], headers={"Authorization": f"Bearer {bob.token}"}
    )
    assert (await stolen.end()).code == 4401
    # Wrong use burned it.
    again = home.screen("/api/v1/tty/ws", ticket["token"])
    assert (await again.end()).code == 4401


async def test_a_ticket_of_a_user_disabled_since_is_refused(home: House, ada: Person) -> None:
    bob = await home.person("bob")
    box = await home.machine(bob)
    ticket = await bob.ticket(box.id)
    answer = await ada.http.patch(f"/api/v1/users/{bob.id}", json={"disabled": True})
    assert answer.status_code == 200
    screen = home.screen("/api/v1/tty/ws", ticket["token"])
    assert (await screen.end()).code == 4403
    await box.host.close()


async def test_a_ticket_of_a_machine_gone_since_is_refused(
    home: House, ada: Person, box: Machine
) -> None:
    ticket = await ada.ticket(box.id)
    await box.disconnect()
    await change(home, box, status="offline")
    screen = home.screen("/api/v1/tty/ws", ticket["token"])
    closed = await screen.end()
    assert closed.code == Conflict.close_code
    assert screen.controls[-1]["code"] == "agent_offline"


async def test_a_ticket_for_one_machine_resumes_nothing_on_another(
    home: House, ada: Person, box: Machine
) -> None:
    other = await home.machine(name="other")
    _, session_id = await ada.shell(box.id)
    screen = await ada.resume(other.id, session_id, 0)
    assert (await screen.end()).code == 4404
    answer = await ada.authorise(other.id, session_id=session_id)
    assert answer.status_code == 404


async def test_user_b_reaches_nothing_of_user_a(home: House, ada: Person) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    box = await home.machine(alice, bob)
    screen, session_id = await alice.shell(box.id)
    recording = (await alice.data(f"/api/v1/sessions/{session_id}"))["recording"]
    for path in (
        f"/api/v1/sessions/{session_id}",
        f"/api/v1/recordings/{recording}",
        f"/api/v1/recordings/{recording}/cast",
        f"/api/v1/recordings/{recording}/index",
    ):
        assert (await bob.http.get(path)).status_code == 404, path
        assert (await alice.http.get(path)).status_code == 200, path
    assert (await bob.http.delete(f"/api/v1/sessions/{session_id}")).status_code == 404
    assert (await bob.http.delete(f"/api/v1/recordings/{recording}")).status_code == 403
    sharing = await bob.http.post(f"/api/v1/sessions/{session_id}/sharing", json={"join": True})
    assert sharing.status_code == 404
    assert (await bob.data("/api/v1/sessions"))["total"] == 0
    assert (await bob.data("/api/v1/recordings"))["total"] == 0
    assert (await bob.data("/api/v1/recordings", text="bash"))["total"] == 0
    assert (await bob.authorise(box.id, session_id=session_id)).status_code == 404
    bobs = {"Authorization": f"Bearer {bob.token}"}
    resumed = await bob.resume(box.id, session_id, 0)
    assert (await resumed.end()).code == 4404
    for mode in ("observe", "join"):
        watching = home.screen(f"/api/v1/tty/ws?mode={mode}&session_id={session_id}", headers=bobs)
        assert (await watching.end()).code == 4404, mode
    live = home.screen(f"/api/v1/recordings/{recording}/live", headers=bobs)
    assert (await live.end()).status == 404
    screen.socket.type("exit\n")
    await screen.end()
    await box.host.close()


@pytest.mark.parametrize("how", ["disabled", "allowed_users", "deleted"])
async def test_lost_rights_cut_the_live_session(home: House, ada: Person, how: str) -> None:
    bob = await home.person("bob")
    box = await home.machine(bob)
    screen, session_id = await bob.shell(box.id)
    if how == "disabled":
        await ada.http.patch(f"/api/v1/users/{bob.id}", json={"disabled": True})
    elif how == "allowed_users":
        await ada.http.patch(f"/api/v1/assets/{box.id}", json={"allowed_users": []})
    else:
        await ada.http.delete(f"/api/v1/assets/{box.id}")
    closed = await screen.end(timeout=5)
    assert closed.code == (4502 if how == "deleted" else 4403)
    row = await home.services.sessions.get(session_id)
    assert row is not None
    assert row.status == "closed"
    assert row.error_message
    await eventually(lambda: not box.host.announce())
    await box.host.close()
