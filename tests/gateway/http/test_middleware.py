"""Proxies, sizes, headers and the log: what holds for every request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from tests.gateway.http.people_app import App, people_app
from underpass.gateway.http.middleware import BodyLimit, ForwardedHeaders


async def _seen(
    headers: dict[str, str], trusted: list[str], client: str | None = "10.0.0.1"
) -> dict[str, Any]:
    """What an application behind the middleware sees."""
    seen: dict[str, Any] = {}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.update(
            client=scope["client"] and scope["client"][0],
            scheme=scope["scheme"],
            headers={name.decode(): value.decode() for name, value in scope["headers"]},
            forwarded=scope.get("underpass.forwarded", False),
        )

    scope = {
        "type": "http",
        "scheme": "http",
        "client": (client, 1) if client else None,
        "headers": [(n.lower().encode(), v.encode()) for n, v in headers.items()],
    }
    await ForwardedHeaders(inner, trusted)(scope, None, None)  # type: ignore[arg-type]
    return seen


async def test_nobody_is_believed_by_default() -> None:
    seen = await _seen(
        {
            "host": "gw",
            "X-Forwarded-For": "203.0.113.5",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil",
            "Forwarded": "for=1",
            "X-Real-IP": "1",
        },
        [],
    )
    assert seen["client"] == "10.0.0.1"
    assert seen["scheme"] == "http"
    assert seen["headers"] == {"host": "gw"}
    assert seen["forwarded"] is True


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("1.1.1.1, 203.0.113.5, 10.0.0.9", "203.0.113.5"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("1.1.1.1, garbage, 10.0.0.9", "10.0.0.9"),
        ("garbage", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
async def test_a_listed_proxy_is_believed_from_the_right(chain: str, client: str) -> None:
    seen = await _seen({"X-Forwarded-For": chain, "host": "a"}, ["10.0.0.0/8"])
    assert seen["client"] == client


async def test_scheme_and_host_of_a_listed_proxy() -> None:
    seen = await _seen(
        {"host": "a", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "gw.example.org"},
        ["10.0.0.1"],
    )
    assert seen["scheme"] == "https"
    assert seen["headers"] == {"host": "gw.example.org"}
    seen = await _seen({"host": "a", "X-Forwarded-Proto": "gopher"}, ["10.0.0.1"])
    assert seen["scheme"] == "http"
    seen = await _seen({"host": "a", "X-Forwarded-Proto": "https"}, ["10.0.0.2"])
    assert seen["scheme"] == "http"
    seen = await _seen({"X-Forwarded-For": "203.0.113.5"}, ["::/0"], client="::ffff:10.0.0.1")
    assert seen["client"] == "::ffff:10.0.0.1", "a mapped address is the IPv4 address it means"
    assert (await _seen({"X-Forwarded-For": "1.1.1.1"}, ["10.0.0.1"], client=None))[
        "client"
    ] is None


async def test_our_own_headers_do_not_come_from_outside() -> None:
    seen = await _seen(
        {"X-Underpass-User": "admin", "X-Underpass-Id": "a", "X-Underpass-Signature": "s"}, []
    )
    assert seen["headers"] == {"x-underpass-id": "a", "x-underpass-signature": "s"}


async def test_bodies_have_a_cap_announced_or_not(app: App) -> None:
    @app.app.post("/api/v1/echo")
    async def echo(request: Request) -> JSONResponse:
        return JSONResponse({"size": len(await request.body())})

    limit = 1024 * 1024
    assert (await app.http.post("/api/v1/echo", content=b"x" * limit)).json() == {"size": limit}
    answer = await app.http.post("/api/v1/echo", content=b"x" * (limit + 1))
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"

    async def pieces() -> Any:
        for _ in range(17):
            yield b"x" * 65536

    answer = await app.http.post("/api/v1/echo", content=pieces())
    assert answer.status_code == 413
    assert answer.json()["success"] is False
    answer = await app.http.post("/api/v1/auth/login", content=pieces())
    assert answer.status_code == 413


async def test_a_body_that_never_ends_does_not_hold_its_connection() -> None:
    waiting = asyncio.Event()
    sent: list[Message] = []

    async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(len(await Request(scope, receive).body()))(scope, receive, send)

    async def receive() -> Message:
        await waiting.wait()  # never
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    with pytest.raises(HTTPException) as raised:
        async with asyncio.timeout(5):
            await BodyLimit(reads_all, limit=10, timeout=0.05)(scope, receive, send)
    assert raised.value.status_code == 408

    answered = asyncio.Event()

    async def waits_for_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        answered.set()
        assert (await receive())["type"] == "http.disconnect"

    async def later() -> Message:
        if not answered.is_set():
            return {"type": "http.request", "body": b"x", "more_body": False}
        await asyncio.sleep(0.15)
        return {"type": "http.disconnect"}

    await BodyLimit(waits_for_the_end, limit=10, timeout=0.05)(scope, later, send)


async def test_headers_that_make_browsers_careful(app: App) -> None:
    answer = await app.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-eval'" not in policy
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "worker-src 'self' blob:" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in answer.headers
    assert (await app.http.get("/api/v1/setup")).headers["cache-control"] == "no-store"


async def test_tls_only_is_told_with_a_real_certificate(tmp_path: Any) -> None:
    async with people_app(tmp_path, tls_cert="/c", tls_key="/k") as app:
        secure = app.client(origin="https://gw.example.org")
        assert "strict-transport-security" in (await secure.get("/")).headers
        assert "strict-transport-security" not in (await app.http.get("/")).headers


async def test_requests_are_counted_by_route_and_not_by_path(app: App) -> None:
    for n in range(5):
        await app.http.get(f"/api/v1/users/{n}-unique-path")
    metrics = (await (app.client(address="127.0.0.1")).get("/metrics")).text
    assert "unique-path" not in metrics
    assert 'route="/api/v1/users/{user_id}"' in metrics
