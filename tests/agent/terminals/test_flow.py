"""The deciding part of a session: credit, offsets, input, grace, and no byte lost or doubled."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from underpass.agent.terminals.flow import (
    ACK_BYTES,
    ACK_SECONDS,
    INPUT_LIMIT,
    READ_AHEAD,
    SessionFlow,
)
from underpass.wire.ring import ByteRing
from underpass.wire.terminal import INITIAL_CREDIT, Exit


def flow(capacity: int = 2 * 1024 * 1024) -> SessionFlow:
    return SessionFlow(grace=60.0, now=0.0, ring=ByteRing(capacity))


def test_a_detached_session_reads_on_and_drops_the_oldest() -> None:
    session = flow(10)
    assert session.read_budget() == READ_AHEAD
    session.output(b"0123456789abc")
    assert session.offset == 13
    assert session.attach(0) == 3
    assert session.next_output() == b"3456789abc"


def test_an_attached_session_reads_only_a_little_ahead() -> None:
    session = flow()
    session.attach(0)
    assert session.read_budget() == READ_AHEAD
    session.output(b"x" * READ_AHEAD)
    assert session.read_budget() == 0
    assert len(session.next_output()) == READ_AHEAD
    assert session.read_budget() == READ_AHEAD


def test_credit_is_spent_and_granted() -> None:
    session = flow()
    session.attach(0)
    given = 0
    while budget := session.read_budget():
        session.output(b"x" * budget)
        given += len(session.next_output())
    assert given == INITIAL_CREDIT
    session.grant(-5)
    assert session.read_budget() == 0
    session.grant(7)
    assert session.read_budget() == 7
    session.grant(2**60)
    assert session.read_budget() == READ_AHEAD


def test_nothing_unsent_is_pushed_out_while_attached() -> None:
    session = flow(READ_AHEAD)
    session.output(b"x" * READ_AHEAD)
    session.attach(0)
    session.drain()
    assert session.read_budget() == 0
    session.next_output()
    assert session.read_budget() == READ_AHEAD


def test_a_drain_ignores_credit_but_the_exit_waits_for_it() -> None:
    session = flow()
    session.attach(0)
    while budget := session.read_budget():
        session.output(b"x" * budget)
        session.next_output()
    session.drain()
    assert session.read_budget() == READ_AHEAD
    session.output(b"bye")
    session.end(3, None)
    assert session.due_exit() is None
    session.grant(3)
    assert session.next_output() == b"bye"
    assert session.due_exit() == Exit(code=3, offset=INITIAL_CREDIT + 3)
    assert session.state() == "exited"
    session.detach(1)
    assert session.due_exit() is None


def test_what_the_terminal_had_not_taken_comes_again() -> None:
    session = flow()
    session.attach(0)
    session.input(b"hello")
    session.input(b"")
    session.took(2)
    assert session.next_input() == b"llo"
    session.detach(1)
    assert session.next_input() == b"llo"  # the terminal may still take it
    session.took(1)
    session.attach(0)
    assert session.input_offset == 3
    assert session.next_input() == b""


def test_input_has_a_limit_and_ends_with_the_program() -> None:
    session = flow()
    session.attach(0)
    session.input(b"x" * INPUT_LIMIT)
    assert session.input_full
    session.end(0, None)
    assert not session.input_full
    session.input(b"late")
    assert session.next_input() == b""


def test_acknowledgements_come_by_size_or_time() -> None:
    session = flow()
    session.attach(0)
    assert session.ack_wait(0.0) is None
    session.input(b"x" * (2 * ACK_BYTES))
    session.took(1)
    assert session.due_ack(0.1) is None
    assert session.ack_wait(0.1) == ACK_SECONDS - 0.1
    session.took(ACK_BYTES - 1)
    assert session.due_ack(0.1) == ACK_BYTES
    session.took(1)
    assert session.due_ack(0.2) is None
    assert session.due_ack(0.1 + ACK_SECONDS) == ACK_BYTES + 1
    assert session.due_ack(99) is None


def test_grace_counts_from_the_last_trunk() -> None:
    session = flow()
    assert not session.overdue(59.9)
    assert session.overdue(60)
    session.attach(0)
    assert not session.overdue(10_000)
    session.detach(100)
    session.detach(159)  # says nothing new
    assert session.state() == "detached"
    assert not session.overdue(159.9)
    assert session.overdue(160)


class Network(RuleBasedStateMachine):
    """A program, a gateway and a bad network around one flow with a small ring."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = SessionFlow(grace=60.0, now=0.0, ring=ByteRing(500, block=64))
        self.printed = bytearray()
        self.gateway = bytearray()  # output as the gateway has it; gaps filled when announced
        self.gaps = 0
        self.typed = bytearray()
        self.took = bytearray()
        self.credit = 0
        self.attached = False

    @rule(size=st.integers(1, 300))
    def prints(self, size: int) -> None:
        budget = self.flow.read_budget()
        data = bytes((len(self.printed) + n) * 7 % 251 for n in range(min(size, budget)))
        self.printed += data
        self.flow.output(data)

    @precondition(lambda self: not self.attached)
    @rule()
    def attaches(self) -> None:
        start = self.flow.attach(len(self.gateway))
        assert start >= len(self.gateway)
        if start > len(self.gateway):
            self.gaps += 1
            self.gateway += self.printed[len(self.gateway) : start]
        self.flow.input(bytes(self.typed[self.flow.input_offset :]))
        self.attached = True
        self.credit = INITIAL_CREDIT

    @precondition(lambda self: self.attached)
    @rule(count=st.integers(0, 400))
    def grants(self, count: int) -> None:
        self.flow.grant(count)
        self.credit += count

    @precondition(lambda self: self.attached)
    @rule(arrives=st.booleans())
    def delivers(self, arrives: bool) -> None:
        data = self.flow.next_output()
        self.credit -= len(data)
        if arrives:
            self.gateway += data
        else:
            self.detaches()

    @precondition(lambda self: self.attached)
    @rule()
    def detaches(self) -> None:
        self.flow.detach(1.0)
        self.attached = False

    @precondition(lambda self: self.attached)
    @rule(data=st.binary(min_size=1, max_size=40))
    def types(self, data: bytes) -> None:
        self.typed += data
        self.flow.input(data)

    @rule(size=st.integers(1, 30))
    def takes(self, size: int) -> None:
        data = self.flow.next_input()[:size]
        if data:
            self.took += data
            self.flow.took(len(data))

    @invariant()
    def holds(self) -> None:
        assert self.gateway == self.printed[: len(self.gateway)]
        assert self.took == self.typed[: len(self.took)]
        assert self.flow.input_offset == len(self.took)
        assert self.flow.offset == len(self.printed)
        assert self.credit >= 0

    def teardown(self) -> None:
        # Left alone with a good network, everything arrives.
        if not self.attached:
            self.attaches()
        self.flow.grant(10_000)
        while data := self.flow.next_output():
            self.gateway += data
        while data := self.flow.next_input():
            self.took += data
            self.flow.took(len(data))
        assert self.gateway == self.printed
        assert self.took == self.typed


Network.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNetwork = Network.TestCase
