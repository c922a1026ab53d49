"""Recordings over HTTP: list and search, show, download (Range), seek index, live view, delete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from underpass.control.recordings import SORTABLE, RecordingFilter, recording_record
from underpass.core.errors import Conflict, InvalidRequest, UnderpassError
from underpass.gateway.http.envelope import (
    REFUSALS,
    Envelope,
    Nothing,
    Page,
    Paging,
    ok,
    page,
    refuse_websocket,
)
from underpass.gateway.http.security import Admin, Caller, authenticate, check_origin
from underpass.gateway.http.times import Moment, seconds
from underpass.gateway.services import services_of
from underpass.gateway.terminals.live_view import LiveView
from underpass.wire.asciicast import MEDIA_TYPE

__all__ = ["router"]

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/api/v1/recordings", tags=["recordings"], responses=REFUSALS)

_BLOCK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class HitBody(BaseModel):
    """A line that holds the text, and when it was printed (seconds from the start)."""

    time: float
    line: str


class RecordingBody(BaseModel):
    """A recording (spec 7)."""

    id: str
    session_id: str
    asset_id: str
    user_id: str
    username: str
    title: str | None
    status: str
    started_at: str
    duration: float
    size: int
    sha256: str | None
    width: int
    height: int
    hits: list[HitBody] | None = None


class KeyframeBody(BaseModel):
    """The cast from byte *offset* on shows what happened from *time* on."""

    time: float
    offset: int
    cols: int
    rows: int


class MarkerBody(BaseModel):
    time: float
    label: str


class IndexBody(BaseModel):
    """For seeking without reading the whole cast."""

    keyframes: list[KeyframeBody]
    markers: list[MarkerBody]
    duration: float
    size: int


@router.get("", response_model=Envelope[Page[RecordingBody]], response_model_exclude_none=False)
async def index(  # noqa: PLR0917 - the query's parameters
    request: Request,
    caller: Caller,
    paging: Paging,
    asset_id: Annotated[str | None, Query(max_length=64)] = None,
    user: Annotated[str | None, Query(max_length=64, description="id or name")] = None,
    session_id: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[str | None, Query(max_length=16)] = None,
    since: Moment = None,
    until: Moment = None,
    text: Annotated[str | None, Query(max_length=200, description="shown in the recording")] = None,
) -> Any:
    """Your own recordings; everybody's, for admins and auditors. ``text`` searches inside them."""
    services = services_of(request)
    wanted = RecordingFilter(
        asset_id, user, session_id, status, seconds("since", since), seconds("until", until),
        paging.q,
    )  # fmt: skip
    order = paging.order(set(SORTABLE), "-started_at")
    if text:
        items, total = await services.terminals.desk.search(
            caller, wanted, text, offset=paging.offset, limit=paging.page_size, order=order
        )
    else:
        rows, total = await services.recordings.page(
            caller, wanted, offset=paging.offset, limit=paging.page_size, order=order
        )
        items = [recording_record(row) for row in rows]
    return page(items, total, paging.page, paging.page_size)


@router.get("/{recording_id}", response_model=Envelope[RecordingBody])
async def read(recording_id: str, request: Request, caller: Caller) -> Any:
    """One recording's facts."""
    row = await services_of(request).recordings.visible(caller, recording_id)
    return ok(recording_record(row))


@router.get("/{recording_id}/index", response_model=Envelope[IndexBody])
async def seek_index(recording_id: str, request: Request, caller: Caller) -> Any:
    """Keyframes (every 10 s or 256 kB) and markers."""
    services = services_of(request)
    row = await services.recordings.visible(caller, recording_id)
    desk = services.terminals.desk
    found = await desk.in_thread(lambda: desk.store.index(row.id))
    size = await desk.in_thread(lambda: desk.store.size(row.id))
    last = found.last.t / 1e6 if found.last is not None else 0.0
    return ok(
        {
            "keyframes": [
                {"time": frame.t / 1e6, "offset": frame.f, "cols": frame.c, "rows": frame.r}
                for frame in found.keyframes
            ],
            "markers": [{"time": mark.t / 1e6, "label": mark.m} for mark in found.markers],
            "duration": max(row.duration, last),
            "size": size,
        }
    )


