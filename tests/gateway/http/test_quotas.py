"""Quotas over HTTP, and the lists of one user's and one machine's mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.http.people_app import App, people_app
from tests.gateway.http.test_mappings import Tenants, tenants
from underpass.core.ids import new_id
from underpass.core.settings import SettingsError
from underpass.gateway.openapi import description

__all__ = ["tenants"]  # a fixture


async def ids(app: App) -> dict[str, str]:
    return await app.services.users.ids_of(["ada", "ann", "bob"])


async def test_only_what_is_posted_changes(tenants: Tenants) -> None:
    app = tenants.app
    admin, ann = await app.admin(), (await ids(app))["ann"]
    path = f"/api/v1/users/{ann}/quota"
    before = (await tenants.ann.get(path)).json()["data"]
    assert before["user_id"] == ann
    assert {before[name] for name in before if name not in {"user_id", "usage"}} == {None}
    posted = await admin.post(path, json={"max_mappings": 2, "bandwidth": 20_000})
    assert posted.status_code == 200, posted.text
    changed = (await admin.post(path, json={"max_sessions": 3, "bandwidth": None})).json()["data"]
    assert changed == before | {"max_mappings": 2, "max_sessions": 3}
    assert (await admin.post(path, json=changed)).json()["data"] == changed
    assert (await tenants.ann.get(path)).json()["data"] == changed
    for wrong, field in (
        ({"max_mappings": -1}, "max_mappings"), ({"max_mappings": "2"}, "max_mappings"),
        ({"max_mapings": 2}, "max_mapings"), ({"bandwidth": 5}, "bandwidth"),
    ):  # fmt: skip
        refused = await admin.post(path, json=wrong)
        assert refused.status_code == 400, wrong
        assert field in refused.json()["message"]
    assert (await tenants.ann.get(path)).json()["data"] == changed


async def test_what_is_used_shows(tenants: Tenants) -> None:
    app = tenants.app
    ann = (await ids(app))["ann"]
    await tenants.made()
    await tenants.made(status="disabled")

    class Counter:
        bytes_in, bytes_out = 1000, 234

    app.services.allowances.of(ann).begin(Counter(), lambda error: None)
    usage = (await tenants.ann.get(f"/api/v1/users/{ann}/quota")).json()["data"]["usage"]
    assert usage == {
        "clients": 0, "mappings": 2, "active_mappings": 1, "sessions": 0, "connections": 1,
        "traffic": 1234, "month": "2023-11", "renews_at": "2023-12-01T00:00:00.000Z",
    }  # fmt: skip


async def test_whose_quota_who_sees_and_changes(tenants: Tenants) -> None:
    app = tenants.app
    everybody = await ids(app)
    auditor = await app.person("iva", "auditor")
    path = f"/api/v1/users/{everybody['ann']}/quota"
    assert (await auditor.get(path)).status_code == 200
    others = await tenants.bob.get(path)
    nobody = await tenants.bob.get(f"/api/v1/users/{new_id()}/quota")
    assert (others.status_code, others.json()) == (nobody.status_code, nobody.json())
    assert others.status_code == 404
    for who in (tenants.ann, tenants.bob, auditor):
        assert (await who.post(path, json={"max_mappings": 9})).status_code == 403
    admin = await app.admin()
    assert (await admin.post(f"/api/v1/users/{new_id()}/quota", json={})).status_code == 404


async def test_over_quota_nothing_is_made_and_the_answer_says_why(tenants: Tenants) -> None:
    admin, ann = await tenants.app.admin(), (await ids(tenants.app))["ann"]
    path = f"/api/v1/users/{ann}/quota"
    await admin.post(path, json={"max_active_mappings": 1})
    await tenants.made()
    refused = await tenants.ann.post("/api/v1/mappings", json=tenants.ssh())
    assert refused.status_code == 429
    body = refused.json()
    assert (body["code"], body["quota"], body["limit"]) == (
        "quota_exceeded", "max_active_mappings", 1,
    )  # fmt: skip
    assert body["message"] == "The quota allows 1 active mappings, and there are 1."
    assert "admin" in body["hint"]
    assert (await tenants.ann.get("/api/v1/mappings")).json()["data"]["total"] == 1
    await admin.post(path, json={"max_active_mappings": None})
    await tenants.made()


async def test_defaults_of_the_settings(tmp_path: Path) -> None:
    async with people_app(tmp_path, default_quota={"max_mappings": 7}) as app:
        ada = (await ids(app))["ada"]
        admin, path = await app.admin(), f"/api/v1/users/{ada}/quota"
        assert (await admin.get(path)).json()["data"]["max_mappings"] == 7
        changed = (await admin.post(path, json={"max_mappings": None})).json()["data"]
        assert changed["max_mappings"] is None
    with pytest.raises(SettingsError, match=r"default_quota\.max_mapings"):
        async with people_app(tmp_path / "other", default_quota={"max_mapings": 7}):
            pass


async def test_one_users_and_one_machines_mappings(tenants: Tenants) -> None:
    app = tenants.app
    everybody = await ids(app)
    made = await tenants.made(name="ssh")
    admin = await app.admin()

    async def listed(who: Any, path: str) -> Any:
        answer = await who.get(path)
        return answer.json()["data"]["items"] if answer.status_code == 200 else answer.status_code

    of_ann, of_box = f"/api/v1/users/{everybody['ann']}/mappings", f"/api/v1/clients/{tenants.box}"
    for path in (of_ann, f"{of_box}/mappings", f"{of_ann}?q=ss&page_size=1&sort=name"):
        assert await listed(tenants.ann, path) == await listed(admin, path) == [made], path
        assert await listed(tenants.bob, path) == 404, path
    assert await listed(tenants.ann, f"{of_ann}?q=nothing") == []
    assert await listed(admin, f"/api/v1/users/{everybody['bob']}/mappings") == []
    for nobody in (f"/api/v1/users/{new_id()}/mappings", f"/api/v1/clients/{new_id()}/mappings"):
        assert await listed(admin, nobody) == 404


def test_the_description_has_examples() -> None:
    document = description()
    assert set(document["paths"]["/api/v1/users/{user_id}/quota"]) == {"get", "post"}
    for name in ("QuotaAsked", "QuotaBody"):
        assert document["components"]["schemas"][name]["examples"]
