"""Writes what has passed through entry points to their mappings' rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.core import metrics
from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.entry_point import EntryPoint

__all__ = ["UsageBook", "UsageRows"]

_log = structlog.get_logger(__name__)

_DATABASE: Final = (UnderpassError, SQLAlchemyError, OSError, TimeoutError)


class UsageRows(Protocol):
    """The rows (``control.mappings.Mappings``)."""

    async def add_usage(
        self,
        mapping_id: str,
        *,
        connections: int = 0,
        sent: int = 0,
        received: int = 0,
        last_active_at: float | None = None,
    ) -> None: ...


class UsageBook:
    """See the module. What can't be written waits for the next time.

    Attributes:
        writing: held while :meth:`write_all` is at work; whoever ends its task takes it first, or
            nobody would know whether what was being written was.
    """

    def __init__(self, rows: UsageRows) -> None:
        self._rows = rows
        self.writing = asyncio.Lock()

    async def write_all(self, entries: Iterable[EntryPoint]) -> None:
        """Write what has passed through *entries* since the last time."""
        async with self.writing:
            for entry in tuple(entries):
                await self.write(entry)

    async def write(self, entry: EntryPoint) -> None:
        """The same for one."""
        usage = entry.traffic.take()
        if not usage:
            return
        try:
            await self._rows.add_usage(
                entry.mapping.id, connections=usage.connections, sent=usage.sent,
                received=usage.received, last_active_at=usage.last_active_at,
            )  # fmt: skip
        except _DATABASE as error:
            entry.traffic.give_back(usage)
            _log.warning("usage_not_kept", mapping=entry.mapping.id, error=str(error)[:300])
            return
        entry.traffic.keep(usage)
        kind = entry.mapping.protocol
        metrics.STREAM_BYTES.labels(kind, "to_agent").inc(usage.sent)
        metrics.STREAM_BYTES.labels(kind, "from_agent").inc(usage.received)
