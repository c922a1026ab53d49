"""Join tokens: admins make, list and revoke them; the secret shows once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from underpass.control.join_tokens import DEFAULT_LIFETIME, join_command, parse_lifetime
from underpass.gateway.http.envelope import REFUSALS, Envelope, Page, Paging, ok, page
from underpass.gateway.http.security import Admin, origin_of
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/join-tokens", tags=["join tokens"], responses=REFUSALS)


class JoinTokenAsked(BaseModel):
    """What the token should allow."""

    model_config = ConfigDict(extra="ignore")

    uses: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1
    expires_in: float | str | None = Field(
        DEFAULT_LIFETIME,
        description="Seconds, or a text such as `30m`, `1h`, `7d`; null: never. Default: 24 h.",
    )
    labels: dict[str, str] = Field(default_factory=dict)
    may_declare: bool = Field(
        False, description="Mappings in those machines' `underpass.yaml` count, as the caller's."
    )


class JoinTokenBody(BaseModel):
    """A join token without its secret."""

    id: str
    uses: int
    used: int
    labels: dict[str, str]
    may_declare: bool
    status: Literal["active", "used_up", "expired", "revoked"]
    created_by: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class JoinTokenMade(JoinTokenBody):
    """A new join token; its secret is shown here only."""

    token: str
    join_command: str


@router.get("", response_model=Envelope[Page[JoinTokenBody]], summary="List join tokens")
async def index(_: Admin, paging: Paging, request: Request) -> Any:
    """All tokens, newest first, without their secrets. Admins only."""
    items, total = await services_of(request).join_tokens.page(paging.page, paging.page_size)
    return page(items, total, paging.page, paging.page_size)


@router.post("", response_model=Envelope[JoinTokenMade], summary="Make a join token")
async def create(body: JoinTokenAsked, by: Admin, request: Request) -> Any:
    """Make a token, and the command to type on the machine. Admins only.

    The command pins the gateway's certificate by its fingerprint when the gateway made it itself.
    """
    services = services_of(request)
    made = await services.join_tokens.create(
        by,
        uses=body.uses,
        expires_in=parse_lifetime(body.expires_in),
        labels=body.labels,
        may_declare=body.may_declare,
    )
    fingerprint = services.tls_fingerprint if services.tls_self_made else None
    made["join_command"] = join_command(origin_of(request), made["token"], fingerprint)
    return ok(made)


@router.delete("/{token_id}", response_model=Envelope[JoinTokenBody], summary="Revoke a join token")
async def revoke(token_id: str, by: Admin, request: Request) -> Any:
    """End a token at once; machines that joined with it stay. Admins only."""
    return ok(await services_of(request).join_tokens.revoke(by, token_id))
