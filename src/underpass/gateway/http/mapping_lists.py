"""The mappings of one user and of one machine, in the shape of ``/api/v1/mappings``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from underpass.control.mapping_list import MappingFilter
from underpass.core.errors import NotFound
from underpass.gateway.http.envelope import REFUSALS, Envelope, Page, Paging
from underpass.gateway.http.mapping_bodies import MappingBody
from underpass.gateway.http.mappings import listed
from underpass.gateway.http.security import Caller
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["mappings"], responses=REFUSALS)


@router.get(
    "/users/{user_id}/mappings",
    response_model=Envelope[Page[MappingBody]],
    response_model_exclude_unset=True,
    summary="List a user's mappings",
)
async def of_user(
    user_id: Annotated[str, Path(examples=["b4d1f6a0-77a4-4a51-8a3e-0c5f1d2e3b66"])],
    request: Request,
    caller: Caller,
    paging: Paging,
) -> Any:
    """Your own; anybody's, for admins and auditors."""
    if caller.role not in {"admin", "auditor"} and user_id != caller.user_id:
        raise NotFound("There is no such user.", hint="Check the id.")
    await services_of(request).users.get(user_id)
    return await listed(request, caller, paging, MappingFilter(user_id=user_id, text=paging.q))


@router.get(
    "/clients/{client_id}/mappings",
    response_model=Envelope[Page[MappingBody]],
    response_model_exclude_unset=True,
    summary="List a machine's mappings",
)
async def of_machine(
    client_id: Annotated[str, Path(examples=["0b9c7f1e-5d1a-4a53-8f0e-3c1f2a7d9e44"])],
    request: Request,
    caller: Caller,
    paging: Paging,
) -> Any:
    """Those that lead to it or that it listens for: your own, everybody's for admins and
    auditors."""
    await services_of(request).agents.require(caller, client_id, "see")
    return await listed(request, caller, paging, MappingFilter(agent_id=client_id, text=paging.q))
