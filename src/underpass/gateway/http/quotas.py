"""Quotas over HTTP: what a person may use and has used; admins change it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from underpass.control.quota import Quota, month_of, renews_at
from underpass.core.clock import rfc3339
from underpass.core.errors import NotFound
from underpass.gateway.http.envelope import REFUSALS, Envelope, ok
from underpass.gateway.http.security import Admin, Caller
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/users/{user_id}/quota", tags=["quotas"], responses=REFUSALS)

UserId = Annotated[str, Path(examples=["b4d1f6a0-77a4-4a51-8a3e-0c5f1d2e3b66"])]

_LIMITS: Final[dict[str, Any]] = {
    "max_clients": None,
    "max_mappings": 5,
    "max_active_mappings": None,
    "max_connections_per_mapping": 20,
    "bandwidth": 1000000,
    "monthly_traffic": 10000000000,
    "max_workspaces": None,
    "max_sessions": None,
}
_USAGE: Final[dict[str, Any]] = {
    "clients": 2,
    "mappings": 3,
    "active_mappings": 2,
    "sessions": 1,
    "connections": 4,
    "traffic": 7312004511,
    "month": "2026-01",
    "renews_at": "2026-02-01T00:00:00.000Z",
}
_ANSWERED: Final = ("user_id", "usage")


class QuotaAsked(BaseModel):
    """Only what is given changes; null: no limit."""

    # What is unknown or out of bounds is told by the domain, which names every field.
    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "examples": [
                {"monthly_traffic": 10000000000, "bandwidth": 1000000},
                {"max_mappings": None},
            ]
        },
    )

    max_clients: int | None = Field(None, description="Machines they let in.")
    max_mappings: int | None = Field(None, description="Disabled ones included.")
    max_active_mappings: int | None = Field(None, description="That are not disabled.")
    max_connections_per_mapping: int | None = Field(None, description="At a time.")
    bandwidth: int | None = Field(
        None, description="Bytes a second of all tunnels together, each way; at least 1024."
    )
    monthly_traffic: int | None = Field(
        None, description="Bytes of all tunnels, both ways together, in a month (UTC)."
    )
    max_workspaces: int | None = None
    max_sessions: int | None = Field(None, description="Terminal sessions at a time.")


class UsageBody(BaseModel):
    """What is used of it."""

    clients: int = Field(description="Machines they let in, those that are away included.")
    mappings: int
    active_mappings: int
    sessions: int
    connections: int = Field(description="Streams of their tunnels, open right now.")
    traffic: int = Field(description="Bytes of this month, both ways, up to this moment.")
    month: str
    renews_at: str


class QuotaBody(QuotaAsked):
    """What a person may use (null: no limit), and has used."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "b4d1f6a0-77a4-4a51-8a3e-0c5f1d2e3b66", **_LIMITS, "usage": _USAGE}
            ]
        }
    )

    user_id: str
    usage: UsageBody


@router.get("", response_model=Envelope[QuotaBody], summary="What a user may use, and has used")
async def read(user_id: UserId, caller: Caller, request: Request) -> Any:
    """Your own; anybody's, for admins and auditors."""
    if caller.role not in {"admin", "auditor"} and user_id != caller.user_id:
        raise NotFound("There is no such user.", hint="Check the id.")
    quota = await services_of(request).quotas.get(user_id)
    return ok(await _record(request, user_id, quota))


@router.post("", response_model=Envelope[QuotaBody], summary="Change what a user may use")
async def change(user_id: UserId, body: QuotaAsked, by: Admin, request: Request) -> Any:
    """Change the limits that are given, at once, also for what is open. Admins only.

    Nothing is taken away: mappings and connections beyond a new limit stay until they end.
    """
    wanted = body.model_dump(exclude_unset=True)
    for name in _ANSWERED:  # an answer that was edited and sent back
        wanted.pop(name, None)
    quota = await services_of(request).quotas.set(by, user_id, wanted)
    return ok(await _record(request, user_id, quota))


async def _record(request: Request, user_id: str, quota: Quota) -> dict[str, Any]:
    services = services_of(request)
    now = services.clock.now()
    usage = await services.quotas.counted(user_id)
    return {
        "user_id": user_id,
        **quota.to_json(),
        "usage": {
            **usage,
            "connections": services.allowances.active(user_id),
            "traffic": await services.allowances.used(user_id),
            "month": month_of(now),
            "renews_at": rfc3339(renews_at(now)),
        },
    }