@router.get(
    "/{recording_id}/cast",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 206: {"content": {MEDIA_TYPE: {}}}},
)
async def cast(
    recording_id: str,
    request: Request,
    caller: Caller,
    download: Annotated[bool, Query(description="as a file to keep")] = False,
) -> Any:
    """The asciicast; one ``Range`` is understood."""
    services = services_of(request)
    row = await services.recordings.visible(caller, recording_id)
    desk = services.terminals.desk
    # While it is written its last line may be half there; players want whole lines.
    whole = desk.store.size if row.status == "finished" else desk.store.whole_size
    size = await desk.in_thread(lambda: whole(row.id))
    etag = f'"{row.sha256}"' if row.sha256 else f'"{row.id}-{size}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if download:
        headers["Content-Disposition"] = f'attachment; filename="{row.id}.cast"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    start, stop = 0, size
    wanted = request.headers.get("range")
    if wanted is not None and request.headers.get("if-range", etag) == etag:
        found = byte_range(wanted, size)
        if found is None:
            return Response(
                status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"}
            )
        start, stop = found
        if found != (0, size) or size:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)

    async def pieces() -> AsyncIterator[bytes]:
        position = start
        while position < stop:
            count = min(_BLOCK, stop - position)
            piece = await desk.in_thread(
                lambda at=position, many=count: desk.store.read(row.id, at, many)
            )
            if not piece:
                return
            position += len(piece)
            yield piece

    status = 206 if "Content-Range" in headers else 200
    return StreamingResponse(pieces(), status, headers, media_type=MEDIA_TYPE)


@router.delete("/{recording_id}", response_model=Envelope[Nothing])
async def delete(recording_id: str, request: Request, admin: Admin) -> Any:
    """Remove a recording for good; admins only, and not while it is written."""
    services = services_of(request)
    row = await services.recordings.visible(admin, recording_id)
    if row.id in services.terminals.desk.recorders or row.status == "recording":
        raise Conflict(
            "The recording is still being written.", code="recording_active",
            hint="End its session first.",
        )  # fmt: skip
    await services.terminals.desk.delete(row.id)
    await services.events.record(
        "recording.deleted", actor=admin, agent_id=row.asset_id, object_id=row.id,
        details={"username": row.username, "sha256": row.sha256, "session_id": row.session_id},
    )  # fmt: skip
    return ok()


@router.websocket("/{recording_id}/live")
async def live(websocket: WebSocket, recording_id: str) -> None:
    """The cast from byte ``?offset=N`` on, and whatever is added to it: no gap, no duplicate."""
    services = services_of(websocket)
    try:
        if "origin" in websocket.headers:
            check_origin(websocket)
        subject = await authenticate(websocket)
        row = await services.recordings.visible(subject, recording_id)
        offset = websocket.query_params.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 17):
            raise InvalidRequest("offset: this is not a number of bytes.")
    except UnderpassError as error:
        await refuse_websocket(websocket, error)
        return
    await websocket.accept()

    async def allowed() -> bool:
        try:
            await services.recordings.visible(await authenticate(websocket), recording_id)
        except UnderpassError:
            return False
        return True

    view = LiveView(services.terminals.desk, row.id, int(offset))
    try:
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(_until_gone(websocket))
            sender = group.create_task(view.send(websocket.send_text, allowed))
            await asyncio.wait({gone, sender}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            sender.cancel()
    except* (WebSocketDisconnect, RuntimeError, OSError):
        pass  # the viewer is gone
    try:
        async with asyncio.timeout(2.0):
            await websocket.close(view.close_code)
    except (RuntimeError, OSError, TimeoutError):
        return


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Start and stop of a single ``Range`` (RFC 9110, 14.1.2), or None when it can't be met.

    What is not a single byte range is ignored, as the RFC allows: the whole is sent.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.group(0) == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        count = min(int(last), size)
        return (size - count, size) if count else None
    start = int(first)
    if start >= size or (last and int(last) < start):
        return None
    return start, min(int(last) + 1, size) if last else size
