"""Live news over server-sent events, filtered by what the person may see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from underpass.control.live import LiveMessage
from underpass.control.subject import Subject
from underpass.control.visibility import TOPICS, LiveVisibility
from underpass.core.errors import TooManyRequests
from underpass.gateway.http.envelope import REFUSALS
from underpass.gateway.http.security import Caller
from underpass.gateway.services import Services, services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["live"], responses=REFUSALS)

KEEP_ALIVE: Final = 15.0
"""Seconds between comments on a quiet stream; proxies cut silent ones after 60."""
CHECK_EVERY: Final = 4.0
"""Seconds after which the login is looked at again; that it expired is told to nobody."""
MAX_STREAMS: Final = 1000
"""Streams of everybody together."""
MAX_STREAMS_PER_USER: Final = 64
"""One person's; a browser holds one for each tab."""
QUEUE: Final = 256


@router.get(
    "/live",
    summary="Live news",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`event: <topic>` and `data: {json}`; topics `agent`, `enrolment`, "
            "`session`, `recording`, `mapping`, `event`, `resync` (read everything again) and "
            "`end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def live(caller: Caller, request: Request) -> StreamingResponse:
    """Changes as they happen, for as long as the login lasts.

    A reader that falls behind gets one `resync` instead of what it missed. When the login ends the
    stream says `end` and closes.
    """
    services = services_of(request)
    if len(services.bus) >= MAX_STREAMS:
        raise TooManyRequests("Too many live streams are open.", retry_after=10)
    if services.live_streams[caller.user_id] >= MAX_STREAMS_PER_USER:
        raise TooManyRequests(
            f"You have {MAX_STREAMS_PER_USER} live streams open, the limit.",
            code="too_many_live_streams",
            hint="Close some tabs of the console.",
            retry_after=10,
        )
    return StreamingResponse(
        _stream(services, caller),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(services: Services, caller: Subject) -> AsyncGenerator[str, None]:
    def wanted(message: LiveMessage) -> bool:
        if message.topic == "user":
            return message.data.get("user_id") == caller.user_id
        return message.topic in TOPICS

    services.live_streams[caller.user_id] += 1
    try:
        with services.bus.subscribe(wanted, limit=QUEUE) as news:
            visible = LiveVisibility(services.database, caller)
            await visible.start()
            yield ": connected\nretry: 2000\n\n"
            now = asyncio.get_running_loop().time
            checked = said = now()
            while True:
                message = await news.next(min(CHECK_EVERY, KEEP_ALIVE))
                if message is None and news.closed:
                    yield _sse("end", {"reason": "shutdown"})
                    return
                told = message is not None and message.topic == "user"
                if told or message is None or now() - checked >= CHECK_EVERY:
                    checked = now()
                    if not await services.sign_in.still_valid(caller):
                        yield _sse("end", {"reason": "login_ended"})
                        return
                shown = None if message is None or told else await visible.shown(message)
                if shown is not None:
                    yield _sse(shown.topic, shown.data)
                    said = now()
                elif now() - said >= KEEP_ALIVE:
                    yield ": keep-alive\n\n"
                    said = now()
    finally:
        services.live_streams[caller.user_id] -= 1
        if not services.live_streams[caller.user_id]:
            del services.live_streams[caller.user_id]


def _sse(topic: str, data: object) -> str:
    return f"event: {topic}\ndata: {json.dumps(data, ensure_ascii=False, default=str)}\n\n"
