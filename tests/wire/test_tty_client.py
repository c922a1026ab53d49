"""The client's terminal engine: a script of what happens and what it wants done about it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.tty_client import (
    CREDIT_STEP,
    MAX_PENDING_INPUT,
    Command,
    End,
    Retry,
    Say,
    Send,
    TtyClient,
    Write,
)


def control(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def sent(commands: list[Command]) -> list[Any]:
    """What goes out: bytes as they are, controls parsed."""
    return [
        c.data if isinstance(c.data, bytes) else json.loads(c.data)
        for c in commands
        if isinstance(c, Send)
    ]


def live(**options: Any) -> TtyClient:
    """An engine in the middle of a session."""
    engine = TtyClient(**options)
    engine.connected("ticket")
    engine.received('{"session_id":"s1"}')
    return engine


def test_first_connection_authenticates_then_sends_size_and_early_keys() -> None:
    engine = TtyClient()
    assert engine.resized(100, 30) == []
    assert engine.typed(b"ls\r") == []
    assert sent(engine.connected("ticket")) == [{"type": "auth", "token": "ticket"}]
    assert sent(engine.received('{"session_id":"s1"}')) == [
        {"type": "resize", "cols": 100, "rows": 30},
        b"ls\r",
    ]
    assert engine.session_id == "s1"


def test_output_is_passed_on_as_it_is_and_counted() -> None:
    engine = live()
    assert engine.received(b"\xff\x00abc") == [Write(b"\xff\x00abc")]
    assert engine.received(b"") == []
    assert engine.offset == 5


def test_credit_is_granted_for_what_was_written_in_steps() -> None:
    engine = live()
    assert engine.written(CREDIT_STEP - 1) == []
    assert sent(engine.written(1)) == [{"type": "credit", "bytes": CREDIT_STEP}]
    assert engine.written(10) == []


def test_a_lost_socket_is_come_back_to_and_input_the_agent_has_not_taken_is_sent_again() -> None:
    engine = live()
    engine.resized(90, 20)
    engine.received(b"x" * 10)
    engine.typed(b"abcdef")
    engine.received(control("ack", input=2))
    assert engine.lost(1006) == [Retry()]
    assert engine.typed(b"gh") == []  # kept while there is nowhere to send it
    assert sent(engine.connected("t2")) == [
        {"type": "auth", "token": "t2"},
        {"type": "resume", "session_id": "s1", "offset": 10},
    ]
    assert engine.received('{"session_id":"s1"}') == []
    commands = engine.received(control("resumed", offset=10, input_offset=4))
    assert commands[0] == Say("reconnected")
    assert sent(commands) == [{"type": "resize", "cols": 90, "rows": 20}, b"efgh"]


def test_keys_during_the_greeting_of_a_resume_wait_for_its_offset() -> None:
    engine = live()
    engine.lost(None)
    engine.connected("t2")
    engine.received('{"session_id":"s1"}')
    assert engine.typed(b"x") == []
    assert sent(engine.received(control("resumed", offset=0, input_offset=0))) == [b"x"]


def test_skipped_output_is_said() -> None:
    engine = live()
    engine.received(b"abc")
    engine.lost(1006)
    engine.connected("t2")
    engine.received('{"session_id":"s1"}')
    commands = engine.received(control("resumed", offset=103, input_offset=0))
    assert commands[0] == Say("100 bytes of output were skipped")
    assert engine.offset == 103


def test_a_gateway_that_does_not_say_how_much_arrived_gets_nothing_twice() -> None:
    engine = live()
    engine.typed(b"rm -rf x\r")
    engine.lost(1006)
    engine.connected("t2")
    engine.received('{"session_id":"s1"}')
    assert sent(engine.received(control("resumed", offset=0))) == []


def test_an_ack_beyond_what_was_typed_is_taken_as_everything() -> None:
    engine = live()
    engine.typed(b"abc")
    engine.received(control("ack", input=10**6))
    engine.received(control("ack", input=1))  # stale: ignored
    engine.lost(1006)
    engine.connected("t2")
    engine.received('{"session_id":"s1"}')
    assert sent(engine.received(control("resumed", offset=0, input_offset=10**6))) == []


def test_a_session_that_is_gone_ends_it() -> None:
    engine = live()
    engine.lost(1006)
    engine.connected("t2")
    end = engine.received('{"session_id":"another"}')
    assert isinstance(end[0], End)
    assert end[0].status == 255
    assert engine.status == "ended"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (control("exit", code=3), 3),
        (control("exit", code=0), 0),
        (control("exit", code=256 + 7), 7),
        (control("exit", signal="SIGKILL"), 137),
        (control("exit", signal="TERM"), 143),
        (control("exit", signal="NOSUCH"), 128),
        (control("exit", code=True), 255),
        (control("exit"), 255),
    ],
)
def test_exit_status(message: str, status: int) -> None:
    engine = live()
    (end,) = engine.received(message)
    assert isinstance(end, End)
    assert end.status == status
    assert engine.received(b"late") == []
    assert engine.lost(1000) == []


@pytest.mark.parametrize("code", [4400, 4403, 4404, 4409, 4502, 1000])
def test_final_closes_end_it_with_the_reason_given(code: int) -> None:
    engine = live()
    engine.received(control("error", code="x", message="Because."))
    assert engine.lost(code) == [End(255, "Because.")]


def test_a_dead_ticket_is_replaced_once_before_the_login_counts_as_over() -> None:
    engine = live()
    assert engine.lost(4401, "The ticket is not valid.") == [Retry()]
    engine.connected("fresh")
    assert engine.lost(4401, "Not signed in.") == [End(255, "Not signed in.")]


def test_a_final_close_without_reason_still_says_something() -> None:
    (end,) = live().lost(4404)
    assert isinstance(end, End)
    assert end.text == "The session is gone."


@pytest.mark.parametrize("code", [None, 1001, 1006, 1011, 1012, 4429, 4500])
def test_other_closes_are_tried_again(code: int | None) -> None:
    assert live().lost(code) == [Retry()]


@pytest.mark.parametrize("code", [None, 4429])
def test_a_loss_before_there_is_a_session_ends_it(code: int | None) -> None:
    engine = TtyClient()
    engine.connected("t")
    assert isinstance(engine.lost(code)[0], End)


def test_ping_is_answered() -> None:
    assert sent(live().received(control("ping", t=7))) == [{"type": "pong", "t": 7}]


def test_a_lost_machine_is_said_once_and_its_return_too() -> None:
    engine = live()
    (said,) = engine.received(control("state", trunk="lost"))
    assert isinstance(said, Say)
    assert engine.received(control("state", trunk="lost")) == []
    assert engine.received(control("state", trunk="attached")) == [Say("it is back")]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", "17", '"x"', "{}", '{"type":7}', '{"type":"ack","input":-1}',
     '{"type":"ack","input":"x"}', '{"type":"resumed","offset":null}', "[" * 60_000,
     '{"type":"ack","input":1e99}', "x" * 100_000],
)  # fmt: skip
def test_bad_messages_are_ignored(text: str) -> None:
    engine = live()
    engine.received(text)
    assert engine.status == "live"


class TestEscapes:
    def test_tilde_dot_leaves(self) -> None:
        commands = live().typed(b"ls\r~.")
        assert sent(commands) == []
        assert isinstance(commands[-1], End)

    def test_tilde_dot_works_across_pieces_and_at_the_very_start(self) -> None:
        engine = live()
        assert engine.typed(b"~") == []
        assert isinstance(engine.typed(b".")[-1], End)

    def test_it_works_while_disconnected(self) -> None:
        engine = live()
        engine.lost(1006)
        assert isinstance(engine.typed(b"\r~.")[-1], End)

    def test_a_doubled_tilde_types_one(self) -> None:
        assert sent(live().typed(b"~~.")) == [b"~."]

    def test_a_tilde_before_something_else_is_typed(self) -> None:
        assert sent(live().typed(b"~/x\r")) == [b"~/x\r"]

    def test_a_tilde_inside_a_line_is_a_tilde(self) -> None:
        assert sent(live().typed(b"a~.")) == [b"a~."]

    def test_help(self) -> None:
        commands = live().typed(b"~?")
        assert isinstance(commands[0], Say)
        assert sent(commands) == []

    def test_switched_off(self) -> None:
        assert sent(live(escapes=False).typed(b"~.")) == [b"~."]


def test_typing_ahead_is_bounded() -> None:
    engine = live()
    engine.lost(1006)
    assert engine.wants_input
    engine.typed(b"x" * MAX_PENDING_INPUT)
    assert not engine.wants_input


def test_an_observer_sends_nothing_and_leaves_with_q() -> None:
    engine = TtyClient(read_only=True, session_id="s1")
    engine.resized(80, 24)
    assert sent(engine.connected("access")) == [{"type": "auth", "token": "access"}]
    assert engine.received('{"session_id":"s1"}') == []
    assert engine.typed(b"ls\r") == []
    assert engine.typed(b"q") == [End(0)]


def test_sizes_are_clamped_and_sent_only_when_they_change() -> None:
    engine = live()
    assert sent(engine.resized(5000, 0)) == [{"type": "resize", "cols": 1000, "rows": 1}]
    assert engine.resized(5000, 0) == []


@given(st.lists(st.one_of(st.binary(max_size=64), st.text(max_size=64)), max_size=30))
def test_no_message_breaks_it(messages: list[bytes | str]) -> None:
    engine = live()
    for message in messages:
        engine.received(message)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_over_any_losses_the_agent_gets_every_key_once_and_the_person_every_byte(
    seed: int, steps: int
) -> None:
    """A model of the gateway loses the socket at random; both flows must come out whole."""
    source = random.Random(seed)
    engine = TtyClient(escapes=False)
    agent_input = bytearray()
    in_flight: list[bytes] = []
    screen = bytearray()
    output = bytearray()  # what the program printed
    delivered = 0  # how much of it went into the current socket
    typed = bytearray()
    up = False

    def act(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send) and isinstance(command.data, bytes):
                in_flight.append(command.data)
            elif isinstance(command, Write):
                screen.extend(command.data)

    def come_up() -> None:
        nonlocal up, delivered
        coming_back = engine.session_id is not None
        act(engine.connected("t"))
        act(engine.received('{"session_id":"s"}'))
        if coming_back:
            act(
                engine.received(
                    control("resumed", offset=engine.offset, input_offset=len(agent_input))
                )
            )
        delivered = engine.offset
        up = True

    come_up()
    for _ in range(steps):
        match source.randrange(5):
            case 0:
                keys = source.randbytes(source.randrange(1, 9))
                typed += keys
                act(engine.typed(keys))
            case 1:
                output += source.randbytes(source.randrange(1, 99))
            case 2 if up:
                piece = bytes(output[delivered:])
                delivered = len(output)
                act(engine.received(piece))
            case 3 if up and in_flight:
                agent_input += in_flight.pop(0)
                act(engine.received(control("ack", input=len(agent_input))))
            case _ if up and engine.session_id:
                in_flight.clear()  # lost on the way
                assert engine.lost(1006) == [Retry()]
                up = False
                if source.randrange(2):
                    come_up()
            case _:
                if not up:
                    come_up()
    if not up:
        come_up()
    while in_flight:
        agent_input += in_flight.pop(0)
    act(engine.received(bytes(output[delivered:])))
    assert agent_input == typed
    assert screen == output
