"""API keys: one's own tokens for scripts, shown once, never listed with their secret."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from underpass.gateway.http.envelope import REFUSALS, Envelope, Nothing, Page, Paging, ok, page
from underpass.gateway.http.people import ApiKeyAsked, ApiKeyBody, ApiKeyCreated
from underpass.gateway.http.security import Caller
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/api-keys", tags=["API keys"], responses=REFUSALS)


@router.get("", response_model=Envelope[Page[ApiKeyBody]], summary="List one's API keys")
async def index(caller: Caller, paging: Paging, request: Request) -> Any:
    """One's own API keys that still work, newest first."""
    keys = await services_of(request).api_tokens.list_for(caller.user_id)
    shown = keys[paging.offset : paging.offset + paging.page_size]
    return page(shown, len(keys), paging.page, paging.page_size)


@router.post("", response_model=Envelope[ApiKeyCreated], summary="Make an API key")
async def create(body: ApiKeyAsked, caller: Caller, request: Request) -> Any:
    """Make an API key with one's own rights. It needs a login: a key can't make keys."""
    return ok(await services_of(request).api_tokens.create(caller, body.name, body.expires_in))


@router.delete("/{key_id}", response_model=Envelope[Nothing], summary="Revoke an API key")
async def revoke(key_id: str, caller: Caller, request: Request) -> Any:
    """End an API key at once, with every access token made from it. Admins: anybody's."""
    await services_of(request).api_tokens.revoke(caller, key_id)
    return ok()
