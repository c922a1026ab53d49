"""Users: admins make, read, change and remove them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from underpass.control.users import UserChange
from underpass.core.errors import NotFound
from underpass.gateway.http.envelope import REFUSALS, Envelope, Nothing, Page, Paging, ok, page
from underpass.gateway.http.people import UserAsked, UserBody, UserPatch
from underpass.gateway.http.security import Admin, Auditor, Caller
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/users", tags=["users"], responses=REFUSALS)

_SORTS = {"username", "role", "created_at", "last_login_at"}


@router.get("", response_model=Envelope[Page[UserBody]], summary="List users")
async def index(_: Auditor, paging: Paging, request: Request) -> Any:
    """All users; ``q`` looks into names and e-mail addresses. Admins and auditors only."""
    column, descending = paging.order(_SORTS, "username")
    items, total = await services_of(request).users.page(
        page=paging.page,
        page_size=paging.page_size,
        text=paging.q,
        sort=column,
        descending=descending,
    )
    return page(items, total, paging.page, paging.page_size)


@router.post("", response_model=Envelope[UserBody], summary="Make a user")
async def create(body: UserAsked, by: Admin, request: Request) -> Any:
    """Make a user. Admins only."""
    return ok(
        await services_of(request).users.create(
            by,
            username=body.username,
            password=body.password,
            role=body.role,
            email=body.email,
        )
    )


@router.get("/{user_id}", response_model=Envelope[UserBody], summary="Read a user")
async def read(user_id: str, caller: Caller, request: Request) -> Any:
    """One user. Plain users can read themselves; anybody else does not exist for them."""
    if caller.role == "user" and user_id != caller.user_id:
        raise NotFound("There is no such user.", hint="Check the id.")
    return ok(await services_of(request).users.get(user_id))


@router.put("/{user_id}", response_model=Envelope[UserBody], include_in_schema=False)
@router.patch("/{user_id}", response_model=Envelope[UserBody], summary="Change a user")
async def change(user_id: str, body: UserPatch, by: Admin, request: Request) -> Any:
    """Change role, e-mail or password, disable or enable. Admins only.

    Disabling, demoting or setting a password cuts the person's terminals and links within
    seconds. The last admin who can sign in stays one.
    """
    return ok(
        await services_of(request).users.change(
            by,
            user_id,
            UserChange(
                role=body.role, disabled=body.disabled, email=body.email, password=body.password
            ),
        )
    )


@router.delete("/{user_id}", response_model=Envelope[Nothing], summary="Remove a user")
async def delete(user_id: str, by: Admin, request: Request) -> Any:
    """Remove a user with their logins and tokens. Sessions, recordings and events stay."""
    await services_of(request).users.delete(by, user_id)
    return ok()
