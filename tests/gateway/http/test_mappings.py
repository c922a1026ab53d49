"""Mappings over HTTP, as scripts and the console see them; the entry points are made up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.control.entry_points import FakeEntryPoints
from tests.gateway.http.people_app import App, people_app
from underpass.control.health import HealthStatus
from underpass.control.mapping import MappingLive
from underpass.core.ids import new_id
from underpass.gateway.openapi import description

PATH = "/api/v1/mappings"


class Tenants:
    """Ann and Bob, each with a machine of their own."""

    def __init__(self, app: App, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
        self.app, self.ann, self.bob = app, ann, bob
        self.box, self.bobs_box = new_id(), new_id()
        self.entries = FakeEntryPoints()
        app.services.mappings.entry_points = self.entries

    def ssh(self, **changes: Any) -> dict[str, Any]:
        return {"protocol": "tcp", "target_client_id": self.box, "target_port": 22, **changes}

    async def made(self, **changes: Any) -> dict[str, Any]:
        answer = await self.ann.post(PATH, json=self.ssh(**changes))
        assert answer.status_code == 200, answer.text
        assert answer.json()["success"] is True
        return dict(answer.json()["data"])


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    async with people_app(tmp_path, public_url="https://gw.example.org", port_range="20000-20009",
                          max_mappings_per_user=3) as app:  # fmt: skip
        made = Tenants(app, await app.person("ann"), await app.person("bob"))
        ids = await app.services.users.ids_of(["ann", "bob"])
        await app.machine(made.box, ids["ann"])
        await app.machine(made.bobs_box, ids["bob"], name="bobs")
        yield made


async def test_the_life_of_a_mapping(tenants: Tenants) -> None:
    ann = tenants.ann
    made = await tenants.made(name="ssh", source={"port": 20_005}, limits={"bandwidth": 1000})
    path = f"{PATH}/{made['id']}"
    assert made["public_url"] == "tcp://gw.example.org:20005"
    assert made["source"] == {"port": 20_005}
    assert (made["status"], made["version"], made["target_host"]) == ("active", 1, "127.0.0.1")
    assert made["limits"] == {"bandwidth": 1000, "connections": None, "burst": None}
    assert (await ann.get(path)).json()["data"] == made
    listed = (await ann.get(PATH)).json()["data"]
    assert listed == {"items": [made], "total": 1, "page": 1, "page_size": 50}
    changed = (await ann.patch(path, json={"options": {"carrier": "mux"}})).json()["data"]
    assert (changed["options"]["carrier"], changed["version"]) == ("mux", 2)
    put = await ann.put(path, json=changed | {"name": "renamed"})
    assert put.status_code == 200, put.text
    assert put.json()["data"]["name"] == "renamed"
    single = (await ann.put(path, json={"status": "disabled"})).json()["data"]
    assert (single["status"], single["name"], single["version"]) == ("disabled", "renamed", 4)
    assert (await ann.delete(path)).json() == {"success": True, "code": 0, "data": {}}
    assert (await ann.get(path)).status_code == 404
    assert tenants.entries.opened == {}


async def test_any_port_answers_which(tenants: Tenants) -> None:
    for source in ({"port": 0}, {}, None):
        changes = {} if source is None else {"source": source}
        made = await tenants.made(**changes)
        assert made["public_port"] == made["source"]["port"]
        assert 20_000 <= made["public_port"] <= 20_009
    full = await tenants.ann.post(PATH, json=tenants.ssh())
    assert (full.status_code, full.json()["code"]) == (429, "too_many_mappings")


async def test_anothers_mapping_is_like_one_that_does_not_exist(tenants: Tenants) -> None:
    made = await tenants.made()
    for method, suffix, body in (
        ("GET", "", None), ("PUT", "", {"name": "x"}), ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None), ("GET", "/stats", None),
    ):  # fmt: skip
        bodies = []
        for one in (made["id"], new_id()):
            answer = await tenants.bob.request(method, f"{PATH}/{one}{suffix}", json=body)
            bodies.append((answer.status_code, answer.text))
        assert bodies[0] == bodies[1]
        assert bodies[0][0] == 404
    assert (await tenants.bob.get(PATH)).json()["data"]["total"] == 0
    query = {"user_id": made["user_id"]}
    assert (await tenants.bob.get(PATH, params=query)).json()["data"]["total"] == 0
    foreign = await tenants.bob.post(PATH, json=tenants.ssh(user_id=made["user_id"]))
    assert foreign.status_code == 404
    assert "machine" in foreign.json()["message"]
    taken = tenants.ssh(target_client_id=tenants.bobs_box, source={"port": made["public_port"]})
    answer = await tenants.bob.post(PATH, json=taken)
    assert (answer.status_code, answer.json()["code"]) == (409, "port_leased")


async def test_auditors_look_and_admins_do(tenants: Tenants) -> None:
    made = await tenants.made()
    auditor = await tenants.app.person("iva", "auditor")
    admin = await tenants.app.admin()
    path = f"{PATH}/{made['id']}"
    assert (await auditor.get(path)).json()["data"] == made
    assert (await auditor.delete(path)).status_code == 403
    owned = await admin.get(PATH, params={"user_id": made["user_id"], "client_id": tenants.box})
    assert owned.json()["data"]["total"] == 1
    changed = await admin.patch(path, json={"status": "disabled"})
    assert changed.json()["data"]["user_id"] == made["user_id"]


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"protocol": "https"}, "protocol", "protocol_not_offered"),
        ({"protocol": None}, "protocol", "invalid_request"),
        ({"target_port": "x"}, "target_port", "invalid_request"),
        ({"target_client_id": 5}, "target_client_id", "invalid_request"),
        ({"source": {"port": 22}}, "source.port", "port_not_allowed"),
        ({"source": {"port": 1.5}}, "source.port", "invalid_request"),
        ({"source": []}, "source", "invalid_request"),
        ({"source": {"host": "app"}}, "source", "source_not_offered"),
        ({"options": {"allow_ip": []}}, "options.allow_ip", "invalid_request"),
        ({"options": {"e2e": "yes"}}, "options.e2e", "invalid_request"),
        ({"options": {"tls": "none"}}, "options.tls", "option_not_offered"),
        ({"limits": {"connections": 0}}, "limits.connections", "invalid_request"),
        ({"health": {"type": "icmp"}}, "health.type", "invalid_request"),
        ({"nonsense": 1}, "nonsense", "invalid_request"),
    ],
)
async def test_one_clear_error_names_the_field(
    tenants: Tenants, changes: dict[str, Any], field: str, code: str
) -> None:
    answer = await tenants.ann.post(PATH, json=tenants.ssh(**changes))
    body = answer.json()
    assert (answer.status_code, body["code"], body["field"]) == (400, code, field)
    assert body["message"].startswith(f"{field}:")


async def test_a_port_another_program_has(tenants: Tenants) -> None:
    tenants.entries.busy = {20_004}
    answer = await tenants.ann.post(PATH, json=tenants.ssh(source={"port": 20_004}))
    assert (answer.status_code, answer.json()["code"]) == (409, "port_in_use")
    assert (await tenants.ann.get(PATH)).json()["data"]["total"] == 0


async def test_the_gateways_own_port(tmp_path: Path) -> None:
    async with people_app(tmp_path, port_range="1-65535", listen="127.0.0.1:3100") as app:
        app.services.mappings.entry_points = FakeEntryPoints()
        box, admin = new_id(), await app.admin()
        await app.machine(box)
        wanted = {"protocol": "tcp", "target_client_id": box, "target_port": 1}
        own = await admin.post(PATH, json=wanted | {"source": {"port": 3100}})
        assert (own.status_code, own.json()["code"]) == (400, "port_not_allowed")
        low = await admin.post(PATH, json=wanted | {"source": {"port": 80}})
        assert low.json()["data"]["public_url"] == "tcp://localhost:80"
        socks = {"protocol": "socks5", "target_client_id": box}
        local = (await admin.post(PATH, json=socks)).json()["data"]
        assert local["source"]["bind"] == "127.0.0.1"


async def test_passwords_are_taken_and_never_shown(tenants: Tenants) -> None:
    socks = {"protocol": "socks5", "target_client_id": tenants.box}
    refused = await tenants.ann.post(PATH, json=socks)
    assert (refused.status_code, refused.json()["code"]) == (400, "login_needed")
    login = {"basic_auth": {"username": "ann", "password": "hunter22hunter22"}}
    made = await tenants.ann.post(PATH, json=socks | {"options": login})
    assert made.status_code == 200, made.text
    assert made.json()["data"]["options"]["username"] == "ann"
    path = f"{PATH}/{made.json()['data']['id']}"
    put = await tenants.ann.put(path, json=made.json()["data"] | {"name": "proxy"})
    shown = made.text + put.text + (await tenants.ann.get(path)).text
    admin = await tenants.app.admin()
    shown += (await admin.get("/api/v1/events")).text
    assert "hunter22" not in shown
    opened = next(iter(tenants.entries.opened.values()))
    assert opened.options.password == "hunter22hunter22"


async def test_stats_merge_what_is_stored_and_what_goes_on(tenants: Tenants) -> None:
    made = await tenants.made()
    path = f"{PATH}/{made['id']}"
    assert made["stats"] == {
        "total_connections": 0, "active": 0, "bytes_sent": 0, "bytes_received": 0,
        "last_active_at": None,
    }  # fmt: skip
    await tenants.app.services.mappings.add_usage(
        made["id"], connections=3, sent=100, received=50, last_active_at=1.0
    )
    tenants.entries.lives[made["id"]] = MappingLive(2, 5.0, 6.0, 1, 10, 20, 1_700_000_000.0, 4)
    merged = {
        "total_connections": 4, "active": 2, "bytes_sent": 110, "bytes_received": 70,
        "last_active_at": "2023-11-14T22:13:20.000Z",
    }  # fmt: skip
    assert (await tenants.ann.get(path)).json()["data"]["stats"] == merged
    stats = (await tenants.ann.get(f"{path}/stats")).json()["data"]
    assert stats == merged | {"sent_rate": 5.0, "received_rate": 6.0, "dropped": 4}


@pytest.mark.parametrize(
    "before",
    [MappingLive(total_connections=3), MappingLive(total_connections=3, writes=1, settled=False)],
)
async def test_totals_do_not_dip_while_they_are_written(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, before: MappingLive
) -> None:
    """The row was read before, what is not in it after it was written."""
    made = await tenants.made()
    mappings = tenants.app.services.mappings
    get = mappings.get

    async def written_meanwhile(*arguments: Any) -> Any:
        stale = await get(*arguments)
        if tenants.entries.lives[made["id"]] is before:
            await mappings.add_usage(made["id"], connections=3)
            tenants.entries.lives[made["id"]] = MappingLive(writes=1)
        return stale

    monkeypatch.setattr(mappings, "get", written_meanwhile)
    for path in (f"{PATH}/{made['id']}/stats", f"{PATH}/{made['id']}"):
        tenants.entries.lives.setdefault(made["id"], before)
        found = (await tenants.ann.get(path)).json()["data"]
        assert found.get("stats", found)["total_connections"] == 3


async def test_the_health_of_the_target(tenants: Tenants) -> None:
    made = await tenants.made(health={"type": "http", "path": "/ok"})
    assert made["health"]["path"] == "/ok"
    assert made["health_status"] is None  # of these made-up entry points
    status = HealthStatus("down", "The target answered 503.", 1_700_000_000.0)
    tenants.entries.lives[made["id"]] = MappingLive(health=status)
    found = (await tenants.ann.get(f"{PATH}/{made['id']}")).json()["data"]
    assert found["health_status"] == {
        "health": "down", "reason": "The target answered 503.", "since": "2023-11-14T22:13:20.000Z",
    }  # fmt: skip
    put = await tenants.ann.put(f"{PATH}/{made['id']}", json=found)
    assert put.json()["data"]["version"] == made["version"]


async def test_lists_are_filtered_and_sorted(tenants: Tenants) -> None:
    await tenants.made(name="b")
    await tenants.made(name="a", protocol="udp", target_port=53)

    async def names(**query: str) -> list[str]:
        answer = await tenants.ann.get(PATH, params=query)
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json()["data"]["items"]]

    assert await names(sort="name") == ["a", "b"]
    assert await names(protocol="udp") == ["a"]
    assert await names(q="B") == ["b"]
    assert await names(status="disabled") == []
    assert await names(client_id=tenants.box, sort="-name") == ["b", "a"]
    assert (await tenants.ann.get(PATH, params={"sort": "options"})).status_code == 400
    assert (await tenants.ann.get(PATH, params={"protocol": "http"})).status_code == 400


async def test_a_removed_owner_leaves_no_mapping(tenants: Tenants) -> None:
    import asyncio

    made = await tenants.made()
    admin = await tenants.app.admin()
    assert (await admin.delete(f"/api/v1/users/{made['user_id']}")).status_code == 200
    async with asyncio.timeout(10):
        while made["id"] in tenants.entries.opened:
            await asyncio.sleep(0.01)
    assert (await admin.get(PATH)).json()["data"]["total"] == 0


def test_every_route_has_an_example() -> None:
    document = description()
    schemas = document["components"]["schemas"]
    for name in ("MappingAsked", "MappingPatch", "MappingBody", "MappingLiveStats"):
        assert schemas[name]["examples"], name
    for path, methods in document["paths"].items():
        if path.startswith(f"{PATH}/"):
            for operation in methods.values():
                ids = [one for one in operation["parameters"] if one["name"] == "mapping_id"]
                assert ids[0]["schema"]["examples"]
    assert schemas["MappingAsked"]["properties"]["protocol"]["enum"][0] == "tcp"
