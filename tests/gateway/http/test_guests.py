"""A guest's life over HTTP: in, an offer, a code, and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.http.people_app import App, people_app
from underpass.core.ids import new_id

OFFERS = "/api/v1/offers"
WANTED = {"protocol": "tcp", "target_port": 3306}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with people_app(tmp_path, guests="all") as made:
        yield made


async def guest(app: App, address: str = "192.0.2.1") -> tuple[httpx.AsyncClient, dict[str, Any]]:
    answer = await app.client(address=address).post("/api/v1/guests")
    assert answer.status_code == 200, answer.text
    login = answer.json()["data"]
    return app.client(login["access_token"], address=address), login


async def test_a_login(app: App) -> None:
    _, login = await guest(app)
    assert login["token_type"] == "bearer"
    assert login["expires_in"] == 12 * 3600
    assert login["id"].startswith("guest:")
    assert login["username"].startswith("guest-")
    assert login["may_offer"] is True
    admin = await app.admin()
    told = (await admin.get("/api/v1/events", params={"type": "guest.admitted"})).text
    assert login["username"] in told
    assert login["access_token"] not in told


async def test_a_page_elsewhere_gets_none(app: App) -> None:
    headers = {"origin": "http://evil.org"}
    assert (await app.client().post("/api/v1/guests", headers=headers)).status_code == 403


async def test_offered_by_one_and_accepted_by_another(app: App) -> None:
    host, login = await guest(app)
    made = (await host.post(OFFERS, json=WANTED)).json()["data"]
    assert (made["target_client_id"], made["machine"]) == (login["id"], login["username"])
    borrower, other = await guest(app, "192.0.2.2")
    accepted = await borrower.post(f"{OFFERS}/accept", json={"code": made["code"]})
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["data"]["accepted_by"] == other["username"]
    stranger, _ = await guest(app, "192.0.2.3")
    assert (await stranger.get(f"{OFFERS}/{made['id']}")).status_code == 404
    assert (await stranger.get(OFFERS)).json()["data"]["total"] == 0
    admin = await app.admin()
    (seen,) = (await admin.get(OFFERS)).json()["data"]["items"]
    assert (seen["id"], seen["username"]) == (made["id"], login["username"])
    assert made["code"] not in (await admin.get(OFFERS)).text
    revoked = await admin.delete(f"{OFFERS}/{made['id']}")
    assert revoked.json()["data"]["status"] == "revoked"
    assert (await host.get(f"{OFFERS}/{made['id']}")).json()["data"]["status"] == "revoked"


async def test_it_ends_after_twelve_hours(app: App) -> None:
    client, _ = await guest(app)
    assert (await client.get(OFFERS)).status_code == 200
    app.clock.advance(12 * 3600)
    assert (await client.get(OFFERS)).status_code == 401


async def test_no_machine_by_naming_it(app: App) -> None:
    box = new_id()
    await app.machine(box)
    client, _ = await guest(app)
    refused = await client.post(OFFERS, json=WANTED | {"target_client_id": box})
    assert (refused.status_code, refused.json()["code"]) == (403, "guests_may_not")


async def test_people_must_name_theirs(app: App) -> None:
    bob = await app.person("bob")
    refused = await bob.post(OFFERS, json=WANTED)
    assert (refused.status_code, refused.json()["field"]) == (400, "target_client_id")


async def test_where_guests_only_borrow(tmp_path: Path) -> None:
    async with people_app(tmp_path, guests="accept") as app:
        client, login = await guest(app)
        assert login["may_offer"] is False
        refused = await client.post(OFFERS, json=WANTED)
        assert (refused.status_code, refused.json()["code"]) == (403, "guests_may_not_offer")
