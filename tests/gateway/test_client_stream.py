"""One stream of a person: carried both ways, counted, and cut at any moment of its life."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from underpass.control.quota import Quota
from underpass.control.subject import Subject
from underpass.core.clock import ManualClock
from underpass.core.errors import Forbidden
from underpass.gateway.client_stream import ClientStream
from underpass.gateway.entrypoints.allowance import Allowance
from underpass.links.link import Opening
from underpass.links.memory import memory_pair
from underpass.links.stream import Stream, StreamReset


class Accepting:
    """An opening whose accepted end the test holds."""

    def __init__(self) -> None:
        self.person, self._end = memory_pair()
        self.accepted = False

    def accept(self) -> Stream:
        self.accepted = True
        return self._end


def attached() -> tuple[ClientStream, Stream, Stream, Stream]:
    """The stream, the person's end, the end to relay to, and the machine's end."""
    opening = Accepting()
    remote, machine = memory_pair()
    made = ClientStream(Subject("u-1", "ann", "user"), "a-1", "forward", "tcp:127.0.0.1:80")
    made.attach(cast("Opening", opening), remote)
    return made, opening.person, remote, machine


async def everything(stream: Stream) -> bytes:
    got = b""
    while data := await stream.read():
        got += bytes(data)
    return got


@pytest.mark.parametrize("quota", [None, Quota(monthly_traffic=10_000)])
async def test_both_ways_and_their_ends_are_carried_and_counted(quota: Quota | None) -> None:
    made, person, remote, machine = attached()
    if quota is not None:
        made.allowance = Allowance("u-1", ManualClock(), quota)
    async with asyncio.TaskGroup() as group:
        relaying = group.create_task(made.relay(remote, None))
        person.write(b"question")
        await person.write_eof()
        assert await everything(machine) == b"question"
        machine.write(b"the answer")
        await machine.write_eof()
        assert await everything(person) == b"the answer"
    result = relaying.result()
    assert (result.a_to_b, result.b_to_a, result.error) == (8, 10, None)
    if made.allowance is not None:
        assert (made.allowance.used, made.allowance.active) == (18, 0)


def test_one_that_was_cut_before_its_way_was_open_is_never_accepted() -> None:
    opening = Accepting()
    remote, _machine = memory_pair()
    made = ClientStream(Subject("u-1", "ann", "user"), "a-1", "forward", "tcp:127.0.0.1:80")
    made.cut("permission_lost", "You may not any more.")
    with pytest.raises(Forbidden, match="any more") as caught:
        made.attach(cast("Opening", opening), remote)
    assert caught.value.code == "permission_lost"
    assert not opening.accepted
    assert remote.closed


@pytest.mark.parametrize("how", ["cut", "cancelled"])
async def test_an_early_end_leaves_neither_end_behind(how: str) -> None:
    made, person, remote, machine = attached()
    made.allowance = Allowance("u-1", ManualClock(), Quota(monthly_traffic=10_000))
    relaying: Any = asyncio.ensure_future(made.relay(remote, None))
    person.write(b"x")
    assert await machine.read() == b"x"
    if how == "cut":
        made.cut("permission_lost", "You may not any more.")
    else:
        relaying.cancel()
    await asyncio.wait({relaying}, timeout=5)
    assert relaying.done()
    for end in (person, machine):
        with pytest.raises(StreamReset) as caught:
            await everything(end)
        if how == "cut" and end is person:
            assert caught.value.code == "permission_lost"
    assert made.allowance.active == 0
