"""Every route and every socket: nothing without a login, nothing of A's for B.

The list of what is public is written here, so that a new route has to be thought about.
"""

from __future__ import annotations

import json
import re

import httpx
import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute

from tests.gateway.http.people_app import ORIGIN, App
from tests.gateway.http.sockets import knock
from underpass.core.ids import new_id

PUBLIC = {
    "GET /health", "GET /ready", "GET /version", "GET /api/v1/info", "GET /api/v1/setup",
    "POST /api/v1/setup", "POST /api/v1/auth/login", "POST /api/v1/guests", "GET /openapi.json",
    "HEAD /openapi.json",
}  # fmt: skip
"""Answers without a login, and says nothing secret."""

AGENTS = {
    "POST /api/v1/register", "GET /api/v1/register/status", "POST /api/v1/heartbeat",
    "GET /api/v1/agent/tty/pending-sessions", "GET /api/v1/agent/tty/sessions",
}  # fmt: skip
"""Proves itself by a signature of its own."""

GUESTS = {
    "GET /api/v1/offers", "POST /api/v1/offers", "POST /api/v1/offers/accept",
    "GET /api/v1/offers/{offer_id}", "DELETE /api/v1/offers/{offer_id}",
}  # fmt: skip
"""What a guest's login opens."""

SOCKETS_BY_FIRST_MESSAGE = {
    "/api/v1/tty/ws", "/api/v1/agent/tty/relay", "/api/v1/link",
}  # fmt: skip
"""Who it is follows from what is said first: ticket, session token, handshake."""


def _routes(app: App) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    document = app.app.openapi()
    for path, methods in document["paths"].items():
        found += [(method.upper(), path) for method in methods]
    return found


def _fill(path: str) -> str:
    return re.sub(r"\{[^}]+\}", new_id(), path)


async def _call(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    body = {} if method in {"POST", "PATCH", "PUT"} else None
    return await client.request(method, _fill(path), json=body)


async def test_nothing_without_a_login(app: App) -> None:
    open_ones = set()
    for method, path in _routes(app):
        answer = await _call(app.http, method, path)
        name = f"{method} {path}"
        if answer.status_code != 401 and name not in PUBLIC | AGENTS:
            open_ones.add(f"{name}: {answer.status_code}")
    assert open_ones == set()


async def test_agents_routes_take_no_persons_login_for_a_signature(app: App) -> None:
    admin = await app.admin()
    for name in AGENTS - {"GET /api/v1/register/status"}:
        method, _, path = name.partition(" ")
        if (method, path) in _routes(app):
            answer = await _call(admin, method, path)
            assert answer.status_code in {400, 401}, name


async def test_a_dead_token_opens_nothing(app: App) -> None:
    admin = await app.admin()
    await admin.post("/api/v1/auth/logout")
    for method, path in _routes(app):
        if f"{method} {path}" in PUBLIC | AGENTS:
            continue
        assert (await _call(admin, method, path)).status_code == 401, f"{method} {path}"


async def test_plain_users_get_no_farther_than_refusals_with_made_up_ids(app: App) -> None:
    bob = await app.person("bob")
    allowed = {
        "GET /api/v1/assets", "GET /api/v1/sessions", "GET /api/v1/recordings",
        "GET /api/v1/mappings", "GET /api/v1/offers", "GET /api/v1/api-keys", "GET /api/v1/auth/me",
        "POST /api/v1/auth/token", "POST /api/v1/auth/logout", "GET /api/v1/live",
    }  # fmt: skip
    for method, path in _routes(app):
        name = f"{method} {path}"
        if name in PUBLIC | AGENTS | allowed:
            continue
        answer = await _call(bob, method, path)
        assert answer.status_code in {400, 403, 404}, f"{name}: {answer.status_code}"
        assert answer.json()["success"] is False, name


async def _guest(app: App) -> str:
    """A guest's token."""
    answer = await app.http.post("/api/v1/guests")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["access_token"])


@pytest.mark.parametrize("app", ["accept", "all"], indirect=True)
async def test_a_guest_gets_403_everywhere_but_at_offers(app: App) -> None:
    guest = app.client(await _guest(app))
    reached = set()
    for method, path in _routes(app):
        name = f"{method} {path}"
        if name in PUBLIC | AGENTS:
            continue
        answer = await _call(guest, method, path)
        if name in GUESTS:
            reached.add(name)
            assert answer.status_code in {200, 400, 403, 404}, name
            assert answer.status_code != 403 or answer.json()["code"] == "guests_may_not_offer"
        else:
            assert answer.status_code == 403, f"{name}: {answer.status_code}"
            assert answer.json()["code"] == "guests_may_not", name
    assert reached == GUESTS


