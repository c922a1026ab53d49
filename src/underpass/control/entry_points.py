"""Has entry points do what a change of a mapping asks for, and never waits for them for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from underpass.control.mapping import EntryPoints, Mapping, MappingLive
from underpass.core.errors import Unavailable, UnderpassError

__all__ = ["NoEntryPoints", "close_entry", "open_entry", "put_to_work"]

DEADLINE: Final = 10.0
"""Seconds an entry point gets to open, change or close."""


class NoEntryPoints:
    """Stands where entry points will be, while a gateway starts."""

    async def open(self, mapping: Mapping) -> Mapping:
        raise Unavailable("The gateway is still starting.", code="starting", retry_after=1)

    async def change(self, mapping: Mapping) -> Mapping:
        return await self.open(mapping)

    async def close(self, mapping_id: str, reason: str) -> None:
        """There is nothing to close."""

    def live(self, mapping_id: str) -> MappingLive:
        return MappingLive()


async def open_entry(entry_points: EntryPoints, mapping: Mapping) -> Mapping:
    """Listen for *mapping*; gives it with the port really in use.

    Raises:
        Conflict: code ``port_in_use``.
        Unavailable: it can't be opened, or took too long.
    """
    async with _deadline():
        return await entry_points.open(mapping)


async def close_entry(entry_points: EntryPoints, mapping_id: str, reason: str) -> None:
    """Stop listening, and end what is open.

    Raises:
        Unavailable: it took too long.
    """
    async with _deadline():
        await entry_points.close(mapping_id, reason)


async def put_to_work(
    entry_points: EntryPoints, old: Mapping | None, new: Mapping, *, forgiving: bool = False
) -> Mapping:
    """Make what listens for *old* (nothing, for ``None``) listen for *new*.

    What need not be opened anew stays open, with its connections.

    Args:
        forgiving: one that did not work before may go on not to.

    Returns:
        *new* with the port really in use, or its ``error``.

    Raises:
        UnderpassError: it could not be opened or changed.
    """
    was_open = old is not None and old.enabled
    if not new.enabled:
        if was_open:
            await close_entry(entry_points, new.id, "The mapping was disabled.")
        return new
    try:
        if old is not None and was_open:
            if (old.source, old.group) == (new.source, new.group) and old.status == "active":
                async with _deadline():
                    return await entry_points.change(new)
            await close_entry(entry_points, new.id, "The mapping was moved.")
        return await open_entry(entry_points, new)
    except UnderpassError as error:
        if forgiving:
            return replace(new, status="error", error=error.message)
        raise


@asynccontextmanager
async def _deadline() -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    except TimeoutError:
        raise Unavailable(
            f"The entry point did not answer within {DEADLINE:g} s.", code="no_answer"
        ) from None
