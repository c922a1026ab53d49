"""Offers over HTTP: Ann lends a port, Bob takes the code."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.gateway.http.people_app import App
from underpass.core.ids import new_id
from underpass.gateway.openapi import description

PATH = "/api/v1/offers"


class Neighbours:
    def __init__(self, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
        self.ann, self.bob, self.box = ann, bob, new_id()

    async def offered(self, **changes: Any) -> dict[str, Any]:
        wanted = {"target_client_id": self.box, "target_port": 3306, **changes}
        answer = await self.ann.post(PATH, json=wanted)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])


@pytest.fixture
async def people(app: App) -> Neighbours:
    made = Neighbours(await app.person("ann"), await app.person("bob"))
    ids = await app.services.users.ids_of(["ann"])
    await app.machine(made.box, ids["ann"], name="db-1")
    return made


async def test_the_life_of_an_offer(app: App, people: Neighbours) -> None:
    made = await people.offered(expires_in="5m", access_for="1h")
    code = made.pop("code")
    path = f"{PATH}/{made['id']}"
    assert made == {
        "id": made["id"],
        "user_id": made["user_id"],
        "username": "ann",
        "target_client_id": people.box,
        "machine": "db-1",
        "machine_key": "sha256:00",
        "target": "tcp:127.0.0.1:3306",
        "status": "waiting",
        "access_for": 3600,
        "created_at": made["created_at"],
        "expires_at": made["expires_at"],
        "accepted_by": None,
        "accepted_at": None,
        "ended_at": None,
    }
    assert (await people.ann.get(path)).json()["data"] == made
    assert (await people.bob.get(path)).status_code == 404
    answer = await people.bob.post(f"{PATH}/accept", json={"code": code, "expires_in": 60})
    assert answer.status_code == 200, answer.text
    accepted = answer.json()["data"]
    assert (accepted["status"], accepted["accepted_by"]) == ("accepted", "bob")
    assert (await people.bob.get(path)).json()["data"] == accepted
    assert (await people.bob.get(f"/api/v1/assets/{people.box}")).status_code == 404
    listed = (await people.bob.get(PATH, params={"running": True})).json()["data"]
    assert listed == {"items": [accepted], "total": 1, "page": 1, "page_size": 50}
    ended = (await people.ann.delete(path)).json()["data"]
    assert (ended["status"], ended["ended_at"]) == ("revoked", made["created_at"])
    assert (await people.bob.get(path)).json()["data"] == ended
    assert (await people.ann.get(PATH, params={"running": True})).json()["data"]["total"] == 0


async def test_of_two_at_once_one_wins(app: App, people: Neighbours) -> None:
    eve = await app.person("eve")
    code = (await people.offered())["code"]
    answers = await asyncio.gather(
        *(who.post(f"{PATH}/accept", json={"code": code}) for who in (people.bob, eve))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 404]
    (lost,) = [answer.json() for answer in answers if answer.status_code == 404]
    assert lost["code"] == "bad_code"


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        (PATH, {"target_port": "80"}, "target_port"),
        (PATH, {"protocol": "udp"}, "protocol"),
        (PATH, {"expires_in": "25h"}, "expires_in"),
        (PATH, {"usr_id": 1}, "usr_id"),
        (f"{PATH}/accept", {}, "code"),
        (f"{PATH}/accept", {"code": "7K3M-9QXD-4TNB", "expires_in": []}, "expires_in"),
    ],
)
async def test_what_is_wrong_is_named(
    people: Neighbours, path: str, body: dict[str, Any], word: str
) -> None:
    base = {"target_client_id": people.box, "target_port": 80} if path == PATH else {}
    answer = await people.ann.post(path, json=base | body)
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["message"]


async def test_wrong_codes_are_counted(people: Neighbours) -> None:
    statuses = [
        (await people.bob.post(f"{PATH}/accept", json={"code": "7K3M-9QXD-4TNB"})).status_code
        for _ in range(6)
    ]
    assert statuses == [404] * 5 + [429]


def test_examples_are_in_the_description() -> None:
    paths = description()["paths"]
    assert {"get", "post"} == set(paths[PATH])
    assert {"get", "delete"} == set(paths[f"{PATH}/{{offer_id}}"])
    schemas = description()["components"]["schemas"]
    for name in ("OfferAsked", "AcceptAsked", "OfferBody", "OfferMade"):
        assert schemas[name]["examples"], name
