"""The shape of every answer: success envelope, pages, and one error object for all refusals.

How a router uses it::

    @router.get("/assets/{id}", response_model=Envelope[AssetBody])
    async def read(id: str, caller: Caller, request: Request) -> Any:
        return ok(await services_of(request).agents.get(caller, id))

    @router.get("/assets", response_model=Envelope[Page[AssetBody]])
    async def index(paging: Paging, caller: Caller, request: Request) -> Any:
        items, total = await …(page=paging.page, page_size=paging.page_size)
        return page(items, total, paging.page, paging.page_size)

Response models matter: ``/openapi.json`` is made from them, and the console's client from that.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket, WebSocketState

from underpass.core.errors import (
    Internal,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unavailable,
    UnderpassError,
)

__all__ = [
    "REFUSALS",
    "Envelope",
    "ErrorBody",
    "Nothing",
    "Page",
    "PageQuery",
    "Paging",
    "error_body",
    "error_response",
    "install_error_handlers",
    "ok",
    "page",
    "refuse_websocket",
]

T = TypeVar("T")


class Envelope(BaseModel, Generic[T]):
    """``{"success": true, "code": 0, "data": …}`` (spec 7)."""

    success: Literal[True] = True
    code: Literal[0] = 0
    data: T


class Page(BaseModel, Generic[T]):
    """One page of a list (spec 7)."""

    items: list[T]
    total: int
    page: int
    page_size: int


class Nothing(BaseModel):
    """The ``data`` of an answer that has nothing to say beyond success."""


class ErrorBody(BaseModel):
    """What every refusal looks like, in the envelope's terms.

    ``code`` is stable and for scripts; ``message`` and ``hint`` are for people.
    """

    model_config = ConfigDict(extra="allow")

    success: Literal[False] = False
    code: str
    message: str
    hint: str | None = None


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorBody,
        "description": "The input is malformed; the message names the field.",
    },
    401: {"model": ErrorBody, "description": "Nobody, or nobody we know, is asking."},
    403: {"model": ErrorBody, "description": "Known, but not allowed."},
    404: {"model": ErrorBody, "description": "It does not exist, or not for the asker."},
    409: {"model": ErrorBody, "description": "The thing's state does not allow this."},
    429: {"model": ErrorBody, "description": "Too often or too many; see Retry-After."},
}
"""For ``APIRouter(responses=REFUSALS)``: documents the refusals in OpenAPI."""


class PageQuery(BaseModel):
    """``?page=1&page_size=50&sort=-created_at&q=text`` (spec 7)."""

    page: int = 1
    page_size: int = 50
    sort: str | None = None
    q: str | None = None

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size

    def order(self, allowed: set[str], default: str) -> tuple[str, bool]:
        """The column to sort by and whether descending.

        Raises:
            InvalidRequest: the column is not one of *allowed*.
        """
        text = self.sort or default
        column = text.lstrip("+-")
        if column not in allowed:
            names = ", ".join(sorted(allowed))
            raise InvalidRequest(f"sort: can't sort by {column[:40]!r}; use one of {names}.")
        return column, text.startswith("-")


def _paging(
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=500)] = 50,
    sort: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=200)] = None,
) -> PageQuery:
    return PageQuery(page=page, page_size=page_size, sort=sort, q=q or None)


Paging = Annotated[PageQuery, Depends(_paging)]
"""Declare a list route's parameter as ``paging: Paging``."""


def ok(data: Any = None) -> dict[str, Any]:
    """The success envelope around *data* (``{}`` when there is none)."""
    return {"success": True, "code": 0, "data": {} if data is None else data}


def page(items: list[Any], total: int, number: int, size: int) -> dict[str, Any]:
    """The success envelope around one page of a list."""
    return ok({"items": items, "total": total, "page": number, "page_size": size})


def error_body(error: UnderpassError) -> dict[str, Any]:
    """The error object of *error*; bare routes answer it, too."""
    body: dict[str, Any] = {**error.details}
    body |= {"success": False, "code": error.code, "message": error.message}
    if error.hint:
        body["hint"] = error.hint
    if error.retry_after is not None:
        body.setdefault("retry_after", math.ceil(error.retry_after))
    return body


class _Refusal(JSONResponse):
    """Whatever was sent may be named in it: half of a surrogate pair, too, which JSON can escape
    and UTF-8 can't carry."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def error_response(error: UnderpassError) -> JSONResponse:
    """*error* as an HTTP answer, with the headers that belong to its status."""
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="underpass"'
    return _Refusal(error_body(error), status_code=error.status, headers=headers)


async def refuse_websocket(websocket: WebSocket, error: UnderpassError) -> None:
    """End a WebSocket with *error*: as an HTTP answer before it is accepted, else a close code."""
    if websocket.application_state is WebSocketState.CONNECTING:
        if "websocket.http.response" in websocket.scope.get("extensions", {}):
            await websocket.send_denial_response(error_response(error))
        else:
            await websocket.close(error.close_code, error.message[:120])
    elif websocket.application_state is WebSocketState.CONNECTED:
        await websocket.send_json({"type": "error", "code": error.code, "message": str(error)})
        await websocket.close(error.close_code, error.code)


def install_error_handlers(app: FastAPI) -> None:
    """Make every refusal of *app*, ours or the framework's, answer the error object."""
    app.add_exception_handler(UnderpassError, _answer)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_exception_handler(OperationalError, _answer_database)
    app.add_exception_handler(InterfaceError, _answer_database)


async def _answer(connection: HTTPConnection, error: Exception) -> Any:
    if not isinstance(error, UnderpassError):
        error = Internal("Something went wrong on our side; the log has the details.")
    if isinstance(connection, WebSocket):
        await refuse_websocket(connection, error)
        return None
    return error_response(error)


async def _answer_validation(request: Request, error: Exception) -> Any:
    return await _answer(request, _readable(error))


async def _answer_database(connection: HTTPConnection, error: Exception) -> Any:
    return await _answer(
        connection,
        Unavailable(
            "The database can't be reached.",
            code="database_unavailable",
            hint="Try again in a moment.",
            retry_after=2,
        ),
    )


async def _answer_framework(connection: HTTPConnection, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        refusal: UnderpassError = NotFound("There is nothing at this address.")
    elif error.status_code == 405:
        refusal = InvalidRequest("This address does not take that method.", code="bad_method")
        refusal.status = 405
    elif error.status_code == 413:
        refusal = TooLarge(str(error.detail))
    elif error.status_code == 400:
        refusal = InvalidRequest("The body can't be read.", hint="Send JSON.")
    else:
        refusal = UnderpassError(str(error.detail), code="http_error")
        refusal.status = error.status_code
    response = await _answer(connection, refusal)
    if response is not None:
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
    return response


def _readable(error: Exception) -> InvalidRequest:
    """FastAPI's validation error as one sentence that names the field."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    if not problems:
        return InvalidRequest("The request is malformed.")
    first = problems[0]
    where = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    name = ".".join(where)[:100]
    if first["type"] == "json_invalid":
        return InvalidRequest("The body is not valid JSON.", details={"field": "body"})
    if not name:
        return InvalidRequest(
            "The body must be a JSON object.",
            hint="Send it with Content-Type: application/json.",
            details={"field": "body"},
        )
    text = str(first["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    return InvalidRequest(f"{name}: {text}.", details={"field": name})
