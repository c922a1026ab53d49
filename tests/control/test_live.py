"""The bus never waits for anybody: who is slow is told to read again."""

from __future__ import annotations

import asyncio

import pytest

from underpass.control.live import RESYNC, LiveBus, LiveMessage


async def test_everybody_who_watches_hears_it_in_order() -> None:
    bus = LiveBus()
    with bus.subscribe() as one, bus.subscribe(lambda m: m.topic == "agent") as two:
        bus.publish("agent", {"id": "1"})
        bus.publish("session", {"id": "2"})
        assert [(await one.next(1)), (await one.next(1))] == [
            LiveMessage("agent", {"id": "1"}),
            LiveMessage("session", {"id": "2"}),
        ]
        assert await two.next(1) == LiveMessage("agent", {"id": "1"})
        assert await two.next(0.01) is None
    assert len(bus) == 0


async def test_a_slow_reader_gets_one_resync_and_then_what_follows() -> None:
    bus = LiveBus()
    with bus.subscribe(limit=3) as slow:
        for n in range(10):
            bus.publish("agent", {"id": str(n)})
        topics = []
        while (message := await slow.next(0.01)) is not None:
            topics.append(message.topic if message.topic == RESYNC else message.data["id"])
    assert topics[0] == RESYNC or RESYNC in topics
    assert len(topics) <= 3


async def test_closing_lets_go_of_who_waits() -> None:
    bus = LiveBus()
    subscription = bus.subscribe()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(subscription.next())
        await asyncio.sleep(0)
        bus.close()
    assert waiting.result() is None
    assert subscription.closed
    subscription.offer(LiveMessage("agent", {}))
    assert await subscription.next(0.01) is None
    subscription.close()


async def test_a_subscription_can_be_iterated() -> None:
    bus = LiveBus()
    with bus.subscribe() as news:
        bus.publish("agent", {"id": "1"})
        async for message in news:
            assert message.data == {"id": "1"}
            news.close()


async def test_listeners_hear_before_publish_returns() -> None:
    bus, heard = LiveBus(), list[str]()
    bus.listen(lambda message: heard.append(message.topic))
    bus.publish("user", {})
    assert heard == ["user"]


@pytest.mark.parametrize("timeout", [0.0, 0.01])
async def test_waiting_has_a_deadline(timeout: float) -> None:
    with LiveBus().subscribe() as news:
        assert await news.next(timeout) is None
