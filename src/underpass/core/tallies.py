"""Metrics for what happens with every connection: labelled numbers without a lock.

The prometheus client's own take a lock and look at their state for each step; four of them were a
twentieth of what a new connection costs the gateway. These are for the event loop's thread alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["CounterTallies", "GaugeTallies", "Tally"]


class Tally:
    """One number of a metric.

    Attributes:
        value: what it is at.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count up."""
        self.value += amount

    def dec(self, amount: int = 1) -> None:
        """Count down (gauges only)."""
        self.value -= amount


class CounterTallies:
    """A counter with labels.

    Args:
        name: what Prometheus shows it as, ``_total`` included.
        documentation: one sentence.
        labels: their names.
        registry: where it is collected.
    """

    _family: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._tallies: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """The number with these labels; the same one each time."""
        tally = self._tallies.get(values)
        if tally is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}")
            tally = self._tallies[values] = Tally()
        return tally

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The registry's: all numbers as they are now."""
        family = self._family(self._name, self._documentation, labels=self._labels)
        for values, tally in list(self._tallies.items()):
            family.add_metric(values, tally.value)
        yield family


class GaugeTallies(CounterTallies):
    """A gauge with labels."""

    _family = GaugeMetricFamily
