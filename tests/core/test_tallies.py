"""Numbers for every connection look to Prometheus like any other metric."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from underpass.core.tallies import CounterTallies, GaugeTallies


def test_they_are_shown_as_the_clients_own() -> None:
    ours, theirs = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    opened = CounterTallies("opened_total", "Openings.", ["kind", "outcome"], ours)
    now = GaugeTallies("open", "Open now.", ["kind"], ours)
    same_opened = Counter("opened_total", "Openings.", ["kind", "outcome"], registry=theirs)
    same_now = Gauge("open", "Open now.", ["kind"], registry=theirs)
    for counter, gauge in ((opened, now), (same_opened, same_now)):
        counter.labels("tcp", "ok").inc()
        counter.labels("tcp", "ok").inc(2)
        counter.labels('u"x', "refused").inc()
        gauge.labels("tcp").inc()
        gauge.labels("tcp").inc()
        gauge.labels("tcp").dec()

    def samples(registry: CollectorRegistry) -> list[bytes]:
        return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]

    assert samples(ours) == samples(theirs)
    assert ours.get_sample_value("open", {"kind": "tcp"}) == 1


def test_a_forgotten_label_is_an_error() -> None:
    opened = CounterTallies("x_total", "X.", ["kind", "outcome"], CollectorRegistry())
    with pytest.raises(ValueError, match="kind, outcome"):
        opened.labels("tcp")
    assert opened.labels("a", "b") is opened.labels("a", "b")
