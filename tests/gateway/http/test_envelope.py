"""Every refusal, ours or the framework's, is the same error object with a readable text."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.websockets import WebSocket

from tests.gateway.http.people_app import App
from tests.gateway.http.sockets import knock
from underpass.core.errors import Conflict, InvalidRequest
from underpass.gateway.http.envelope import PageQuery, error_body, install_error_handlers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api", 404, "not_found"),
        ("GET", "/missing.js", 404, "not_found"),
        ("GET", "/assets/missing", 404, "not_found"),
        ("PUT", "/api/v1/auth/login", 405, "bad_method"),
        ("GET", "/api/v1/users", 401, "unauthenticated"),
        ("GET", "/api/v1/users/", 404, "not_found"),
    ],
)
async def test_refusals_of_the_framework(
    app: App, method: str, path: str, status: int, code: str
) -> None:
    answer = await app.http.request(method, path)
    body = answer.json()
    assert answer.status_code == status
    assert body["success"] is False
    assert body["code"] == code
    assert body["message"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "The body is not valid JSON."),
        (b"[]", "The body must be a JSON object."),
        (b"", "The body must be a JSON object."),
        (b'{"username": 1, "password": "x"}', "username: input should be a valid string."),
        (b'{"username": "x"}', "password: field required."),
        (b"[" * 100_000, "The body can't be read."),
        (b'{"username": "x", "password": "' + b"y" * 2000 + b'"}', "password: string should have"),
    ],
)
async def test_bad_bodies_are_400_and_name_the_field(app: App, content: bytes, text: str) -> None:
    answer = await app.http.post(
        "/api/v1/auth/login", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(text)
    assert "yyyy" not in answer.text, "what was sent is not sent back"


async def test_what_utf_8_can_not_carry_is_named_all_the_same(app: App) -> None:
    """JSON can escape half of a surrogate pair, and a refusal names the field it found."""
    admin = await app.admin()
    for content in (b'{"protocol": "tcp", "target_client_id": "x", "health": {"\\ud800": 1}}',
                    b'{"protocol": "tcp", "target_client_id": "x", "\\ud800": 1}'):  # fmt: skip
        answer = await admin.post(
            "/api/v1/mappings", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["success"] is False


async def test_bad_queries_are_400(app: App) -> None:
    admin = await app.admin()
    for query in ("page=0", "page=x", "page_size=501", "sort=password_hash", "q=" + "x" * 201):
        answer = await admin.get(f"/api/v1/users?{query}")
        assert answer.status_code == 400, query
        assert query.partition("=")[0] in answer.json()["message"]


def test_the_error_object_never_lets_details_override_its_own_fields() -> None:
    error = Conflict("No.", hint="Wait.", retry_after=1.2, details={"success": True, "x": 1})
    assert error_body(error) == {
        "success": False, "code": "conflict", "message": "No.", "hint": "Wait.", "x": 1,
        "retry_after": 2,
    }  # fmt: skip


def test_sorting_by_what_is_allowed_only() -> None:
    assert PageQuery(sort="-a").order({"a"}, "b") == ("a", True)
    assert PageQuery().order({"a", "b"}, "b") == ("b", False)
    with pytest.raises(InvalidRequest):
        PageQuery(sort="c").order({"a"}, "a")
    assert PageQuery(page=3, page_size=10).offset == 20


async def test_the_database_away_is_503_and_a_bug_is_500_without_a_word(app: App) -> None:
    @app.app.get("/api/v1/away")
    async def away() -> None:
        raise OperationalError("select secret", {"password": "hunter2"}, Exception("gone"))

    @app.app.get("/api/v1/bug")
    async def bug() -> None:
        raise RuntimeError("hunter2")

    answer = await app.http.get("/api/v1/away")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    answer = await app.http.get("/api/v1/bug")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "hunter2" not in answer.text
    assert "content-security-policy" in answer.headers


async def test_sockets_are_refused_with_a_status_before_and_a_code_after_accepting() -> None:
    bare = FastAPI()
    install_error_handlers(bare)

    @bare.websocket("/before")
    async def before(websocket: WebSocket) -> None:
        raise Conflict("No.")

    @bare.websocket("/after")
    async def after(websocket: WebSocket) -> None:
        await websocket.accept()
        raise Conflict("No.")

    assert await knock(bare, "/before") == ("refused", 409)
    assert await knock(bare, "/after", first="{}") == ("closed", 4409)
    app_headers = {"origin": "http://localhost:3000"}
    assert (await knock(bare, "/nowhere", app_headers))[0] in {"refused", "closed"}
