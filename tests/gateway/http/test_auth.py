"""Signing in over HTTP: cookie and bearer, Origin and CSRF, and no secret where it can leak."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.http.people_app import ORIGIN, PASSWORD, App


async def test_the_contract_of_login(app: App) -> None:
    answer = await app.http.post(
        "/api/v1/auth/login", json={"username": "ada", "password": PASSWORD}
    )
    body = answer.json()
    assert body["success"] is True
    assert body["code"] == 0
    data = body["data"]
    assert data["token_type"] == "bearer"
    assert data["expires_in"] == 12 * 3600
    assert set(data["user"]) == {
        "id", "username", "email", "role", "disabled", "created_at", "last_login_at",
    }  # fmt: skip
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-underpass=ups_")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=604800"):
        assert attribute in cookie
    assert "Domain" not in cookie
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("origin", "cookie"),
    [
        ("http://localhost:3000", "__Host-underpass"),
        ("http://127.0.0.1", "__Host-underpass"),
        ("http://[::1]:3000", "__Host-underpass"),
        ("http://app.localhost", "__Host-underpass"),
        ("https://gw.example.org", "__Host-underpass"),
        ("http://192.0.2.9:3000", "underpass"),
        ("http://gw.example.org", "underpass"),
    ],
)
async def test_the_cookie_is_as_strict_as_browsers_allow_there(
    app: App, origin: str, cookie: str
) -> None:
    async with app.client(origin=origin) as client:
        answer = await client.post(
            "/api/v1/auth/login",
            json={"username": "ada", "password": PASSWORD},
            headers={"Origin": origin},
        )
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name == cookie
        assert ("Secure" in rest) == (cookie == "__Host-underpass")
        client.cookies.clear()
        token = answer.json()["data"]["access_token"]
        me = await client.get("/api/v1/auth/me", headers={"Cookie": f"{cookie}={token}"})
        assert me.status_code == 200


async def test_every_failure_answers_the_same(app: App) -> None:
    bob = await app.person("bob")
    bob_id = (await bob.get("/api/v1/auth/me")).json()["data"]["user"]["id"]
    admin = await app.admin()
    await admin.patch(f"/api/v1/users/{bob_id}", json={"disabled": True})
    answers = [
        await app.http.post("/api/v1/auth/login", json={"username": name, "password": password})
        for name, password in (("nobody", PASSWORD), ("ada", "wrong"), ("bob", PASSWORD))
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert all("set-cookie" not in answer.headers for answer in answers)


async def test_who_am_i(app: App) -> None:
    browser, csrf = await app.browser()
    me = (await browser.get("/api/v1/auth/me")).json()["data"]
    assert me["user"]["username"] == "ada"
    assert me["csrf_token"] == csrf
    made = await browser.post(
        "/api/v1/api-keys", json={"name": "x"}, headers={"Origin": ORIGIN, "X-CSRF-Token": csrf}
    )
    key = app.client(made.json()["data"]["token"])
    assert (await key.get("/api/v1/auth/me")).json()["data"]["csrf_token"] is None


async def test_a_write_with_the_cookie_needs_our_origin_and_the_csrf_token(app: App) -> None:
    browser, csrf = await app.browser()

    async def write(**headers: str) -> tuple[int, str | None]:
        answer = await browser.post("/api/v1/auth/token", json={}, headers=headers)
        return answer.status_code, answer.json().get("code")

    good = {"Origin": ORIGIN, "X-CSRF-Token": csrf}
    assert await write(**good) == (200, 0)
    assert await write() == (403, "bad_origin")
    assert await write(**{"X-CSRF-Token": csrf}) == (403, "bad_origin")
    assert await write(Origin=ORIGIN) == (403, "bad_csrf")
    assert await write(**good | {"X-CSRF-Token": csrf[:-1]}) == (403, "bad_csrf")
    for origin in (
        "null", "http://localhost", "http://localhost:3001", "https://localhost:3000",
        "http://localhost:3000.evil.org", "http://evil.org", "http://user@localhost:3000",
        "http://localhost:3000/", "localhost:3000", "http://[", "http://localhost:x",
        "file://", "http://LOCALHOST:3000@evil.org",
    ):  # fmt: skip
        assert await write(**good | {"Origin": origin}) == (403, "bad_origin"), origin
    assert await write(**good | {"Origin": "http://LOCALHOST:3000"}) == (200, 0)


async def test_another_persons_csrf_token_is_no_good(app: App) -> None:
    browser, _ = await app.browser()
    await app.person("bob")
    _, csrf = await app.browser("bob")
    answer = await browser.post(
        "/api/v1/auth/token", json={}, headers={"Origin": ORIGIN, "X-CSRF-Token": csrf}
    )
    assert answer.json()["code"] == "bad_csrf"


async def test_reading_with_the_cookie_needs_neither(app: App) -> None:
    browser, _ = await app.browser()
    assert (await browser.get("/api/v1/users")).status_code == 200


async def test_a_bearer_token_needs_no_origin_but_a_foreign_one_is_refused(app: App) -> None:
    admin = await app.admin()
    assert (await admin.post("/api/v1/auth/token", json={})).status_code == 200
    foreign = await admin.post("/api/v1/auth/token", json={}, headers={"Origin": "http://evil.org"})
    assert foreign.json()["code"] == "bad_origin"
    assert (
        await admin.post("/api/v1/auth/token", json={}, headers={"Origin": ORIGIN})
    ).status_code == 200


async def test_a_foreign_page_signs_nobody_in(app: App) -> None:
    for path in ("/api/v1/auth/login", "/api/v1/setup"):
        answer = await app.http.post(
            path,
            json={"username": "ada", "password": PASSWORD, "code": "x"},
            headers={"Origin": "http://evil.org"},
        )
        assert answer.json()["code"] == "bad_origin"


@pytest.mark.parametrize(
    "header", ["Basic YWRhOng=", "Bearer", "Bearer ", "x", "Bearer " + "x" * 5000]
)
async def test_a_bad_authorization_header_never_falls_back_to_the_cookie(
    app: App, header: str
) -> None:
    browser, _ = await app.browser()
    answer = await browser.get("/api/v1/auth/me", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_api_token_does_not_work_as_a_cookie(app: App) -> None:
    admin = await app.admin()
    key = (await admin.post("/api/v1/api-keys", json={"name": "x"})).json()["data"]["token"]
    client = app.client()
    answer = await client.get("/api/v1/auth/me", headers={"Cookie": f"__Host-underpass={key}"})
    assert answer.status_code == 401


async def test_signing_out(app: App) -> None:
    browser, csrf = await app.browser()
    answer = await browser.post(
        "/api/v1/auth/logout", headers={"Origin": ORIGIN, "X-CSRF-Token": csrf}
    )
    assert answer.status_code == 200
    assert 'underpass=""' in answer.headers["set-cookie"]
    assert (await browser.get("/api/v1/auth/me")).status_code == 401


async def test_changing_the_password_over_http(app: App) -> None:
    here, there = await app.admin(), await app.admin()
    bad = await here.post("/api/v1/auth/password", json={"old": "wrong", "new": "x" * 20})
    assert bad.status_code == 401
    weak = await here.post("/api/v1/auth/password", json={"old": PASSWORD, "new": "short"})
    assert weak.json()["code"] == "weak_password"
    good = await here.post(
        "/api/v1/auth/password", json={"old": PASSWORD, "new": "a brand new one"}
    )
    assert good.status_code == 200
    assert (await here.get("/api/v1/auth/me")).status_code == 200
    assert (await there.get("/api/v1/auth/me")).status_code == 401


async def test_access_tokens(app: App) -> None:
    admin = await app.admin()
    made = (await admin.post("/api/v1/auth/token", json={"expires_in": 60})).json()["data"]
    assert made["token_type"] == "bearer"
    assert made["expires_in"] == 60
    holder = app.client(made["access_token"])
    assert (await holder.get("/api/v1/auth/me")).status_code == 200
    for body in ({"audience": "underpass-proxy"}, {"scopes": ["shell"]}, {"expires_in": 0}):
        assert (await admin.post("/api/v1/auth/token", json=body)).status_code == 400
    assert (await admin.post("/api/v1/auth/token", json={"audience": "underpass"})).status_code
    revoked = await admin.post("/api/v1/auth/revoke", json={"token": made["access_token"]})
    assert revoked.status_code == 200
    assert (await holder.get("/api/v1/auth/me")).status_code == 401
    assert (await admin.post("/api/v1/auth/revoke", json={})).status_code == 400
    key = (await admin.post("/api/v1/api-keys", json={"name": "x"})).json()["data"]
    assert (await admin.post("/api/v1/auth/revoke", json={"jti": key["id"]})).status_code == 200


async def test_too_many_wrong_tries_say_when_to_come_back(app: App) -> None:
    for _ in range(5):
        await app.http.post("/api/v1/auth/login", json={"username": "ada", "password": "no"})
    answer = await app.http.post(
        "/api/v1/auth/login", json={"username": "ada", "password": PASSWORD}
    )
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    elsewhere = app.client(address="198.51.100.7")
    assert (
        await elsewhere.post("/api/v1/auth/login", json={"username": "ada", "password": PASSWORD})
    ).status_code == 200


async def test_disabling_somebody_works_from_the_next_request_on(app: App) -> None:
    bob = await app.person("bob")
    me = (await bob.get("/api/v1/auth/me")).json()["data"]["user"]
    admin = await app.admin()
    await admin.patch(f"/api/v1/users/{me['id']}", json={"disabled": True})
    assert (await bob.get("/api/v1/auth/me")).status_code == 401


async def test_a_role_counts_from_the_next_request_on(app: App) -> None:
    bob = await app.person("bob", "auditor")
    assert (await bob.get("/api/v1/events")).status_code == 200
    me = (await bob.get("/api/v1/auth/me")).json()["data"]["user"]
    admin = await app.admin()
    await admin.patch(f"/api/v1/users/{me['id']}", json={"role": "user"})
    assert (await bob.get("/api/v1/events")).status_code == 403


async def test_set_up_over_http(app: App) -> None:
    assert (await app.http.get("/api/v1/setup")).json()["data"] == {"needed": False}
    answer = await app.http.post(
        "/api/v1/setup", json={"code": "x", "username": "eve", "password": PASSWORD}
    )
    assert answer.status_code == 409
    assert answer.json()["code"] == "setup_done"
    results = await asyncio.gather(
        *[
            app.http.post(
                "/api/v1/setup", json={"code": "x", "username": "eve", "password": PASSWORD}
            )
            for _ in range(40)
        ]
    )
    assert 429 in {result.status_code for result in results}
