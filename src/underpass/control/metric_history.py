"""The last two hours of each machine's load, in memory; what the console draws first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from underpass.core.clock import rfc3339

__all__ = ["MAX_POINTS", "MetricHistory", "Point"]

MAX_POINTS = 240
"""At one heartbeat in 30 s: two hours."""


@dataclass(frozen=True, slots=True)
class Point:
    """One heartbeat's numbers; percentages but for ``load`` (one-minute average)."""

    time: float
    cpu: float | None
    memory: float | None
    disk: float | None
    load: float | None


class MetricHistory:
    """A bounded ring of points per machine; the machine heard longest ago goes first.

    Args:
        max_agents: rings kept at most.
    """

    def __init__(self, max_agents: int = 20_000) -> None:
        self._max_agents = max_agents
        self._rings: OrderedDict[str, deque[Point]] = OrderedDict()

    def add(self, agent_id: str, time: float, dynamic_info: Mapping[str, Any]) -> None:
        """Keep the numbers of a heartbeat; anything that is no number counts as unknown."""
        ring = self._rings.get(agent_id)
        if ring is None:
            if len(self._rings) >= self._max_agents:
                self._rings.popitem(last=False)
            ring = self._rings[agent_id] = deque(maxlen=MAX_POINTS)
        self._rings.move_to_end(agent_id)
        ring.append(
            Point(
                time,
                _number(dynamic_info.get("cpu_percent")),
                _number(dynamic_info.get("memory_percent")),
                _fullest(dynamic_info.get("disks")),
                _first(dynamic_info.get("load")),
            )
        )

    def of(self, agent_id: str) -> list[dict[str, Any]]:
        """The points of a machine, oldest first: ``{time, cpu, memory, disk, load}``."""
        return [
            {
                "time": rfc3339(point.time),
                "cpu": point.cpu,
                "memory": point.memory,
                "disk": point.disk,
                "load": point.load,
            }
            for point in self._rings.get(agent_id, ())
        ]

    def forget(self, agent_id: str) -> None:
        """Drop a machine's ring."""
        self._rings.pop(agent_id, None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _first(value: object) -> float | None:
    if not isinstance(value, list) or not value:
        return None
    return _number(cast("list[object]", value)[0])


def _fullest(value: object) -> float | None:
    """The use of the fullest disk in percent: the one that will hurt first."""
    if not isinstance(value, list):
        return None
    shares = [
        _number(cast("dict[str, object]", disk).get("percent"))
        for disk in cast("list[object]", value)
        if isinstance(disk, dict)
    ]
    return max((share for share in shares if share is not None), default=None)
