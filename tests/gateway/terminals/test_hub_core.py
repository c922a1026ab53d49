"""Nothing lost, nothing doubled: the hub's core under any order of trunks, sockets and credit."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from underpass.core.errors import InvalidRequest
from underpass.gateway.terminals.hub_core import INPUT_CAP, Cursor, Gap, HubCore, Skip
from underpass.wire.terminal import INITIAL_CREDIT, MAX_CREDIT

KIB = 1024


def attached(**options: int) -> HubCore:
    core = HubCore(**options)
    core.trunk_attached(core.log.end, 0)
    return core


def drain(core: HubCore, cursor: Cursor) -> bytes:
    out = b""
    while (found := core.take(cursor)) is not None:
        assert isinstance(found, bytes)
        out += found
    return out


# -- output ----------------------------------------------------------------------------------------


def test_output_reaches_the_owner_once() -> None:
    core = attached()
    cursor, start = core.add("owner", None, credit=True)
    assert start == 0
    assert core.output(b"hello") == b"hello"
    assert drain(core, cursor) == b"hello"
    assert core.take(cursor) is None


def test_output_that_comes_again_after_a_new_trunk_is_not_doubled() -> None:
    core = attached()
    core.output(b"0123456789")
    core.trunk_lost()
    assert core.credit_due() == 0
    assert core.trunk_attached(6, 0) is None
    assert core.output(b"6789") == b""
    assert core.output(b"ab") == b"ab"
    core.trunk_lost()
    core.trunk_attached(10, 0)
    assert core.output(b"abcd") == b"cd"
    cursor, _ = core.add("owner", None, credit=False)
    assert drain(core, cursor) == b"0123456789abcd"


def test_a_gap_is_told_to_everyone() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=True)
    core.output(b"abc")
    core.take(cursor)
    core.trunk_lost()
    assert core.trunk_attached(10, 0) == Gap(7)
    core.output(b"xyz")
    assert core.take(cursor) == Skip(10)
    assert drain(core, cursor) == b"xyz"


def test_a_returning_owner_gets_exactly_the_rest() -> None:
    core = attached()
    core.output(b"0123456789")
    cursor, start = core.add("owner", 4, credit=True)
    assert start == 4
    assert drain(core, cursor) == b"456789"


def test_a_returning_owner_who_is_too_late_is_told_where_it_goes_on() -> None:
    core = attached(ring=10)
    core.output(b"0123456789abcdef")
    cursor, start = core.add("owner", 2, credit=True)
    assert start == 6
    assert drain(core, cursor) == b"6789abcdef"


@pytest.mark.parametrize("claim", [11, 10**15])
def test_a_client_that_claims_more_than_there_is_starts_at_the_end(claim: int) -> None:
    core = attached()
    core.output(b"0123456789")
    assert core.add("owner", claim, credit=True)[1] == 10


def test_after_a_restart_the_log_fills_up_to_where_the_client_is() -> None:
    core = HubCore(start=100)
    core.known_end = 150
    core.trunk_attached(100, 0)
    cursor, start = core.add("owner", 140, credit=True)
    assert start == 140
    core.output(b"x" * 40)
    assert core.take(cursor) is None
    core.output(b"y" * 10)
    assert drain(core, cursor) == b"y" * 10


def test_an_observer_starts_with_the_recent_past() -> None:
    core = attached()
    core.output(b"x" * (200 * KIB))
    assert core.add("observer", None, credit=True)[1] == 72 * KIB


def test_a_slow_observer_is_brought_to_the_present_and_a_slow_owner_to_the_oldest() -> None:
    core = attached(ring=10)
    owner, _ = core.add("owner", None, credit=False)
    observer, _ = core.add("observer", None, credit=True)
    limit = observer.limit
    core.output(b"0123456789ABCD")
    assert core.take(owner) == Skip(4)
    assert core.take(observer) == Skip(14)
    assert observer.limit == (limit or 0) + 14


def test_a_new_owner_takes_the_place_of_the_old() -> None:
    core = attached()
    old, _ = core.add("owner", None, credit=True)
    new, _ = core.add("owner", None, credit=True)
    assert core.owner is new
    assert old not in core.cursors
    core.remove(old)
    assert core.owner is new
    core.remove(new)
    assert core.owner is None


# -- credit ----------------------------------------------------------------------------------------


def test_without_grants_the_owner_gets_256_kib_and_the_agent_no_more_credit() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=True)
    assert core.credit_due() == 0
    core.output(b"x" * INITIAL_CREDIT)
    assert len(drain(core, cursor)) == INITIAL_CREDIT
    core.recorded = INITIAL_CREDIT
    assert core.credit_due() == 0


def test_the_agent_is_granted_what_the_browser_grants() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=True)
    core.output(b"x" * INITIAL_CREDIT)
    drain(core, cursor)
    cursor.grant(100_000)
    assert core.credit_due() == 100_000
    assert core.credit_due() == 0


def test_small_grants_wait_for_more_unless_the_agent_is_about_to_stop() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=True)
    cursor.grant(100)
    assert core.credit_due() == 0
    core.output(b"x" * INITIAL_CREDIT)
    assert core.credit_due() == 100


def test_absurd_grants_count_as_16_mib_and_the_agent_stays_within_the_log() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=True)
    cursor.grant(10**18)
    cursor.grant(-5)
    assert cursor.limit == MAX_CREDIT
    assert core.credit_due() == 1024 * KIB - INITIAL_CREDIT


def test_without_credit_the_agent_follows_what_the_socket_took() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=False)
    cursor.grant(5)
    assert cursor.limit is None
    core.output(b"x" * 100 * KIB)
    assert core.credit_due() == 0
    drain(core, cursor)
    assert core.credit_due() == 100 * KIB


def test_with_nobody_there_credit_follows_the_recorder_or_the_log() -> None:
    core = attached()
    core.output(b"x" * 100 * KIB)
    assert core.credit_due() == 0
    core.recorded = 100 * KIB
    assert core.credit_due() == 100 * KIB
    core.recorded = None
    core.output(b"x" * 50 * KIB)
    assert core.credit_due() == 50 * KIB


# -- input -----------------------------------------------------------------------------------------


def test_input_is_kept_until_acknowledged_and_sent_again_over_a_new_trunk() -> None:
    core = HubCore()
    core.input(b"before")
    assert core.take_input() == b""
    core.trunk_attached(0, 0)
    assert core.take_input() == b"before"
    core.input(b"more")
    assert core.take_input(2) == b"mo"
    assert core.acknowledged(7)
    assert not core.acknowledged(7)
    core.trunk_lost()
    core.trunk_attached(0, 8)
    assert core.take_input() == b"re"
    assert core.input_end == 10
    assert core.acknowledged(10**12)
    assert core.input_acked == 10


def test_an_agent_can_not_acknowledge_what_it_was_not_sent() -> None:
    core = attached()
    core.input(b"abc")
    assert not core.acknowledged(3)
    core.take_input(1)
    assert core.acknowledged(3)
    assert core.input_acked == 1


def test_after_a_restart_input_goes_on_where_the_agent_is() -> None:
    core = HubCore()
    core.trunk_attached(0, 500)
    assert (core.input_acked, core.input_end) == (500, 500)
    core.input(b"x")
    assert core.take_input() == b"x"
    core.trunk_lost()
    core.trunk_attached(0, 400)
    assert core.take_input() == b"x"


def test_input_is_capped() -> None:
    core = attached()
    core.input(b"x" * INPUT_CAP)
    assert core.input_full
    core.take_input(INPUT_CAP)
    core.acknowledged(1)
    assert not core.input_full
    with pytest.raises(InvalidRequest, match="64 KiB"):
        core.input(b"x" * (64 * KIB + 1))


# -- the end ---------------------------------------------------------------------------------------


def test_finished_is_when_all_output_was_taken() -> None:
    core = attached()
    cursor, _ = core.add("owner", None, credit=False)
    core.output(b"bye")
    assert not core.finished(cursor)
    core.exited(3)
    assert not core.finished(cursor)
    drain(core, cursor)
    assert core.finished(cursor)
    core.exited(None)
    assert core.finished(cursor)


# -- any order -------------------------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """An agent with an endless output, trunks that break, an owner who comes and goes.

    The agent's output byte at offset *n* is ``n % 251``, so every byte proves its own offset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.core = HubCore(ring=4096)
        self.core._ahead = 2048
        self.printed = 0  # by the program
        self.sent = 0  # over the current trunk
        self.allowed = 0  # the agent's credit limit, absolute
        self.kept = 0  # the oldest byte in the agent's ring
        self.cursor: Cursor | None = None
        self.have = 0  # what the owner's client has, as an offset
        self.granted = 0
        self.got = 0
        self.typed = bytearray()
        self.agent_input = bytearray()  # what reached the agent

    @initialize()
    def start(self) -> None:
        self.attach_trunk()

    def piece(self, begin: int, end: int) -> bytes:
        return bytes(offset % 251 for offset in range(begin, end))

    @rule(count=st.integers(1, 3000))
    def program_prints(self, count: int) -> None:
        self.printed += count
        self.kept = max(self.kept, self.printed - 6000)

    @precondition(lambda self: self.core.attached)
    @rule(count=st.integers(1, 3000))
    def agent_sends(self, count: int) -> None:
        end = min(self.sent + count, self.printed, self.allowed)
        begin = max(self.sent, self.kept)
        if begin > self.sent:
            return  # an attached agent stops reading the pty instead of losing bytes
        self.core.output(self.piece(begin, end))
        self.sent = max(end, begin)

    @precondition(lambda self: self.core.attached)
    @rule()
    def trunk_breaks(self) -> None:
        self.core.trunk_lost()

    @precondition(lambda self: not self.core.attached)
    @rule()
    def attach_trunk(self) -> None:
        offset = max(min(self.core.log.end, self.printed), self.kept)
        self.core.trunk_attached(offset, len(self.agent_input))
        self.sent = offset
        self.allowed = offset + INITIAL_CREDIT

    @rule()
    def credit_goes_out(self) -> None:
        self.allowed += self.core.credit_due()

    @rule(forget=st.integers(0, 500), credit=st.booleans())
    def owner_comes(self, forget: int, credit: bool) -> None:
        self.cursor, start = self.core.add("owner", max(0, self.have - forget), credit=credit)
        self.have = start

    @precondition(lambda self: self.cursor is not None)
    @rule()
    def owner_goes(self) -> None:
        assert self.cursor is not None
        self.core.remove(self.cursor)
        self.cursor = None

    @precondition(lambda self: self.cursor is not None)
    @rule(limit=st.integers(1, 5000))
    def owner_takes(self, limit: int) -> None:
        assert self.cursor is not None
        found = self.core.take(self.cursor, limit)
        if isinstance(found, Skip):
            assert found.offset > self.have
            self.have = found.offset
        elif found is not None:
            assert found == self.piece(self.have, self.have + len(found))
            self.have += len(found)

    @precondition(lambda self: self.cursor is not None)
    @rule(count=st.integers(0, 5000))
    def owner_grants(self, count: int) -> None:
        assert self.cursor is not None
        self.cursor.grant(count)

    @precondition(lambda self: not self.core.input_full)
    @rule(data=st.binary(min_size=1, max_size=300))
    def owner_types(self, data: bytes) -> None:
        self.core.input(data)
        self.typed += data

    @precondition(lambda self: self.core.attached)
    @rule(count=st.integers(1, 500), arrives=st.booleans())
    def input_goes_out(self, count: int, arrives: bool) -> None:
        data = self.core.take_input(count)
        if arrives:
            self.agent_input += data
        elif data:
            self.core.trunk_lost()  # it was lost on the way

    @precondition(lambda self: self.core.attached)
    @rule()
    def agent_acknowledges(self) -> None:
        self.core.acknowledged(len(self.agent_input))

    @rule()
    def recorder_catches_up(self) -> None:
        self.core.recorded = self.core.log.end

    @invariant()
    def input_is_a_prefix(self) -> None:
        assert self.typed.startswith(self.agent_input)
        assert self.core.input_end == len(self.typed)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.core.log) <= 4096

    def teardown(self) -> None:
        # Whatever happened: everything typed gets there, once.
        self.core.trunk_lost()
        self.core.trunk_attached(max(min(self.core.log.end, self.printed), self.kept),
                                 len(self.agent_input))  # fmt: skip
        while data := self.core.take_input():
            self.agent_input += data
        assert self.agent_input == self.typed


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_what_was_recorded_before_a_restart_is_shown_again_but_not_recorded_again() -> None:
    core = HubCore(100, recorded=110)
    assert core.trunk_attached(100, 0) is None
    cursor, start = core.add("owner", 103, credit=False)
    assert start == 103
    assert core.output(b"0123456") == b""
    assert core.output(b"789abc") == b"abc"
    assert core.output(b"def") == b"def"
    assert core.take(cursor) == b"3456789abcdef"


def test_only_what_is_missing_in_the_recording_is_a_gap_in_it() -> None:
    core = HubCore(100, recorded=110)
    assert core.trunk_attached(105, 0) is None
    gap = HubCore(100, recorded=110).trunk_attached(130, 0)
    assert gap is not None
    assert gap.count == 20
