"""Refusals are all counted and seldom told."""

from __future__ import annotations

import asyncio

from tests.gateway.entrypoints.world import mapping
from tests.gateway.gateways import FakeEvents
from underpass.core import metrics
from underpass.core.clock import ManualClock
from underpass.core.supervisor import Supervisor
from underpass.gateway.entrypoints.refusals import Refusals, reason_of


async def test_one_event_a_minute_with_a_count() -> None:
    events, clock = FakeEvents(), ManualClock()
    count = metrics.MAPPING_REFUSALS.labels("tcp", "limit")._value.get
    before = count()
    async with Supervisor("t") as supervisor:
        refusals = Refusals(events, clock, supervisor)  # type: ignore[arg-type]
        for _ in range(50):
            refusals.note(mapping(), "limit", "192.0.2.1")
        refusals.note(mapping(), "address", "192.0.2.1")
        refusals.note(mapping(id="m-2"), "limit", "192.0.2.1")
        clock.advance(60)
        refusals.note(mapping(), "limit", "192.0.2.2", code="x")
        await asyncio.sleep(0.01)
    assert count() == before + 52
    told = [(kind, more["object_id"], more["details"]["count"]) for kind, more in events.recorded]
    assert told == [
        ("stream.failed", "m-1", 1),
        ("stream.denied", "m-1", 1),
        ("stream.failed", "m-2", 1),
        ("stream.failed", "m-1", 50),
    ]
    assert events.recorded[-1][1]["ip"] == "192.0.2.2"
    refusals.note(mapping(id="m-3"), "limit")  # after the end: nobody to tell, nothing breaks


def test_a_peers_code_is_no_label() -> None:
    assert reason_of("policy_denied") == "policy"
    assert reason_of("whatever the agent likes") == "failed"
