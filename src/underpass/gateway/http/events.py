"""The audit trail over HTTP: pages for people, CSV and JSON lines for archives."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from underpass.control.events import EventFilter, Events
from underpass.gateway.http.envelope import REFUSALS, Envelope, Page, Paging, page
from underpass.gateway.http.security import Auditor
from underpass.gateway.http.times import Moment, seconds
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/events", tags=["events"], responses=REFUSALS)

_COLUMNS = (
    "id", "time", "type", "actor", "actor_id", "agent_id", "object_id", "ip", "outcome", "rule",
    "details",
)  # fmt: skip


class EventBody(BaseModel):
    """Who did what to which thing, allowed or not, and by which rule."""

    id: str
    time: str
    type: str
    actor: str | None = None
    actor_id: str | None = None
    agent_id: str | None = None
    object_id: str | None = None
    ip: str | None = None
    outcome: Literal["ok", "denied", "failed"]
    rule: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


@router.get(
    "",
    response_model=Envelope[Page[EventBody]],
    summary="List or export events",
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/jsonl": {"schema": {"type": "string"}},
            }
        }
    },
)
async def index(  # noqa: PLR0917 - FastAPI's way to declare a query
    _: Auditor,
    paging: Paging,
    request: Request,
    kind: Annotated[
        str | None, Query(alias="type", max_length=64, examples=["login.failed", "agent"])
    ] = None,
    actor: Annotated[str | None, Query(max_length=64)] = None,
    agent: Annotated[str | None, Query(max_length=64)] = None,
    outcome: Annotated[Literal["ok", "denied", "failed"] | None, Query()] = None,
    since: Annotated[Moment, Query(alias="from")] = None,
    until: Annotated[Moment, Query(alias="to")] = None,
    export: Annotated[Literal["json", "csv", "jsonl"], Query(alias="format")] = "json",
) -> Any:
    """Events, newest first. `type` takes a whole type or a noun; `from` and `to` take RFC 3339 or
    Unix seconds. With `format=csv` or `jsonl` all that match are sent, oldest first, unpaged.
    Admins and auditors only.
    """
    events = services_of(request).events
    wanted = EventFilter(
        type=kind or None,
        actor=actor or None,
        agent=agent or None,
        outcome=outcome,
        since=seconds("from", since),
        until=seconds("to", until),
        text=paging.q,
    )
    if export == "csv":
        return _download(_csv(events, wanted), "text/csv; charset=utf-8", "events.csv")
    if export == "jsonl":
        return _download(_jsonl(events, wanted), "application/jsonl", "events.jsonl")
    _column, descending = paging.order({"time"}, "-time")
    items, total = await events.page(
        wanted, page=paging.page, page_size=paging.page_size, newest_first=descending
    )
    return page(items, total, paging.page, paging.page_size)


def _download(chunks: AsyncGenerator[str, None], media_type: str, name: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(chunks, media_type=media_type, headers=headers)


async def _jsonl(events: Events, wanted: EventFilter) -> AsyncGenerator[str, None]:
    async for record in events.export(wanted):
        yield json.dumps(record, ensure_ascii=False) + "\n"


async def _csv(events: Events, wanted: EventFilter) -> AsyncGenerator[str, None]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    async for record in events.export(wanted):
        cells = dict(record, details=json.dumps(record["details"], ensure_ascii=False))
        writer.writerow([_cell(cells[column]) for column in _COLUMNS])
        if buffer.tell() > 64 * 1024:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(value: object) -> str:
    """A value as a cell that no spreadsheet takes for a formula: names come from strangers."""
    text = "" if value is None else str(value)
    return "'" + text if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
