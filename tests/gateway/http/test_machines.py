"""Machines over HTTP: enrolment, join tokens, heartbeats and assets, as scripts see them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.gateway.http.people_app import App
from underpass.control.heartbeats import HEARTBEAT_PATH
from underpass.core.errors import Unavailable
from underpass.core.ids import new_id
from underpass.gateway.http import assets as assets_routes
from underpass.links.link import Link, Peer
from underpass.links.memory import memory_links
from underpass.wire.applications import decrypt_secret, sign_application
from underpass.wire.signatures import sign_body

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Machine:
    """One machine's side, over HTTP."""

    def __init__(self, app: App, hostname: str = "box") -> None:
        self.app = app
        self.hostname = hostname
        self.id = new_id()
        self.secret = b""

    def body(self, **changes: Any) -> dict[str, Any]:
        return (
            sign_application(
                KEY,
                client_id=self.id,
                hostname=self.hostname,
                nonce=new_id(),
                timestamp=int(self.app.clock.now()),
            )
            | changes
        )

    async def apply(self, **changes: Any) -> httpx.Response:
        return await self.app.http.post("/api/v1/register", json=self.body(**changes))

    def take(self, answer: dict[str, Any]) -> None:
        self.secret = decrypt_secret(KEY, answer["encrypted_secret"])

    async def beat(self, **changes: Any) -> httpx.Response:
        fields = {
            "id": self.id,
            "timestamp": self.app.clock.now(),
            "nonce": new_id(),
            "metrics": {"dynamic_info": {"cpu_percent": 3}},
            "tty_status": {},
        } | changes
        body = sign_body(self.secret, "POST", HEARTBEAT_PATH, fields)
        return await self.app.http.post(HEARTBEAT_PATH, json=body)


async def joined(app: App, admin: httpx.AsyncClient, hostname: str = "box") -> Machine:
    made = (await admin.post("/api/v1/join-tokens", json={})).json()["data"]
    machine = Machine(app, hostname)
    answer = await machine.apply(join_token=made["token"])
    assert answer.status_code == 200, answer.text
    machine.take(answer.json())
    return machine


def linked(machine: Machine, address: str = "192.0.2.5:4711") -> tuple[Link, Link]:
    """The two ends of a link as the handshake would have made it; not started yet."""
    return memory_links(Peer("agent", machine.id, "box", address, "1", frozenset()))


async def test_enrolment_by_approval(app: App) -> None:
    admin, machine = await app.admin(), Machine(app)
    answer = await machine.apply()
    assert answer.status_code == 200
    assert answer.json() == {"status": "pending", "apply_id": answer.json()["apply_id"]}
    query = {"apply_id": answer.json()["apply_id"]}
    status = await app.http.get("/api/v1/register/status", params=query)
    assert status.json() == answer.json()
    listed = await admin.get("/api/v1/enrolments", params={"status": "pending"})
    item = listed.json()["data"]["items"][0]
    assert {"id", "client_id", "hostname", "key_fingerprint", "apply_status", "created_at",
            "address"} <= set(item)  # fmt: skip
    decision = {"id": item["id"], "name": "named", "labels": {"a": "b"}}
    approved = await admin.post("/api/v1/approve", json=decision)
    assert approved.json()["status"] == "approved"
    status = await app.http.get("/api/v1/register/status", params=query)
    machine.take(status.json())
    beat = await machine.beat()
    assert beat.json() == {"status": "ok", "server_time": app.clock.now()}
    shown = (await admin.get(f"/api/v1/assets/{machine.id}")).json()["data"]
    assert (shown["name"], shown["labels"]) == ("named", {"a": "b"})
    points = await admin.get(f"/api/v1/assets/{machine.id}/metrics")
    assert points.json()["data"]["points"][0]["cpu"] == 3


