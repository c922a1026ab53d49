"""Guests over HTTP: a login without an account, good for one-time codes alone."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from underpass.gateway.http.envelope import REFUSALS, Envelope, ok
from underpass.gateway.http.security import address_of, check_origin
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/guests", tags=["guests"], responses=REFUSALS)


class GuestBody(BaseModel):
    """A guest's login."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "upg_5f0c2a9e….1767268800.9d3e…",
                    "token_type": "bearer",
                    "expires_in": 43200,
                    "id": "guest:5f0c2a9e0b7dc550d632f0a5b9e7c1",
                    "username": "guest-5f0c2a9e",
                    "may_offer": False,
                }
            ]
        }
    )

    access_token: str
    token_type: str
    expires_in: float = Field(description="Seconds; it can't be made longer.")
    id: str
    username: str
    may_offer: bool = Field(description="Whether it may make codes, not only use them.")


@router.post("", response_model=Envelope[GuestBody], summary="Come in as a guest")
async def admit(request: Request) -> Any:
    """Get a login for offers and their codes; anything else answers 403 to it.

    Only where the gateway's setting `guests` says so; thirty an hour from one address.
    """
    if "origin" in request.headers:
        check_origin(request)
    guests = services_of(request).guests
    login = await guests.admit(address_of(request))
    return ok(
        {
            "access_token": login.token,
            "token_type": "bearer",
            "expires_in": login.expires_in,
            "id": login.subject.user_id,
            "username": login.subject.username,
            "may_offer": guests.mode == "all",
        }
    )
