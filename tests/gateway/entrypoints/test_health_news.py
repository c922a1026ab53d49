"""Events and live news of targets that go down and come back."""

from __future__ import annotations

import pytest

from tests.gateway.entrypoints.world import OWNER, mapping, until, world
from tests.gateway.gateways import AGENT_ID
from underpass.control.health import HealthState, HealthStatus
from underpass.control.live import LiveMessage
from underpass.gateway.entrypoints.health_news import HealthNews


@pytest.mark.parametrize(
    ("before", "state", "outcome"),
    [("up", "down", "failed"), ("unknown", "down", "failed"), ("down", "up", "ok")],
)
async def test_an_event_and_news(before: HealthState, state: HealthState, outcome: str) -> None:
    async with world(agent=False) as here:
        heard: list[LiveMessage] = []
        here.bus.listen(heard.append)
        news = HealthNews(here.around.refusals, here.bus)
        news(mapping(group="web"), before, HealthStatus(state, "because", 5.0))
        await until(lambda: here.events.named("mapping.health_changed"))
        (event,) = here.events.named("mapping.health_changed")
        assert (event["object_id"], event["agent_id"]) == ("m-1", AGENT_ID)
        assert event["outcome"] == outcome
        assert event["details"] == {
            "name": "m", "group": "web", "before": before, "health": state, "reason": "because",
        }  # fmt: skip
        assert [(m.topic, m.data["change"], m.data["user_id"]) for m in heard] == [
            ("mapping", "health", OWNER)
        ]


async def test_well_from_the_start_is_no_event() -> None:
    async with world(agent=False) as here:
        heard: list[LiveMessage] = []
        here.bus.listen(heard.append)
        HealthNews(here.around.refusals, here.bus)(mapping(), "unknown", HealthStatus("up"))
        assert len(heard) == 1
    assert here.events.named("mapping.health_changed") == []
