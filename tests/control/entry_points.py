"""Entry points that listen on nothing: they keep what they were told, and fail when told to."""

from __future__ import annotations

from dataclasses import replace

from underpass.control.mapping import Mapping, MappingLive
from underpass.core.errors import Conflict, UnderpassError

__all__ = ["FakeEntryPoints"]


class FakeEntryPoints:
    """Attributes: what is open, by id; ports other programs have; every call, in order."""

    def __init__(self) -> None:
        self.opened: dict[str, Mapping] = {}
        self.busy: set[int] = set()
        self.calls: list[str] = []
        self.failure: UnderpassError | None = None
        self.lives: dict[str, MappingLive] = {}
        self.agent_picks = 0

    async def open(self, mapping: Mapping) -> Mapping:
        self.calls.append("open")
        self._may_fail(mapping)
        if mapping.source.kind == "agent" and mapping.source.port == 0 and self.agent_picks:
            mapping = replace(mapping, source=replace(mapping.source, port=self.agent_picks))
        self.opened[mapping.id] = mapping
        return mapping

    async def change(self, mapping: Mapping) -> Mapping:
        self.calls.append("change")
        self._may_fail(mapping)
        assert mapping.id in self.opened
        self.opened[mapping.id] = mapping
        return mapping

    async def close(self, mapping_id: str, reason: str) -> None:
        assert reason
        if self.opened.pop(mapping_id, None) is not None:
            self.calls.append("close")

    def live(self, mapping_id: str) -> MappingLive:
        return self.lives.get(mapping_id, MappingLive())

    def _may_fail(self, mapping: Mapping) -> None:
        if self.failure is not None:
            raise self.failure
        if self.busy.intersection(mapping.source.ports):
            raise Conflict("Another program has the port.", code="port_in_use")
