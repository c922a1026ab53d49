"""Resumption: whatever is cut, and wherever, no byte is lost and none comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.wire.resumed import Cable
from underpass.core.errors import InvalidRequest
from underpass.wire.resume_claim import ResumeClaim
from underpass.wire.resume_records import (
    MAX_DATA,
    Ended,
    Record,
    RecordDecoder,
    Reset,
    ResumptionError,
    encode_offsets,
    encode_record,
    encode_reset,
)
from underpass.wire.resumption import ACK_EVERY, WINDOW, Resumption


class Cuts(RuleBasedStateMachine):
    """Writes, reads, slices of deliveries, cuts and new paths in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.cable = Cable(window=600)

    side = st.booleans()

    @rule(first=side, size=st.integers(1, 300))
    def write(self, first: bool, size: int) -> None:
        side = self.cable.sides[first]
        side.write(bytes((len(side.written) + n) % 251 for n in range(size)))

    @rule(first=side)
    def finish(self, first: bool) -> None:
        self.cable.sides[first].core.finish()

    @rule(first=side, limit=st.integers(1, 5))
    def send(self, first: bool, limit: int) -> None:
        self.cable.send(self.cable.sides[first], limit)

    @rule(first=side, count=st.integers(1, 400))
    def deliver(self, first: bool, count: int) -> None:
        self.cable.deliver(self.cable.sides[first], count)

    @rule(first=side, count=st.integers(1, 400))
    def read(self, first: bool, count: int) -> None:
        self.cable.sides[first].read(count)

    @rule(first=side)
    def acknowledge(self, first: bool) -> None:
        self.cable.acknowledge(self.cable.sides[first])

    @precondition(lambda self: self.cable.up)
    @rule(agent_notices=st.booleans())
    def cut(self, agent_notices: bool) -> None:
        self.cable.cut(agent_notices=agent_notices)

    @rule()
    def dial(self) -> None:
        self.cable.dial()

    @invariant()
    def nothing_lost_or_doubled(self) -> None:
        self.cable.check()

    def teardown(self) -> None:
        self.cable.dial()
        for side in self.cable.sides:
            side.core.finish()
        self.cable.settle()
        self.cable.check()
        for side in self.cable.sides:
            assert side.at_eof
            assert side.core.complete
            assert side.core.held == side.core.queued == 0


TestCuts = Cuts.TestCase
TestCuts.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("towards", ["client", "agent"])
def test_cut_after_every_single_byte(towards: str) -> None:
    """One exchange of records of several sizes, cut once at every point of either direction."""

    def exchange(cable: Cable) -> None:
        for side in cable.sides:
            for size in (1, 50, 7):
                side.write(bytes((len(side.written) + n) % 251 for n in range(size)))
            side.core.finish()

    whole = Cable()
    whole.dial()
    exchange(whole)
    whole.deliver(whole.client, 1 << 20)
    whole.send(whole.client)
    whole.send(whole.agent)
    total = len(getattr(whole, towards).inbox)
    assert total > 70
    for point in range(total + 1):
        cable = Cable()
        cable.dial()
        exchange(cable)
        if towards == "agent":
            cable.deliver(cable.client, 1 << 20)
            cable.send(cable.client)
        else:
            cable.send(cable.agent)
        cable.deliver(getattr(cable, towards), point)
        cable.check()
        cable.cut(agent_notices=bool(point % 2))
        cable.dial()
        cable.settle()
        cable.check()
        assert all(side.at_eof and side.core.complete for side in cable.sides), point


def test_a_slow_reader_stops_its_writer_and_nobody_else() -> None:
    cable = Cable(window=600)
    cable.dial()
    cable.deliver(cable.client, 100)
    for _ in range(20):
        cable.agent.write(b"x" * 100)  # nobody reads these at the client
        cable.client.write(b"y" * 100)
    assert cable.agent.core.full
    for _ in range(50):
        for side in cable.sides:
            cable.send(side)
            cable.deliver(side, 1 << 20)
            cable.acknowledge(side)
        cable.agent.read(1 << 20)
    assert cable.agent.got == cable.client.written
    assert cable.client.core.relieved
    assert len(cable.client.got) <= 601
    assert cable.agent.core.acked == len(cable.client.got)  # had, though not read
    assert not cable.agent.core.relieved
    cable.settle()
    assert cable.client.got == cable.agent.written


def test_tiny_writes_are_counted_with_what_they_cost() -> None:
    core = Resumption()
    count = 0
    while not core.full:
        core.push(b"x")
        count += 1
    assert count * 64 < WINDOW


def test_the_ring_lets_go_of_what_the_peer_has() -> None:
    cable = Cable(window=WINDOW)
    cable.dial()
    cable.settle()
    for _ in range(20):
        cable.client.write(bytes(1 << 20))
        cable.settle()
        assert cable.client.core.held == 0
    cable.client.write(bytes(ACK_EVERY))
    cable.send(cable.client)
    cable.deliver(cable.agent, 1 << 20)
    assert cable.agent.core.owes_now
    cable.acknowledge(cable.agent)
    assert not cable.agent.core.owes
    cable.agent.read(1)
    assert cable.agent.core.owes
    assert not cable.agent.core.owes_now


