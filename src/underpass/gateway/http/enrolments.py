"""Enrolment: what agents ask (signed), and what admins decide. Bare JSON but for the list."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from underpass.gateway.http.envelope import REFUSALS, Envelope, ErrorBody, Page, Paging, page
from underpass.gateway.http.raw_body import raw_body
from underpass.gateway.http.security import Admin, address_of
from underpass.gateway.services import services_of
from underpass.wire.applications import MAX_BODY

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["enrolments"], responses=REFUSALS)

Status = Literal["pending", "approved", "rejected"]


class ApplicationAnswer(BaseModel):
    """What became of an application; the last three only when it is approved."""

    status: Status
    apply_id: str
    agent_id: str | None = None
    encrypted_secret: str | None = Field(
        None, description="The agent's secret, RSA-OAEP-SHA256 with the applicant's key, base64."
    )
    gateway_key: str | None = Field(
        None, description="This gateway's Ed25519 public key (raw, base64); pin it for links."
    )


class Decision(BaseModel):
    """Which application, and what its machine shall be called and labelled."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(max_length=64)]
    labels: dict[str, str] | None = None
    name: Annotated[str, Field(max_length=64)] | None = None


class EnrolmentBody(BaseModel):
    """An application as admins see it."""

    id: str
    client_id: str
    hostname: str
    key_fingerprint: str
    apply_status: Status
    created_at: str
    address: str | None
    decided_at: str | None
    decided_by: str | None
    warning: Literal["key_changed", "rival_key"] | None = Field(
        description="`key_changed`: a machine with this client id is enrolled under another key. "
        "`rival_key`: another key applies for the same client id. Compare fingerprints first."
    )
    warning_text: str | None


_REGISTER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": [
                        "client_id", "hostname", "nonce", "timestamp", "public_key", "signature",
                    ],
                    "properties": {
                        "client_id": {"type": "string", "format": "uuid"},
                        "hostname": {"type": "string", "maxLength": 253},
                        "nonce": {"type": "string", "minLength": 8, "maxLength": 64},
                        "timestamp": {"type": "number", "description": "Unix seconds"},
                        "public_key": {"type": "string", "description": "RSA ≥ 2048 bit, PEM"},
                        "signature": {"type": "string", "format": "byte"},
                        "join_token": {"type": "string"},
                    },
                }
            }
        },
    }
}  # fmt: skip


@router.post(
    "/register",
    response_model=ApplicationAnswer,
    response_model_exclude_none=True,
    responses={413: {"model": ErrorBody, "description": "More than 16 KiB."}},
    openapi_extra=_REGISTER_BODY,
    summary="Apply to be let in",
)
async def register(request: Request) -> Any:
    """An agent applies with its key; a good join token lets it in at once.

    The text to sign is in docs/reference/signatures.md.
    """
    body = await raw_body(request, MAX_BODY)
    return await services_of(request).enrolments.register(body, address_of(request))


@router.get(
    "/register/status",
    response_model=ApplicationAnswer,
    response_model_exclude_none=True,
    summary="Ask what became of an application",
)
async def status(apply_id: Annotated[str, Query(max_length=64)], request: Request) -> Any:
    """Polled by the applicant every 10 s. Approved: its secret, encrypted for its key."""
    return await services_of(request).enrolments.status(apply_id, address_of(request))


@router.post(
    "/approve",
    response_model=ApplicationAnswer,
    response_model_exclude_none=True,
    summary="Let an applicant in",
)
async def approve(body: Decision, by: Admin, request: Request) -> Any:
    """Make the machine and its secret. Approving again answers the same machine. Admins only."""
    return await services_of(request).enrolments.approve(
        by, body.id, labels=body.labels, name=body.name
    )


@router.post(
    "/reject",
    response_model=ApplicationAnswer,
    response_model_exclude_none=True,
    summary="Turn an applicant down",
)
async def reject(body: Decision, by: Admin, request: Request) -> Any:
    """A final answer for this application. Admins only."""
    return await services_of(request).enrolments.reject(by, body.id)


@router.get(
    "/enrolments", response_model=Envelope[Page[EnrolmentBody]], summary="List applications"
)
async def index(
    _: Admin,
    paging: Paging,
    request: Request,
    status: Annotated[Status | None, Query()] = None,
) -> Any:
    """Applications, newest first; ``q`` looks into host name, ids, fingerprint and address."""
    items, total = await services_of(request).enrolments.page(
        status, paging.page, paging.page_size, q=paging.q
    )
    return page(items, total, paging.page, paging.page_size)
