"""What one person's tunnels may still use, whatever opens, passes and changes meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from underpass.control.mapping import Limits
from underpass.control.quota import Quota
from underpass.core.clock import ManualClock, SystemClock
from underpass.core.errors import TooManyRequests, UnderpassError
from underpass.gateway.entrypoints.allowance import Allowance
from underpass.gateway.entrypoints.limitable import LimitableStream
from underpass.gateway.entrypoints.shape import Shape
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.stream import Stream


class Counter:
    def __init__(self, bytes_in: int = 0, bytes_out: int = 0) -> None:
        self.bytes_in, self.bytes_out = bytes_in, bytes_out


def at(*moment: int) -> ManualClock:
    return ManualClock(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc]


def never(error: UnderpassError) -> None:
    raise AssertionError(str(error))


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_open_and_what_is_over_is_added_up() -> None:
    allowance = Allowance("u-1", ManualClock())
    first, second = Counter(bytes_in=100), Counter()
    allowance.begin(first, never, base=100)
    allowance.begin(second, never)
    first.bytes_in += 5
    second.bytes_out += 7
    assert (allowance.used, allowance.active) == (12, 2)
    allowance.end(first)
    first.bytes_in += 1000  # none of ours any more
    allowance.end(first)
    assert (allowance.used, allowance.active) == (12, 1)
    assert allowance.book() == 12
    second.bytes_in += 1
    assert (allowance.used, allowance.unaccounted) == (13, 1)
    allowance.settle(allowance.month, 500)  # another node has added its own
    assert allowance.used == 501


def test_what_could_not_be_booked_is_booked_later() -> None:
    allowance = Allowance("u-1", ManualClock())
    counter = Counter()
    allowance.begin(counter, never)
    counter.bytes_in = 10
    allowance.unbook(allowance.book())
    assert (allowance.used, allowance.book(), allowance.book()) == (10, 10, 0)


async def test_many_at_once_can_use_one_chunk_too_much_in_all() -> None:
    allowance = Allowance("u-1", ManualClock(), Quota(monthly_traffic=1000))
    ended: list[UnderpassError] = []
    counters = [Counter() for _ in range(20)]
    for counter in counters:
        allowance.begin(counter, ended.append)
    passed = 0
    for counter in counters * 5:
        if allowance.take(64):
            counter.bytes_out += 64
            passed += 64
    assert passed == 1024
    assert ended == []  # not from inside the stream that found out
    await turns()
    assert len(ended) == 20
    assert {error.code for error in ended} == {"quota_exceeded"}
    assert all("It renews on" in str(error) for error in ended)
    allowance.refresh()
    assert len(ended) == 20  # each is told once
    with pytest.raises(TooManyRequests, match="used up"):
        await allowance.require()


async def test_what_nobody_meters_is_found_by_the_next_look() -> None:
    allowance = Allowance("u-1", ManualClock(), Quota(monthly_traffic=1000))
    ended: list[UnderpassError] = []
    counter = Counter()
    allowance.begin(counter, ended.append)
    counter.bytes_in = 999
    allowance.refresh()
    assert ended == []
    counter.bytes_out = 1
    allowance.refresh()
    assert len(ended) == 1


async def test_it_works_again_when_more_is_allowed() -> None:
    allowance = Allowance("u-1", ManualClock(), Quota(monthly_traffic=10))
    counter = Counter()
    allowance.begin(counter, lambda error: None)
    assert allowance.take(10)
    counter.bytes_in = 10
    await turns()
    with pytest.raises(TooManyRequests):
        allowance.check()
    allowance.change(Quota(monthly_traffic=20))
    allowance.check()
    assert allowance.take(1)
    allowance.change(Quota(monthly_traffic=0))
    with pytest.raises(TooManyRequests):
        allowance.check()
    allowance.change(Quota())
    allowance.check()
    assert allowance.take(10**15)


async def test_a_raise_in_time_cuts_nobody() -> None:
    allowance = Allowance("u-1", ManualClock(), Quota(monthly_traffic=10))
    counter = Counter(0)
    allowance.begin(counter, never)
    counter.bytes_in = 10
    assert allowance.take(10)
    allowance.change(Quota(monthly_traffic=100))
    await turns()


async def test_a_new_month_begins_at_nought() -> None:
    clock = at(2026, 11, 30, 23, 59, 58)
    allowance = Allowance("u-1", clock, Quota(monthly_traffic=100))
    counter = Counter()
    allowance.begin(counter, lambda error: None)
    counter.bytes_in = 150
    allowance.refresh()
    assert allowance.turn() is None
    with pytest.raises(TooManyRequests) as raised:
        allowance.check()
    assert raised.value.retry_after == 2
    clock.advance(3)
    counter.bytes_in += 7  # before the page is turned: of the old month
    assert allowance.turn() == ("2026-11", 157)
    allowance.check()
    counter.bytes_in += 20
    assert (allowance.month, allowance.used) == ("2026-12", 20)
    assert not allowance.loaded
    await allowance.require()
    allowance.settle("2026-11", 10**9)  # an answer that comes late says nothing of now
    allowance.check()


async def test_one_bandwidth_for_all_the_streams_of_a_person() -> None:
    clock = ManualClock()
    allowance = Allowance("u-1", clock, Quota(bandwidth=2048))
    first, second = (Shape(Limits(bandwidth=1024), clock, allowance) for _ in range(2))
    assert first.admits(1024, sent=True)  # all that a burst allows
    assert not second.admits(1024, sent=True)
    assert second.admits(1024, sent=False)  # each way by itself
    clock.advance(0.6)
    assert second.admits(1024, sent=True)
    allowance.change(Quota())
    assert Shape(Limits(), clock, allowance).admits(10**9, sent=True)


async def collect(stream: Stream, into: bytearray) -> None:
    while data := await stream.read():
        into += data


async def test_limits_that_come_while_bytes_flow() -> None:
    """First a meter, then a bandwidth over it: nothing is lost, and both hold."""
    allowance = Allowance("u-1", SystemClock())
    shape = Shape(Limits(), SystemClock(), allowance)
    user, near = memory_pair()
    far, target = memory_pair()
    got, back = bytearray(), bytearray()
    allowance.begin(near, never)
    with shape.around(near, far) as wrapped:
        assert isinstance(wrapped, LimitableStream)
        assert not (wrapped.metered or wrapped.shaped)
        async with asyncio.TaskGroup() as group, asyncio.timeout(10):
            group.create_task(relay(wrapped, far))
            group.create_task(collect(target, got))
            group.create_task(collect(user, back))
            for number in range(200):
                user.write(bytes([number]) * 500)
                target.write(bytes([number]) * 500)
                await asyncio.sleep(0)
                if number == 50:
                    allowance.change(Quota(monthly_traffic=10**6))
                    assert wrapped.metered
                if number == 100:
                    allowance.change(Quota(monthly_traffic=10**6, bandwidth=100_000))
                    assert wrapped.shaped
            assert len(got) < 100_000  # the rest waits for its tokens
            allowance.change(Quota(monthly_traffic=10**6))
            await user.write_eof()
            await target.write_eof()
    assert got == back == b"".join(bytes([number]) * 500 for number in range(200))
    assert allowance.used == 200_000


async def test_parallel_relays_end_at_the_quota() -> None:
    allowance = Allowance("u-1", SystemClock(), Quota(monthly_traffic=1_000_000))
    shape = Shape(Limits(), SystemClock(), allowance)
    arrived = [bytearray() for _ in range(8)]

    async def download(into: bytearray) -> None:
        user, near = memory_pair()
        far, target = memory_pair()

        async def feed() -> None:
            while not target.closed:
                target.write(bytes(10_000))
                await asyncio.sleep(0)

        async def read() -> None:
            while data := await user.read():
                into.extend(data)

        with shape.around(near, far) as wrapped:
            allowance.begin(near, lambda error: wrapped.abort(error.code, str(error)))
            tasks = (relay(wrapped, far), feed(), read())
            results = await asyncio.gather(*tasks, return_exceptions=True)
            allowance.end(near)
        assert isinstance(results[2], UnderpassError)
        assert results[2].code == "quota_exceeded"

    async with asyncio.timeout(10):
        await asyncio.gather(*(download(into) for into in arrived))
    assert 900_000 < sum(map(len, arrived)) <= allowance.used < 1_000_000 + 70_000