class TestWrongPeers:
    """What can't be makes the stream end; nothing else happens."""

    @staticmethod
    def ready() -> Resumption:
        core = Resumption(window=1000)
        core.accepted(0)
        return core

    @pytest.mark.parametrize(
        "data",
        [
            b"\x05\0\0\0",
            b"\x00\0\0\0",
            encode_record(Record.EOF) * 2,
            encode_record(Record.EOF) + encode_record(Record.DATA, b"x"),
            encode_offsets(1, 0),
            encode_offsets(0, 1),
            encode_offsets(0, 0, hello=True),
            encode_record(Record.DATA, bytes(1002)),
            encode_record(Record.HELLO, bytes(20)),
        ],
    )
    def test_what_they_say(self, data: bytes) -> None:
        with pytest.raises(ResumptionError) as caught:
            self.ready().feed(data)
        assert caught.value.code in ("resumption", "flow_control")

    def test_too_much_after_what_was_read(self) -> None:
        core = self.ready()
        core.feed(encode_record(Record.DATA, bytes(900)))
        core.consume(500)
        with pytest.raises(ResumptionError):
            core.feed(encode_record(Record.DATA, bytes(500)))  # never told of the 500
        core = self.ready()
        core.feed(encode_record(Record.DATA, bytes(900)))
        core.consume(500)
        core.acknowledge()
        core.feed(encode_record(Record.DATA, bytes(500)))

    def test_acknowledgements_do_not_go_back(self) -> None:
        core = self.ready()
        core.push(b"0123456789")
        assert core.next_record()
        core.feed(encode_offsets(8, 5))
        for offsets in ((7, 5), (8, 4), (11, 8), (8, 9)):
            with pytest.raises(ResumptionError):
                core.feed(encode_offsets(*offsets))
        core.detach()
        for offset in (7, 11):
            with pytest.raises(ResumptionError):
                core.accepted(offset)
        core.accepted(9)
        assert core.next_record() == encode_record(Record.DATA, b"9")

    @pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH\r\n", b"\0\0\0\x01x", b"HTTP/1.1 200 OK"])
    def test_a_peer_that_does_not_resume_is_told_apart(self, data: bytes) -> None:
        core = Resumption()
        core.dialled()
        core.push(b"a question that must not go out")
        assert core.next_record() is None
        with pytest.raises(ResumptionError) as caught:
            core.feed(data)
        assert caught.value.code == "resume_unsupported"


def test_a_reset_says_why() -> None:
    core = Resumption()
    core.dialled()
    assert core.feed(encode_reset("gone", "for good")) == [Reset("gone", "for good")]
    long = encode_reset("\N{PILE OF POO}" * 100, "\N{PILE OF POO}" * 1000)
    (event,) = core.feed(long)
    assert isinstance(event, Reset)
    assert (len(event.code), len(event.message)) == (64, 256)
    assert core.feed(encode_record(Record.RESET, b"\0")) == [Reset("stream_reset", "")]


@given(sizes=st.lists(st.integers(1, 50), max_size=20), step=st.integers(1, 60))
def test_records_come_apart_in_any_slices(sizes: list[int], step: int) -> None:
    data = bytes(range(256)) * 4
    stream, at = b"", 0
    for size in sizes:
        stream += encode_record(Record.DATA, data[at : at + size]) + encode_offsets(at, at)
        at += size
    stream += encode_record(Record.EOF)
    decoder = RecordDecoder()
    items = [
        item for i in range(0, len(stream), step) for item in decoder.feed(stream[i : i + step])
    ]
    assert b"".join(item for item in items if isinstance(item, memoryview)) == data[:at]
    assert isinstance(items[-1], Ended)


def test_large_writes_are_split_and_views_are_copied() -> None:
    core = Resumption()
    core.accepted(0)
    buffer = bytearray(b"a" * (MAX_DATA + 1))
    core.push(memoryview(buffer))
    buffer[:] = b"b" * len(buffer)
    first, second = core.next_record(), core.next_record()
    assert first == encode_record(Record.DATA, b"a" * MAX_DATA)
    assert second == encode_record(Record.DATA, b"a")
    core.finish()
    core.push(b"too late")
    assert core.next_record() == encode_record(Record.EOF)
    assert core.next_record() is None
    core.clear()
    assert core.held == 0


class TestClaims:
    def test_there_and_back(self) -> None:
        claim = ResumeClaim("0" * 32, b"s" * 32, 5)
        assert ResumeClaim.from_meta(claim.to_meta()) == claim
        assert ResumeClaim.from_meta({}) is None
        assert "s" * 16 not in repr(claim)

    @pytest.mark.parametrize(
        "change",
        [
            {"id": "x" * 32}, {"id": "0" * 31}, {"id": 5}, {"secret": "!"}, {"secret": None},
            {"secret": "AAAA"}, {"secret": "A" * 1000}, {"received": -1}, {"received": True},
            {"received": 1 << 63}, {"new": 1}, {"new": True, "received": 1},
        ],
    )  # fmt: skip
    def test_nonsense(self, change: dict[str, object]) -> None:
        meta = ResumeClaim("0" * 32, b"s" * 32).to_meta()
        meta["resume"] |= change
        with pytest.raises(InvalidRequest) as caught:
            ResumeClaim.from_meta(meta)
        assert caught.value.code == "invalid_resume"
        with pytest.raises(InvalidRequest):
            ResumeClaim.from_meta({"resume": "x"})
