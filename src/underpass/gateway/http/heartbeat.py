"""Heartbeats over plain HTTPS, for agents without a link. Bare JSON, signed."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from underpass.gateway.http.envelope import REFUSALS, ErrorBody
from underpass.gateway.http.raw_body import raw_body
from underpass.gateway.http.security import address_of, limit
from underpass.gateway.services import services_of
from underpass.wire.signatures import MAX_SIGNED_BODY

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["heartbeat"], responses=REFUSALS)

PER_MINUTE = 6000
"""Heartbeats per minute and address: a thousand agents behind one NAT, three times over."""


class HeartbeatAnswer(BaseModel):
    """The heartbeat counted."""

    status: Literal["ok"] = "ok"
    server_time: float = Field(description="Unix seconds")


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id", "timestamp", "signature"],
                    "properties": {
                        "id": {"type": "string", "format": "uuid"},
                        "timestamp": {"type": "number", "description": "Unix seconds"},
                        "nonce": {"type": "string"},
                        "metrics": {"type": "object"},
                        "tty_status": {"type": "object"},
                        "signature": {"type": "string", "description": "hex HMAC-SHA256"},
                    },
                }
            }
        },
    }
}


@router.post(
    "/heartbeat",
    response_model=HeartbeatAnswer,
    responses={413: {"model": ErrorBody, "description": "The body is too large."}},
    openapi_extra=_BODY,
    summary="Say: I am alive",
)
async def heartbeat(request: Request) -> Any:
    """Every 30 s from an agent without a link; the text to sign: docs/reference/signatures.md.

    A refusal for clock skew (`clock_skew`) carries `server_time`; the agent corrects itself once.
    """
    await limit(request, "heartbeat", PER_MINUTE, 60)
    body = await raw_body(request, MAX_SIGNED_BODY)
    return await services_of(request).heartbeats.receive(body, ip=address_of(request))
