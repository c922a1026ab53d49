"""Offers over HTTP: make a one-time code, accept one, list, read, revoke."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from underpass.control.offer import Offer, offer_record
from underpass.gateway.http.envelope import REFUSALS, Envelope, Page, Paging, ok, page
from underpass.gateway.http.security import CodeHolder
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/offers", tags=["offers"], responses=REFUSALS)

OfferId = Annotated[str, Path(examples=["3d7a5b0c-9e0f-4f0b-8a43-7b1f0e6c2d58"])]

_AGENT: Final = "0b9c7f1e-5d1a-4a53-8f0e-3c1f2a7d9e44"
_OFFER: Final[dict[str, Any]] = {
    "id": "3d7a5b0c-9e0f-4f0b-8a43-7b1f0e6c2d58",
    "user_id": "b4d1f6a0-77a4-4a51-8a3e-0c5f1d2e3b66",
    "username": "ada",
    "target_client_id": _AGENT,
    "machine": "db-1",
    "machine_key": "sha256:" + "5f0c" * 16,
    "target": "tcp:127.0.0.1:3306",
    "status": "waiting",
    "access_for": 28800,
    "created_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2026-01-01T00:10:00.000Z",
    "accepted_by": None,
    "accepted_at": None,
    "ended_at": None,
}
_ACCEPTED: Final[dict[str, Any]] = {
    "status": "accepted",
    "expires_at": "2026-01-01T08:03:00.000Z",
    "accepted_by": "bob",
    "accepted_at": "2026-01-01T00:03:00.000Z",
}


class OfferAsked(BaseModel):
    """What is offered; `tcp` needs `target_port`, `unix` needs `target_path`."""

    # What is unknown or out of bounds is told by the domain, which names every field.
    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "protocol": "tcp",
                    "target_client_id": _AGENT,
                    "target_host": "127.0.0.1",
                    "target_port": 3306,
                    "expires_in": 600,
                    "access_for": 28800,
                }
            ]
        },
    )

    protocol: str = Field("tcp", json_schema_extra={"enum": ["tcp", "unix"]})
    target_client_id: str | None = Field(
        None, description="The machine's id; guests leave it out: their own command is the machine."
    )
    target_host: str | None = Field(None, description="As the machine sees it; 127.0.0.1.")
    target_port: int | None = None
    target_path: str | None = Field(None, description="The socket, for `unix`.")
    expires_in: float | str | None = Field(
        None, description="How long the code is good: seconds, or `10m` (the default); ≤ 24 h."
    )
    access_for: float | str | None = Field(
        None, description="How long it may be used once accepted; `8h` if not given; ≤ 30 days."
    )


class AcceptAsked(BaseModel):
    """The code, however it was typed."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={"examples": [{"code": "7K3M-9QXD-4TNB", "expires_in": "2h"}]},
    )

    code: Annotated[str, Field(min_length=1, max_length=200)]
    expires_in: float | str | None = Field(
        None, description="How long it is needed; never longer than was offered."
    )


class OfferBody(BaseModel):
    """An offer. Its code is shown once, when it is made."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OFFER, _OFFER | _ACCEPTED]})

    id: str
    user_id: str
    username: str
    target_client_id: str
    machine: str
    machine_key: str | None = Field(description="Its fingerprint, for end-to-end encryption.")
    target: str
    status: Literal["waiting", "accepted", "expired", "revoked"]
    access_for: float
    created_at: str
    expires_at: str = Field(description="Of the code; once accepted, of the access.")
    accepted_by: str | None
    accepted_at: str | None
    ended_at: str | None


class OfferMade(OfferBody):
    """A new offer with its code."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OFFER | {"code": "7K3M-9QXD-4TNB"}]})

    code: str


@router.get("", response_model=Envelope[Page[OfferBody]], summary="List offers")
async def index(
    request: Request,
    caller: CodeHolder,
    paging: Paging,
    running: Annotated[bool, Query(description="Only what is not over.")] = False,
) -> Any:
    """What you made or accepted, guests' offers first, each newest first; everybody's, for admins
    and auditors."""
    offers, total = await services_of(request).offers.page(
        caller, offset=paging.offset, limit=paging.page_size, running=running
    )
    items = [_record(request, offer) for offer in offers]
    return page(items, total, paging.page, paging.page_size)


@router.post("", response_model=Envelope[OfferMade], summary="Offer a target")
async def create(body: OfferAsked, request: Request, caller: CodeHolder) -> Any:
    """Make a code for one target of a machine the caller may forward to. It works once.

    Whoever accepts it may open that target, as long as the caller may themselves. Guests, where
    they may offer, lend what their own link reaches, as long as it is up.
    """
    wanted = body.model_dump(exclude_unset=True)
    offer, code = await services_of(request).offers.create(caller, wanted)
    return ok(_record(request, offer) | {"code": code})


@router.post("/accept", response_model=Envelope[OfferBody], summary="Accept an offer")
async def accept(body: AcceptAsked, request: Request, caller: CodeHolder) -> Any:
    """Exchange a code for the caller's own access to the target, opened over their link.

    Wrong, used, expired and revoked codes get the same 404, and tries become slow.
    """
    offers = services_of(request).offers
    return ok(_record(request, await offers.accept(caller, body.code, body.expires_in)))


@router.get("/{offer_id}", response_model=Envelope[OfferBody], summary="Read an offer")
async def read(offer_id: OfferId, request: Request, caller: CodeHolder) -> Any:
    """One offer that the caller made or accepted."""
    return ok(_record(request, await services_of(request).offers.get(caller, offer_id)))


@router.delete("/{offer_id}", response_model=Envelope[OfferBody], summary="Revoke an offer")
async def revoke(offer_id: OfferId, request: Request, caller: CodeHolder) -> Any:
    """End an offer: the code is void, what is open through it is cut. Twice is fine."""
    return ok(_record(request, await services_of(request).offers.revoke(caller, offer_id)))


def _record(request: Request, offer: Offer) -> dict[str, Any]:
    return offer_record(offer, services_of(request).clock.now())
