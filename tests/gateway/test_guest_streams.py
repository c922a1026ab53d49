"""Guests' streams are counted at both ends, held to a bandwidth, and cut when all is used."""

from __future__ import annotations

import asyncio

import pytest

from underpass.control.guest_quota import Allowed, GuestQuota
from underpass.control.subject import Subject
from underpass.core.clock import ManualClock
from underpass.core.errors import TooManyRequests
from underpass.gateway.guest_streams import GuestPassage, GuestStreams
from underpass.links.memory import memory_pair

BOB = Subject("u-2", "bob", "user", ip="192.0.2.9")
GUEST = Subject("guest:1", "guest-1", "guest", ip="192.0.2.1")
HOST = "guest:2"
SMALL = Allowed(offers=1, links=1, connections=1, openings=9, traffic=10, bandwidth=1000.0)
LARGE = Allowed(offers=9, links=9, connections=9, openings=99, traffic=99, bandwidth=1000.0)


class Cuts:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def __call__(self, code: str, _message: str) -> None:
        self.codes.append(code)


def streams() -> GuestStreams:
    return GuestStreams(GuestQuota(ManualClock(), SMALL, LARGE), {HOST: "192.0.2.2"}.get)


def accounts(passage: GuestPassage) -> int:
    return len(passage._accounts)


def test_who_is_counted() -> None:
    for subject, agent, expected in (
        (BOB, "a-1", 0), (GUEST, "a-1", 2), (BOB, HOST, 2), (GUEST, HOST, 4),
        (BOB, "guest:unknown", 2),
    ):  # fmt: skip
        with streams().passing(subject, agent, Cuts()) as passage:
            assert accounts(passage) == expected
            assert (passage.tap is None) == (expected == 0)


def test_whoever_asks_too_often_is_not_even_looked_at() -> None:
    made = streams()
    for _ in range(SMALL.openings):
        made.knock(GUEST)
        made.knock(BOB)
    with pytest.raises(TooManyRequests):
        made.knock(GUEST)
    made.knock(BOB)
    for _ in range(SMALL.openings):
        with made.passing(BOB, HOST, Cuts()):
            pass
    with pytest.raises(TooManyRequests), made.passing(BOB, HOST, Cuts()):
        pass


def test_streams_without_guests_stay_as_they_are() -> None:
    near, _far = memory_pair()
    with streams().passing(BOB, "a-1", Cuts()) as passage:
        assert passage.around(near) is near


def test_places_are_given_back_whatever_happens() -> None:
    made = streams()
    for _ in range(3):
        with pytest.raises(ValueError, match="oops"), made.passing(GUEST, "a-1", Cuts()):
            with pytest.raises(TooManyRequests), made.passing(GUEST, "a-1", Cuts()):
                pass
            raise ValueError("oops")


async def test_all_that_passes_is_counted_and_the_end_comes_once() -> None:
    made, cuts = streams(), Cuts()
    with made.passing(GUEST, "a-1", cuts) as passage:
        passage.a_to_b(b"12345")
        passage.b_to_a(b"1234")
        await asyncio.sleep(0)
        assert cuts.codes == []
        passage.a_to_b(b"1")
        assert cuts.codes == []  # not from within the relay
        passage.b_to_a(b"1")
        await asyncio.sleep(0)
        assert cuts.codes == ["guest_traffic"]
    with pytest.raises(TooManyRequests) as refused, made.passing(GUEST, "a-1", cuts):
        pass
    assert refused.value.code == "guest_traffic"


async def test_bytes_wait_for_the_bandwidth() -> None:
    near, far = memory_pair()
    with streams().passing(GUEST, "a-1", Cuts()) as passage:
        slow = passage.around(near)
        slow.write(b"x" * 5000)  # the clock stands still: no more than the burst
        assert len(await far.read(1 << 16)) <= 1024
        far.write(b"y" * 5000)
        assert len(await slow.read(1 << 16)) <= 1024
        slow.abort()
        far.abort()