async def test_refusals_are_bare_error_objects_with_a_status_each(app: App) -> None:
    admin, machine = await app.admin(), Machine(app)
    skewed = await machine.apply(timestamp=1)
    assert (skewed.status_code, skewed.json()["code"]) == (401, "clock_skew")
    assert skewed.json()["server_time"] == app.clock.now()
    large = await machine.apply(hostname="x" * 17_000)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 1024

    unannounced = await app.http.post("/api/v1/register", content=chunks())
    assert unannounced.status_code == 413
    body = machine.body()
    assert (await app.http.post("/api/v1/register", json=body)).status_code == 200
    replay = await app.http.post("/api/v1/register", json=body)
    assert (replay.status_code, replay.json()["code"]) == (409, "replayed")
    for query in ({"apply_id": "nope"}, {"apply_id": new_id()}):
        unknown = await app.http.get("/api/v1/register/status", params=query)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_application")
    assert (await app.http.get("/api/v1/register/status")).status_code == 400
    rejected = await admin.post("/api/v1/reject", json={"id": replay.json().get("x", "nope")})
    assert rejected.status_code == 404
    apply_id = (await machine.apply()).json()["apply_id"]
    answer = await admin.post("/api/v1/reject", json={"id": apply_id})
    assert answer.json() == {"status": "rejected", "apply_id": apply_id}
    assert (await admin.post("/api/v1/approve", json={"id": apply_id})).status_code == 409
    assert (await admin.post("/api/v1/approve", json={})).status_code == 400
    assert (await admin.get("/api/v1/enrolments?status=odd")).status_code == 400
    enrolments = app.services.enrolments
    enrolments._limits = replace(enrolments._limits, registers_per_minute=2)
    stranger = app.client(address="198.51.100.1")
    for _ in range(3):
        answer = await stranger.post("/api/v1/register", content=b"")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


async def test_only_admins_decide_and_see(app: App) -> None:
    for client in (await app.person("bob"), await app.person("eve", "auditor")):
        for method, path in [
            ("POST", "/api/v1/approve"),
            ("POST", "/api/v1/reject"),
            ("GET", "/api/v1/enrolments"),
            ("GET", "/api/v1/join-tokens"),
            ("POST", "/api/v1/join-tokens"),
            ("DELETE", "/api/v1/join-tokens/x"),
            ("DELETE", "/api/v1/assets/x"),
        ]:
            answer = await client.request(method, path, json={"id": "x"})
            assert answer.status_code == 403, path
    for path in ("/api/v1/enrolments", "/api/v1/join-tokens", "/api/v1/assets",
                 f"/api/v1/assets/{new_id()}/metrics/live"):  # fmt: skip
        assert (await app.http.get(path)).status_code == 401, path


async def test_join_tokens(app: App) -> None:
    admin = await app.admin()
    asked = {"uses": 2, "expires_in": "1h", "labels": {"env": "lab"}}
    made = (await admin.post("/api/v1/join-tokens", json=asked)).json()["data"]
    assert made["token"].startswith("upj_")
    assert made["join_command"] == (
        f"underpass agent --server http://localhost:3000 --join {made['token']}"
    )
    app.services.tls_fingerprint, app.services.tls_self_made = "sha256:" + "a" * 64, True
    pinned = (await admin.post("/api/v1/join-tokens", json={"expires_in": None})).json()["data"]
    assert pinned["join_command"].endswith("--fingerprint sha256:" + "a" * 64)
    assert pinned["expires_at"] is None
    listed = await admin.get("/api/v1/join-tokens")
    assert made["token"] not in listed.text
    assert listed.json()["data"]["total"] == 2
    ended = await admin.delete(f"/api/v1/join-tokens/{made['id']}")
    assert ended.json()["data"]["status"] == "revoked"
    refused = await Machine(app).apply(join_token=made["token"])
    assert (refused.status_code, refused.json()["code"]) == (403, "join_token_revoked")
    for bad in ({"uses": 0}, {"uses": "many"}, {"expires_in": "soon"}, {"labels": {"": "x"}}):
        assert (await admin.post("/api/v1/join-tokens", json=bad)).status_code == 400, bad


