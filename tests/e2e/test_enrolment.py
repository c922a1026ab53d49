"""Machines get in by approval or by token, and nothing else gets in, on every database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.applicant import Applicant
from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, killing
from tests.e2e.terminal import Terminal

DATABASES = ["sqlite", "postgresql", "mariadb"]


@pytest.fixture(params=DATABASES)
def any_gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatewayProgram]:
    url = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    program = GatewayProgram(tmp_path, database=url)
    try:
        yield program.start()
    finally:
        program.close()


def test_two_machines_one_by_token_one_by_approval(
    any_gateway: GatewayProgram, tmp_path: Path
) -> None:
    gateway = any_gateway
    admin = gateway.login()
    first = AgentProgram(
        tmp_path, gateway, "by-token", token=gateway.join_token(admin, uses=1, env="lab")
    ).start()
    second = AgentProgram(tmp_path, gateway, "by-approval").start()
    with killing(first, second):
        joined = gateway.machine(admin, "by-token")
        assert joined["labels"] == {"env": "lab"}

        def pending() -> list[dict[str, object]]:
            answer = admin.get("/api/v1/enrolments", params={"status": "pending"})
            return list(answer.json()["data"]["items"])

        application = eventually(pending, 20, "the application")[0]
        assert str(application["key_fingerprint"]).startswith("sha256:")
        approved = admin.post(
            "/api/v1/approve", json={"id": application["id"], "name": "by-approval"}
        )
        assert approved.status_code == 200, approved.text
        assert approved.json()["status"] == "approved"
        other = gateway.machine(admin, "by-approval", 25)
        assert other["id"] != joined["id"]
        for machine in (joined, other):
            terminal = Terminal.open(admin, str(machine["id"]))
            assert b"42" in terminal.run("echo $((6*7))")
            terminal.type("exit\n")
            terminal.until_control("exit")
        # a token for one use lets one in
        used = admin.get("/api/v1/join-tokens").json()["data"]["items"][0]
        assert used["used"] == 1
        assert admin.delete(f"/api/v1/assets/{joined['id']}").status_code in (200, 204)

        def back_to_pending() -> bool:
            return any(item["client_id"] == joined["id"] for item in pending())

        eventually(back_to_pending, 40, "the deleted machine asking again")


def test_every_refusal_has_its_own_status_and_text(any_gateway: GatewayProgram) -> None:
    gateway = any_gateway
    admin = gateway.login()
    http = gateway.client()
    machine = Applicant(http)
    texts: dict[str, str] = {}

    def refused(name: str, answer: httpx.Response, *statuses: int) -> None:
        assert answer.status_code in statuses, (name, answer.status_code, answer.text)
        texts[name] = answer.json()["message"]

    now = int(time.time())
    refused("past", machine.apply(timestamp=now - 150), 400, 401, 403)
    refused("future", machine.apply(timestamp=now + 150), 400, 401, 403)
    refused("signature", machine.apply(signature="AAAA"), 400, 401, 403)
    refused("weak key", Applicant(http, bits=1024).apply(), 400, 422)
    refused("no key", machine.apply(public_key="hello"), 400, 422)
    refused("too large", machine.apply(hostname="x" * 17_000), 413)
    refused("bad id", machine.apply(client_id="../../etc"), 400)
    nonce = "a" * 32
    first = machine.apply(nonce=nonce)
    assert first.status_code == 200, first.text
    assert first.json()["status"] == "pending"
    refused("replay", machine.apply(nonce=nonce), 400, 401, 403, 409)
    again = machine.apply()
    assert again.json()["apply_id"] == first.json()["apply_id"]
    assert http.get("/api/v1/register/status", params={"apply_id": "nope"}).status_code in (
        400,
        404,
    )
    assert http.post("/api/v1/approve", json={"id": machine.apply_id}).status_code == 401
    assert machine.status().json()["status"] == "pending"
    assert admin.post("/api/v1/approve", json={"id": machine.apply_id}).status_code == 200
    machine.take(machine.status().json()["encrypted_secret"])
    answer = machine.heartbeat()
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ok"

    stale = machine.heartbeat(timestamp=time.time() - 150)
    refused("heartbeat past", stale, 400, 401, 403)
    assert abs(float(stale.json()["server_time"]) - time.time()) < 5
    refused("heartbeat forged", machine.heartbeat(signature="0" * 64), 401, 403)
    replay = machine.heartbeat_body()
    assert http.post("/api/v1/heartbeat", json=replay).status_code == 200
    refused("heartbeat replay", http.post("/api/v1/heartbeat", json=replay), 401, 403, 409)
    refused("heartbeat stranger", machine.heartbeat(id="0" * 8 + machine.id[8:]), 401, 403, 404)
    gateway.stop()
    gateway.start()
    refused("replay after restart", http.post("/api/v1/heartbeat", json=replay), 401, 403, 409)
    refused("nonce after restart", machine.apply(nonce=nonce), 400, 401, 403, 409)
    assert len({texts[name] for name in ("past", "signature", "weak key", "no key", "replay")}) == 5


def test_a_rejected_machine_gets_a_final_answer(any_gateway: GatewayProgram) -> None:
    admin = any_gateway.login()
    machine = Applicant(any_gateway.client())
    machine.apply()
    assert admin.post("/api/v1/reject", json={"id": machine.apply_id}).status_code == 200
    assert machine.status().json()["status"] == "rejected"
    assert admin.post("/api/v1/approve", json={"id": machine.apply_id}).status_code == 409