@pytest.mark.parametrize("app", ["all"], indirect=True)
async def test_a_guest_opens_no_socket_and_no_agents_route(app: App) -> None:
    token = await _guest(app)
    for path in _sockets(app) - SOCKETS_BY_FIRST_MESSAGE:
        headers = {"authorization": f"Bearer {token}"}
        kind, status = await knock(app.app, _fill(path), headers)
        assert (kind, status) in {("refused", 403), ("closed", 4403)}, path
    first = json.dumps({"type": "auth", "token": token})
    kind, status = await knock(app.app, "/api/v1/tty/ws", {"origin": ORIGIN}, first=first)
    assert kind == "closed"
    assert status in {4401, 4403}
    for name in AGENTS - {"GET /api/v1/register/status"}:
        method, _, path = name.partition(" ")
        answer = await _call(app.client(token), method, path)
        assert answer.status_code in {400, 401, 403}, name


@pytest.mark.parametrize("app", ["all"], indirect=True)
async def test_a_guests_token_is_no_cookie_and_no_password(app: App) -> None:
    token = await _guest(app)
    for name in ("__Host-underpass", "underpass"):
        client = app.client()
        client.headers["Cookie"] = f"{name}={token}"
        assert (await client.get("/api/v1/offers")).status_code == 401


async def test_where_there_are_no_guests(app: App) -> None:
    refused = await app.http.post("/api/v1/guests")
    assert (refused.status_code, refused.json()["code"]) == (403, "no_guests")
    made, _, _ = app.services.guests._tokens.make(app.clock.now())  # ours, but of better days
    assert (await app.client(made).get("/api/v1/offers")).status_code == 401


async def test_lists_of_a_plain_user_are_empty_without_anything_of_theirs(app: App) -> None:
    await app.machine(new_id(), "somebody else")
    bob = await app.person("bob")
    for noun in ("assets", "sessions", "recordings", "mappings", "offers"):
        path = f"/api/v1/{noun}"
        assert (await bob.get(path)).json()["data"]["total"] == 0, path


async def test_a_machine_of_another_is_like_one_that_does_not_exist(app: App) -> None:
    agent_id = new_id()
    await app.machine(agent_id, "somebody else")
    bob = await app.person("bob")
    for method, path in _routes(app):
        if "/assets/{" not in path:
            continue
        bodies = []
        for one in (agent_id, new_id()):
            filled = re.sub(r"\{[^}]+\}", one, path)
            answer = await bob.request(method, filled, json={} if method != "GET" else None)
            bodies.append((answer.status_code, answer.text))
        assert bodies[0] == bodies[1], f"{method} {path}"
        assert bodies[0][0] in {403, 404}, f"{method} {path}"


def _sockets(app: App) -> set[str]:
    found: set[str] = set()

    def walk(routes: object) -> None:
        for route in routes:  # type: ignore[attr-defined]
            if isinstance(route, APIRoute):
                continue
            inner = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", None
            )
            if inner:
                walk(inner)
            elif isinstance(route, APIWebSocketRoute) or "WebSocket" in type(route).__name__:
                found.add(route.path)

    walk(app.app.router.routes)
    return found


async def test_every_socket_is_known_here(app: App) -> None:
    assert _sockets(app) >= {"/api/v1/tty/ws"}
    assert _sockets(app) - SOCKETS_BY_FIRST_MESSAGE == {"/api/v1/recordings/{recording_id}/live"}


async def test_no_socket_without_a_login(app: App) -> None:
    for path in _sockets(app) - SOCKETS_BY_FIRST_MESSAGE:
        kind, status = await knock(app.app, _fill(path), {"origin": ORIGIN})
        assert (kind, status) in {("refused", 401), ("closed", 4401)}, path


async def test_no_socket_with_the_cookie_and_a_foreign_origin(app: App) -> None:
    login = await app.login("ada")
    cookie = f"__Host-underpass={login['access_token']}"
    for path in _sockets(app) - {"/api/v1/link", "/api/v1/agent/tty/relay"}:
        for origin in (
            "http://evil.org",
            "null",
            "http://localhost:3001",
            "https://localhost:3000",
        ):
            kind, status = await knock(
                app.app, _fill(path), {"origin": origin, "cookie": cookie},
                first='{"type":"auth","token":"upx_x"}',
            )  # fmt: skip
            assert (kind, status) in {("refused", 403), ("closed", 4403)}, (path, origin)


async def test_no_socket_with_the_cookie_and_no_origin(app: App) -> None:
    login = await app.login("ada")
    cookie = f"__Host-underpass={login['access_token']}"
    for path in _sockets(app) - SOCKETS_BY_FIRST_MESSAGE:
        kind, status = await knock(app.app, _fill(path), {"cookie": cookie})
        assert (kind, status) in {("refused", 403), ("closed", 4403)}, path


@pytest.mark.parametrize("token", ["", "upx_x", "ups_x", "x" * 5000])
async def test_a_wrong_ticket_opens_no_terminal(app: App, token: str) -> None:
    first = json.dumps({"type": "auth", "token": token})
    kind, status = await knock(app.app, "/api/v1/tty/ws", {"origin": ORIGIN}, first=first)
    assert kind == "closed"
    assert status in {4400, 4401}


async def test_our_identity_headers_give_nobody_an_identity(app: App) -> None:
    for header in ("X-Underpass-User", "X-Forwarded-User", "Remote-User", "X-Remote-User"):
        answer = await app.http.get("/api/v1/auth/me", headers={header: "ada"})
        assert answer.status_code == 401