async def test_assets(app: App) -> None:
    admin = await app.admin()
    machine, other = await joined(app, admin, "web"), await joined(app, admin, "db")
    bob = await app.person("bob")
    me = (await bob.get("/api/v1/auth/me")).json()["data"]["user"]["id"]
    path = f"/api/v1/assets/{machine.id}"
    changed = await admin.patch(path, json={"allowed_users": [me], "labels": {"env": "x"}})
    assert changed.status_code == 200, changed.text
    assert (await admin.put(path, json={"name": "www"})).json()["data"]["name"] == "www"
    assert (await admin.patch(path, json={"status": "maintenance"})).json()["data"][
        "status"
    ] == "maintenance"
    assert (await admin.patch(path, json={"status": "gone"})).status_code == 400
    listed = (await admin.get("/api/v1/assets", params={"label": ["env=x", "env"]})).json()
    assert [item["name"] for item in listed["data"]["items"]] == ["www"]
    for bad in ({"label": "=x"}, {"label": 'a"b'}, {"sort": "x"}, {"status": "x"},
                {"label": ["a"] * 17}):  # fmt: skip
        assert (await admin.get("/api/v1/assets", params=bad)).status_code == 400, bad
    assert (await bob.get("/api/v1/assets")).json()["data"]["total"] == 1
    assert (await bob.get(path)).status_code == 200
    assert (await bob.patch(path, json={"name": "mine"})).status_code == 403
    assert (await bob.patch(path, json={"may_declare": True})).status_code == 403
    assert (await bob.get(path)).json()["data"]["may_declare"] is False
    allowed = await admin.patch(path, json={"may_declare": True})
    assert allowed.json()["data"]["may_declare"] is True
    assert (await admin.patch(path, json={"may_declare": "x"})).status_code == 400
    hidden = await bob.get(f"/api/v1/assets/{other.id}")
    unknown = await bob.get(f"/api/v1/assets/{new_id()}")
    assert (hidden.status_code, hidden.json()) == (404, unknown.json())
    assert (await admin.delete(path)).json()["data"] == {}
    assert (await admin.get(path)).status_code == 404
    late = await machine.beat()
    assert (late.status_code, late.json()["code"]) == (404, "unknown_agent")
    assert (await machine.apply()).json()["status"] == "pending"


async def test_a_link_brings_presence_heartbeats_and_live_metrics(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets_routes, "LIVE_EVERY", 0.01)
    admin, services = await app.admin(), app.services
    machine = await joined(app, admin)
    path = f"/api/v1/assets/{machine.id}"
    refused = await admin.get(f"{path}/metrics/live")
    assert (refused.status_code, refused.json()["code"]) == (409, "agent_unlinked")
    agent_side, gateway_side = linked(machine)
    answers = 0

    async def metrics(_link: Any, _body: dict[str, Any]) -> dict[str, Any]:
        nonlocal answers
        answers += 1
        if answers > 2:
            raise Unavailable("enough")
        return {"dynamic_info": {"cpu_percent": answers}}

    agent_side.on_control("metrics", metrics)
    services.registry.add_agent(gateway_side)
    agent_side.start()
    gateway_side.start()
    await services.presence.tick()
    shown = (await admin.get(path)).json()["data"]
    assert (shown["status"], shown["linked"]) == ("online", True)

    fields = {"id": machine.id, "timestamp": app.clock.now(), "nonce": new_id(), "metrics": {}}
    beat = sign_body(machine.secret, "POST", HEARTBEAT_PATH, fields)
    assert (await agent_side.request("heartbeat", beat))["status"] == "ok"
    assert (await admin.get(path)).json()["data"]["address"] == "192.0.2.5"
    replay = await agent_side.request("heartbeat", beat)
    assert (replay["status"], replay["code"], replay["http_status"]) == ("refused", "replayed", 409)
    assert replay["last_timestamp"] == app.clock.now()
    assert replay["server_time"] == app.clock.now()

    services.ready = True
    lines = (await admin.get(f"{path}/metrics/live")).text.split("\n\n")
    events = [line.split("\n") for line in lines if line.startswith("event")]
    assert [event[0] for event in events] == ["event: metrics"] * 2 + ["event: error"]
    assert json.loads(events[0][1].removeprefix("data: ")) == {"cpu_percent": 1}
    monkeypatch.setattr(assets_routes, "MAX_LIVE", 0)
    assert (await admin.get(f"{path}/metrics/live")).status_code == 429

    await admin.delete(path)
    async with asyncio.timeout(5):
        end = await agent_side.wait_closed()
    assert end.code == "unknown_agent"


async def test_a_renewed_secret_ends_the_old_link(app: App) -> None:
    admin = await app.admin()
    machine = await joined(app, admin)
    agent_side, gateway_side = linked(machine)
    app.services.registry.add_agent(gateway_side)
    agent_side.start()
    gateway_side.start()
    apply_id = (await machine.apply()).json()["apply_id"]
    await admin.post("/api/v1/approve", json={"id": apply_id})
    async with asyncio.timeout(5):
        assert (await agent_side.wait_closed()).code == "secret_replaced"
