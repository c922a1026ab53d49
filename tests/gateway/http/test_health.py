"""Alive, ready, metrics for those who may, and who this gateway is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import underpass
from tests.gateway.http.people_app import App, people_app
from underpass.core.errors import Unavailable


async def test_alive_and_ready(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await app.http.get("/health")).json() == {"status": "ok"}
    assert (await app.http.get("/ready")).status_code == 503, "nothing is bound yet"
    app.services.ready = True
    assert (await app.http.get("/ready")).json() == {"status": "ready"}

    async def away(timeout: float = 0) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(app.services.database, "ping", away)
    assert (await app.http.get("/ready")).json() == {"status": "database unreachable"}


async def test_the_version(app: App) -> None:
    assert (await app.http.get("/version")).json() == {"version": underpass.__version__}


async def test_metrics_are_for_this_machine_and_admins(app: App) -> None:
    for address in ("127.0.0.1", "::1", "127.8.8.8"):
        assert (await app.client(address=address).get("/metrics")).status_code == 200
    assert (await app.http.get("/metrics")).status_code == 401
    assert (await app.client(address="testclient").get("/metrics")).status_code == 401
    bob = await app.person("bob")
    assert (await bob.get("/metrics")).status_code == 403
    text = (await (await app.admin()).get("/metrics")).text
    assert "underpass_http_requests_total" in text


async def test_a_proxy_on_this_machine_does_not_open_the_metrics(app: App) -> None:
    here = app.client(address="127.0.0.1")
    answer = await here.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 401


async def test_who_this_gateway_is(app: App) -> None:
    info = (await app.http.get("/api/v1/info")).json()["data"]
    assert sorted(info) == [
        "gateway_key", "key_fingerprint", "node_id", "public_url", "setup_needed",
        "tls_fingerprint", "version",
    ]  # fmt: skip
    assert info["gateway_key"] == app.services.secrets.gateway_key
    assert info["public_url"] == "http://localhost:3000"


async def test_the_public_address_is_the_configured_one(tmp_path) -> None:
    async with people_app(tmp_path, public_url="https://gw.example.org/") as app:
        info = (await app.http.get("/api/v1/info")).json()["data"]
        assert info["public_url"] == "https://gw.example.org"
        # TLS ends at a proxy that is not listed: our own name still means https.
        client = app.client(origin="http://gw.example.org")
        answer = await client.post(
            "/api/v1/auth/login",
            json={"username": "ada", "password": "correct horse battery staple"},
            headers={"Origin": "https://gw.example.org"},
        )
        assert answer.status_code == 200
        assert answer.headers["set-cookie"].startswith("__Host-underpass=")


async def test_openapi_describes_every_route_for_a_generated_client(app: App) -> None:
    document = (await app.http.get("/openapi.json")).json()
    ids: list[str] = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            ids.append(operation["operationId"])
            assert operation.get("tags"), where
            assert operation.get("summary"), where
            answer = operation["responses"]["200"]
            content = answer.get("content", {})
            if path.startswith("/api/") and "application/json" in content:
                assert content["application/json"]["schema"], f"{where} has no response model"
    assert len(ids) == len(set(ids))


async def test_the_reference_lists_exactly_the_routes_there_are(app: App) -> None:
    reference = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"
    listed = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", reference.read_text("utf-8"), re.M))
    document = app.app.openapi()
    there = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert listed == there
