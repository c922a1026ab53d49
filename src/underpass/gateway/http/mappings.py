"""Mappings over HTTP: make, list, read, change, delete, and what goes through them."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query, Request

from underpass.control.mapping import Mapping, MappingLive, mapping_record, mapping_stats
from underpass.control.mapping_list import SORTABLE, MappingFilter
from underpass.control.subject import Subject
from underpass.gateway.http.envelope import (
    REFUSALS,
    Envelope,
    Nothing,
    Page,
    PageQuery,
    Paging,
    ok,
    page,
)
from underpass.gateway.http.mapping_bodies import (
    MappingAsked,
    MappingBody,
    MappingLiveStats,
    MappingPatch,
    Protocol,
    Status,
)
from underpass.gateway.http.security import Caller, origin_of
from underpass.gateway.services import services_of

__all__ = ["listed", "router"]

router = APIRouter(prefix="/api/v1/mappings", tags=["mappings"], responses=REFUSALS)

MappingId = Annotated[str, Path(examples=["6f1c2a9e-0b7d-4c55-9d63-2f0a5b9e7c11"])]

LOOKS: Final = 5
"""At a mapping whose totals are just being written, until it is told as it was last seen."""


@router.get(
    "",
    response_model=Envelope[Page[MappingBody]],
    response_model_exclude_unset=True,
    summary="List mappings",
)
async def index(  # noqa: PLR0917 - the query's parameters
    request: Request,
    caller: Caller,
    paging: Paging,
    protocol: Annotated[Protocol | None, Query()] = None,
    status: Annotated[Status | None, Query()] = None,
    client_id: Annotated[
        str | None, Query(max_length=64, description="That it leads to, or that listens.")
    ] = None,
    user_id: Annotated[str | None, Query(max_length=64)] = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:
    """Your own; everybody's, for admins and auditors. ``q`` looks into name, target and id."""
    wanted = MappingFilter(protocol, status, client_id, user_id, group, paging.q)
    return await listed(request, caller, paging, wanted)


async def listed(
    request: Request, caller: Subject, paging: PageQuery, wanted: MappingFilter
) -> dict[str, Any]:
    """The answer with one page of the mappings that *caller* may see."""
    mappings, total = await services_of(request).mappings.page(
        caller,
        wanted,
        offset=paging.offset,
        limit=paging.page_size,
        order=paging.order(set(SORTABLE), "-created_at"),
    )
    items = [_record(request, mapping) for mapping in mappings]
    return page(items, total, paging.page, paging.page_size)


@router.post(
    "",
    response_model=Envelope[MappingBody],
    response_model_exclude_unset=True,
    summary="Make a mapping",
)
async def create(body: MappingAsked, request: Request, caller: Caller) -> Any:
    """Open an entry point of the caller's own, to a machine they may forward to.

    The port is the mapping's until it is deleted, disabled or not. A bandwidth of no burst lets
    half a second's worth pass at once.
    """
    wanted = body.model_dump(exclude_unset=True)
    return ok(_record(request, await services_of(request).mappings.create(caller, wanted)))


@router.get(
    "/{mapping_id}",
    response_model=Envelope[MappingBody],
    response_model_exclude_unset=True,
    summary="Read a mapping",
)
async def read(mapping_id: MappingId, request: Request, caller: Caller) -> Any:
    """One mapping; unknown ones and other people's get the same 404."""
    mapping, live = await _seen(request, caller, mapping_id)
    return ok(mapping_record(mapping, live, _host(request)))


@router.put(
    "/{mapping_id}",
    response_model=Envelope[MappingBody],
    response_model_exclude_unset=True,
    include_in_schema=False,
)
@router.patch(
    "/{mapping_id}",
    response_model=Envelope[MappingBody],
    response_model_exclude_unset=True,
    summary="Change a mapping",
)
async def change(
    mapping_id: MappingId, body: MappingPatch, request: Request, caller: Caller
) -> Any:
    """Change what is named. Open connections stay, unless source or status change."""
    wanted = body.model_dump(exclude_unset=True)
    changed = await services_of(request).mappings.update(caller, mapping_id, wanted)
    return ok(_record(request, changed))


@router.delete("/{mapping_id}", response_model=Envelope[Nothing], summary="Delete a mapping")
async def delete(mapping_id: MappingId, request: Request, caller: Caller) -> Any:
    """End a mapping with its connections; its port is free for others."""
    await services_of(request).mappings.delete(caller, mapping_id)
    return ok()


@router.get(
    "/{mapping_id}/stats",
    response_model=Envelope[MappingLiveStats],
    summary="What goes through a mapping",
)
async def stats(mapping_id: MappingId, request: Request, caller: Caller) -> Any:
    """Totals up to this moment, and the rates of the last seconds."""
    mapping, live = await _seen(request, caller, mapping_id)
    return ok(
        mapping_stats(mapping, live)
        | {
            "sent_rate": live.sent_rate,
            "received_rate": live.received_rate,
            "dropped": live.dropped,
        }
    )


async def _seen(request: Request, caller: Subject, mapping_id: str) -> tuple[Mapping, MappingLive]:
    """A mapping, and what is not in its row yet.

    Every few seconds the one is written to the other. What was read around that fits together
    badly, by a little and for a moment; so look again.
    """
    mappings = services_of(request).mappings
    looks = 0
    while True:
        looks += 1
        before = mappings.entry_points.live(mapping_id)
        mapping = await mappings.get(caller, mapping_id)
        live = mappings.entry_points.live(mapping_id)
        if looks == LOOKS or (before.settled and before.writes == live.writes):
            return mapping, live


def _record(request: Request, mapping: Mapping) -> dict[str, Any]:
    live = services_of(request).mappings.entry_points.live(mapping.id)
    return mapping_record(mapping, live, _host(request))


def _host(request: Request) -> str:
    return urlsplit(origin_of(request)).hostname or "localhost"
