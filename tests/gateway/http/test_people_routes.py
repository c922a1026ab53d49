"""Users, API keys and events over HTTP: who may, what is shown, and what B sees of A."""

from __future__ import annotations

import csv
import io
import json

from tests.gateway.http.people_app import PASSWORD, App
from underpass.core.ids import new_id


async def _me(client) -> str:
    return (await client.get("/api/v1/auth/me")).json()["data"]["user"]["id"]


async def test_admins_manage_users(app: App) -> None:
    admin = await app.admin()
    made = await admin.post(
        "/api/v1/users",
        json={"username": "Bob", "password": PASSWORD, "role": "auditor", "groups": ["later"]},
    )
    assert made.status_code == 200
    bob = made.json()["data"]
    assert bob["username"] == "bob"
    path = f"/api/v1/users/{bob['id']}"
    assert (await admin.get(path)).json()["data"] == bob
    page = (await admin.get("/api/v1/users?q=BO&sort=-username")).json()["data"]
    assert page == {"items": [bob], "total": 1, "page": 1, "page_size": 50}
    assert (await admin.patch(path, json={"role": "user"})).json()["data"]["role"] == "user"
    assert (await admin.put(path, json={"email": "b@x.org"})).json()["data"]["email"] == "b@x.org"
    assert (await admin.patch(path, json={"role": "root"})).status_code == 400
    assert (await admin.delete(path)).status_code == 200
    assert (await admin.get(path)).status_code == 404
    again = {"username": "ada", "password": PASSWORD}
    assert (await admin.post("/api/v1/users", json=again)).status_code == 409


async def test_the_public_fields_are_a_fixed_list(app: App) -> None:
    admin = await app.admin()
    (user,) = (await admin.get("/api/v1/users")).json()["data"]["items"]
    assert sorted(user) == [
        "created_at", "disabled", "email", "id", "last_login_at", "role", "username",
    ]  # fmt: skip
    await admin.post("/api/v1/api-keys", json={"name": "x"})
    (key,) = (await admin.get("/api/v1/api-keys")).json()["data"]["items"]
    assert sorted(key) == ["created_at", "expires_at", "id", "last_used_at", "name"]


async def test_others_do_not_manage_users(app: App) -> None:
    bob, auditor = await app.person("bob"), await app.person("grace", "auditor")
    admin = await app.admin()
    ada, bob_id = await _me(admin), await _me(bob)
    new = {"username": "eve", "password": PASSWORD, "role": "admin"}
    for client in (bob, auditor):
        assert (await client.post("/api/v1/users", json=new)).status_code == 403
        assert (
            await client.patch(f"/api/v1/users/{ada}", json={"disabled": True})
        ).status_code == 403
        assert (await client.delete(f"/api/v1/users/{ada}")).status_code == 403
        own = f"/api/v1/users/{await _me(client)}"
        assert (await client.patch(own, json={"role": "admin"})).status_code == 403, "no self-help"
        assert (await client.get(own)).status_code == 200
    assert (await auditor.get("/api/v1/users")).status_code == 200
    assert (await auditor.get(f"/api/v1/users/{bob_id}")).status_code == 200
    assert (await bob.get("/api/v1/users")).status_code == 403
    foreign = await bob.get(f"/api/v1/users/{ada}")
    unknown = await bob.get(f"/api/v1/users/{new_id()}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text == unknown.text, "one body for both"


async def test_api_keys_of_others_do_not_exist(app: App) -> None:
    bob, eve = await app.person("bob"), await app.person("eve")
    key = (await bob.post("/api/v1/api-keys", json={"name": "b", "expires_in": 60})).json()["data"]
    assert key["token"].startswith("upt_")
    foreign = await eve.delete(f"/api/v1/api-keys/{key['id']}")
    unknown = await eve.delete(f"/api/v1/api-keys/{new_id()}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text == unknown.text
    assert (await eve.post("/api/v1/auth/revoke", json={"jti": key["id"]})).status_code == 404
    await eve.post("/api/v1/auth/revoke", json={"token": key["token"]})
    assert (await eve.get("/api/v1/api-keys")).json()["data"]["total"] == 0
    holder = app.client(key["token"])
    assert await _me(holder) == await _me(bob)
    assert (await holder.post("/api/v1/api-keys", json={"name": "heir"})).status_code == 403
    assert (await bob.delete(f"/api/v1/api-keys/{key['id']}")).status_code == 200
    assert (await holder.get("/api/v1/auth/me")).status_code == 401


async def test_an_api_key_has_its_owners_rights_and_no_more(app: App) -> None:
    bob = await app.person("bob")
    key = (await bob.post("/api/v1/api-keys", json={"name": "b"})).json()["data"]["token"]
    holder = app.client(key)
    for path in ("/api/v1/users", "/api/v1/events", "/api/v1/enrolments"):
        assert (await holder.get(path)).status_code == 403, path


async def test_api_keys_come_in_pages(app: App) -> None:
    admin = await app.admin()
    for n in range(3):
        await admin.post("/api/v1/api-keys", json={"name": f"k{n}"})
        app.clock.advance(1)
    page = (await admin.get("/api/v1/api-keys?page=2&page_size=2")).json()["data"]
    assert page["total"] == 3
    assert [item["name"] for item in page["items"]] == ["k0"]


async def test_events_are_for_admins_and_auditors(app: App) -> None:
    bob, auditor = await app.person("bob"), await app.person("grace", "auditor")
    assert (await bob.get("/api/v1/events")).status_code == 403
    assert (await bob.get("/api/v1/events?format=csv")).status_code == 403
    page = (await auditor.get("/api/v1/events?type=user&page_size=1")).json()["data"]
    assert page["total"] == 2
    assert page["items"][0]["type"] == "user.created"


async def test_events_filter_by_time_and_more(app: App) -> None:
    admin = await app.admin()
    app.clock.advance(100)
    await app.http.post("/api/v1/auth/login", json={"username": "eve", "password": "nope"})

    async def total(query: str) -> int:
        answer = await admin.get(f"/api/v1/events?{query}")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["data"]["total"])

    everything = await total("")
    assert await total("type=login.failed&actor=eve&outcome=denied") == 1
    assert await total("from=2023-11-14T22:14:00Z") == 1
    assert await total("from=2023-11-14T23:14:00%2B01:00") == 1
    assert await total("from=2023-11-14T23:14:00+01:00") == 1
    assert await total("to=1700000050") == everything - 1
    assert await total("q=eve") == 1
    assert await total("agent=" + new_id()) == 0
    for bad in ("from=yesterday", "outcome=x", "format=xml", "sort=actor", "to=1e99"):
        assert (await admin.get(f"/api/v1/events?{bad}")).status_code == 400, bad


async def test_events_as_csv_and_json_lines(app: App) -> None:
    admin = await app.admin()
    await app.http.post(
        "/api/v1/auth/login", json={"username": "=cmd|'/c calc'!a1", "password": "x"}
    )
    answer = await admin.get("/api/v1/events?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    actors = {row["actor"] for row in rows}
    assert "'=cmd|'/c calc'!a1" in actors, "no spreadsheet takes it for a formula"
    lines = (await admin.get("/api/v1/events?format=jsonl")).text.splitlines()
    assert len(lines) == len(rows)
    assert {json.loads(line)["type"] for line in lines} >= {"setup.completed", "login.failed"}
