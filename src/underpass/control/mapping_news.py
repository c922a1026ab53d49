"""What the audit trail and the live news say of mappings."""

from __future__ import annotations

from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.mapping import Mapping
from underpass.control.subject import Subject
from underpass.core.errors import Forbidden

__all__ = ["MappingNews"]

Change = Literal["created", "updated", "deleted", "status"]
_COMPARED: Final = (
    "name", "source", "target_agent_id", "target_host", "target_port", "target_path", "status",
    "limits", "options", "group", "balancing",
)  # fmt: skip


class MappingNews:
    """Writes ``mapping.created|updated|deleted|failed`` and publishes topic ``mapping``."""

    def __init__(self, events: Events, bus: LiveBus) -> None:
        self._events = events
        self._bus = bus

    async def settled(
        self, by: Subject, old: Mapping | None, new: Mapping, db: AsyncSession
    ) -> None:
        """*new* was made, or took the place of *old*."""
        details: dict[str, Any] = {"version": new.version}
        if old is not None:
            changed = [name for name in _COMPARED if getattr(old, name) != getattr(new, name)]
            details["changed"] = changed
        kind = "mapping.created" if old is None else "mapping.updated"
        await self._record(kind, new, details, db, actor=by)

    async def deleted(
        self, by: Subject | None, mapping: Mapping, reason: str, db: AsyncSession
    ) -> None:
        """*mapping* is no more."""
        await self._record("mapping.deleted", mapping, {"reason": reason}, db, actor=by)

    async def failed(
        self, by: Subject | None, mapping: Mapping, error: BaseException | str,
        db: AsyncSession | None = None,
    ) -> None:  # fmt: skip
        """*mapping* could not be put to work."""
        code = "error" if isinstance(error, str) else getattr(error, "code", type(error).__name__)
        details = {"code": code, "error": str(error)[:500]}
        await self._record("mapping.failed", mapping, details, db, actor=by, outcome="failed")

    async def denied(self, by: Subject, mapping: Mapping, error: Forbidden) -> None:
        """*by* sees a machine, but may not have anything forwarded there."""
        rule = str(error.details.get("rule") or "") or None
        await self._record(
            "mapping.created", mapping, {}, None, actor=by, outcome="denied", rule=rule
        )

    def announce(self, mapping: Mapping, change: Change) -> None:
        """Tell whoever watches; afterwards, when the database has it."""
        self._bus.publish(
            "mapping",
            {
                "id": mapping.id,
                "change": change,
                "user_id": mapping.user_id,
                "agent_id": mapping.target_agent_id,
            },
        )

    async def _record(
        self, kind: str, mapping: Mapping, details: dict[str, Any], db: AsyncSession | None,
        **more: Any,
    ) -> None:  # fmt: skip
        about = {
            "name": mapping.name,
            "protocol": mapping.protocol,
            "source": mapping.source.to_json(),
            "target": mapping.target or None,
        }
        if mapping.declared_by is not None:
            about["declared_by"] = mapping.declared_by
        await self._events.record(
            kind,
            agent_id=mapping.target_agent_id,
            object_id=mapping.id,
            details=about | details,
            db=db,
            **more,
        )
