"""Set-up: whether the first admin is still to be made, and making them with the printed code."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from underpass.gateway.http.auth import login_answer
from underpass.gateway.http.envelope import REFUSALS, Envelope, ok
from underpass.gateway.http.people import LoginBody, SetupAsked, SetupState
from underpass.gateway.http.security import address_of, check_origin, limit
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/setup", tags=["set-up"], responses=REFUSALS)


@router.get("", response_model=Envelope[SetupState], summary="Is set-up needed?")
async def state(request: Request) -> Any:
    """Whether there is no first admin yet."""
    return ok({"needed": await services_of(request).setup.needed()})


@router.post("", response_model=Envelope[LoginBody], summary="Make the first admin")
async def complete(body: SetupAsked, request: Request, response: Response) -> Any:
    """Make the first admin with the one-time code the gateway printed, and sign them in.

    The code is burned on use; a name or password that breaks the rules leaves it good.
    """
    if "origin" in request.headers:
        check_origin(request)
    await limit(request, "setup", 30, 60)
    made = await services_of(request).setup.complete(
        body.code,
        body.username,
        body.password,
        ip=address_of(request),
        user_agent=request.headers.get("user-agent"),
    )
    return login_answer(made, request, response)
