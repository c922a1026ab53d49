"""The mux as a script: what goes in at one end, what comes out at the other. No event loop."""

from __future__ import annotations

import pytest

from tests.links.muxes import End, frames_of, pair, settle
from underpass.core.errors import InvalidRequest, TooLarge, TooManyRequests, Unavailable
from underpass.links.mux import LinkEnd, MuxLimits
from underpass.wire.flow import EARLY_WINDOW, INITIAL_WINDOW
from underpass.wire.frames import (
    MAX_PAYLOAD,
    EndFrame,
    ErrorFrame,
    FrameType,
    NotifyMessage,
    OpenFrame,
    RequestMessage,
    encode_frame,
    encode_payload,
    pack_header,
)

KIB = 1024


def code_of(end: End) -> str | None:
    return end.end.code if end.end else None


def test_a_stream_is_opened_used_and_ended() -> None:
    a, b = pair()
    near = a.open("tcp:db:5432", interactive=True)
    settle(a, b)
    assert near.notes == ["accepted"]
    assert b.targets == [("tcp:db:5432", {}, True)]
    far = b.sinks[0]
    near.stream.send(b"question")
    near.stream.finish()
    settle(a, b)
    assert (far.received, far.at_eof, near.at_eof) == (b"question", True, False)
    far.stream.send(b"answer after your end")
    far.stream.finish()
    settle(a, b)
    assert (near.received, near.at_eof) == (b"answer after your end", True)
    assert not a.mux.streams
    assert not b.mux.streams
    assert a.mux.budget.used == b.mux.budget.used == 0


def test_both_ends_open_streams_under_numbers_of_their_own() -> None:
    a, b = pair()
    ours = [a.open().stream.id for _ in range(3)]
    theirs = [b.open().stream.id for _ in range(3)]
    settle(a, b)
    assert (ours, theirs) == ([1, 3, 5], [2, 4, 6])
    assert len(a.mux.streams) == len(b.mux.streams) == 6


def test_numbers_wrap_around_and_skip_streams_still_open() -> None:
    a, b = pair()
    old = a.open()
    settle(a, b)
    a.mux._next_id = 2**32 - 1
    b.mux._peer_last = 2**32 - 3
    last, wrapped = a.open(), a.open()
    settle(a, b)
    assert (old.stream.id, last.stream.id, wrapped.stream.id) == (1, 2**32 - 1, 3)
    assert wrapped.notes == ["accepted"]
    wrapped.stream.reset("done")
    wrapped.stream.send(b"nothing")
    settle(a, b)
    assert code_of(b) is None


def test_bytes_may_be_sent_before_the_answer() -> None:
    a, b = pair()
    b.accepting = False
    near = a.open()
    near.stream.send(b"x" * 3 * EARLY_WINDOW)
    settle(a, b)
    assert len(b.sinks[0].received) == EARLY_WINDOW
    b.sinks[0].stream.accept()
    b.sinks[0].stream.accept()
    settle(a, b)
    assert len(b.sinks[0].received) == 3 * EARLY_WINDOW


def test_a_refusal_reaches_the_opener_and_ends_the_stream() -> None:
    a, b = pair()
    b.accepting = False
    near = a.open()
    near.stream.send(b"early")
    settle(a, b)
    b.sinks[0].stream.refuse(ErrorFrame("forbidden", "No.", 403))
    b.sinks[0].stream.refuse(ErrorFrame("again", "No."))
    near.stream.send(b"late")
    settle(a, b)
    assert near.notes == [("refused", "forbidden")]
    assert not a.mux.streams
    assert not b.mux.streams
    assert b.mux.pending == 0
    assert code_of(a) is code_of(b) is None


def test_an_offer_can_be_reset_by_either_end_before_the_answer() -> None:
    a, b = pair()
    b.accepting = False
    first, second = a.open(), a.open()
    settle(a, b)
    first.stream.reset("cancelled")
    b.sinks[1].stream.reset("busy")
    settle(a, b)
    assert b.sinks[0].notes == [("reset", "cancelled")]
    assert second.notes == [("refused", "busy")]
    assert b.mux.pending == 0
    b.sinks[0].stream.accept()
    settle(a, b)
    assert code_of(a) is None


def test_reset_ends_both_ways_and_late_bytes_fall() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    far = b.sinks[0]
    far.stream.send(b"on its way")
    near.stream.reset("cancelled", "not needed")
    near.stream.reset("twice")
    settle(a, b)
    assert far.notes == [("reset", "cancelled")]
    assert not near.received
    far.stream.send(b"dropped")
    far.stream.finish()
    far.stream.consumed(10**6)
    settle(a, b)
    assert code_of(a) is code_of(b) is None
    assert not a.mux.streams


def test_credit_is_kept_and_comes_back_when_the_reader_takes() -> None:
    a, b = pair()
    b.hold = True
    near = a.open()
    settle(a, b)
    near.stream.send(b"x" * 400 * KIB)
    settle(a, b)
    far = b.sinks[0]
    assert len(far.received) == INITIAL_WINDOW
    assert near.stream.queued == 400 * KIB - INITIAL_WINDOW
    assert near.stream.full
    far.release(INITIAL_WINDOW // 4 - 1)
    settle(a, b)
    assert len(far.received) == INITIAL_WINDOW
    far.release(1)
    settle(a, b)
    assert len(far.received) == INITIAL_WINDOW * 5 // 4
    far.hold = False
    far.release()
    settle(a, b)
    assert len(far.received) == 400 * KIB
    assert near.notes == ["accepted", "writable"]


def test_a_stuck_stream_stalls_nobody_else() -> None:
    a, b = pair()
    stuck = a.open()
    b.hold = True
    settle(a, b)
    b.sinks[0].hold = True
    b.hold = False
    free = a.open()
    settle(a, b)
    for _ in range(50):
        stuck.stream.send(b"s" * 64 * KIB)
        free.stream.send(b"f" * 64 * KIB)
        settle(a, b)
    assert len(b.sinks[0].received) == INITIAL_WINDOW
    assert len(b.sinks[1].received) == 50 * 64 * KIB


def test_frames_are_small_and_take_turns() -> None:
    a, b = pair()
    one, two = a.open(), a.open()
    settle(a, b)
    a.mux.pause_writing()
    one.stream.send(b"1" * 200 * KIB)
    two.stream.send(b"2" * 200 * KIB)
    assert not a.wire
    a.mux.resume_writing()
    while a.next_turn():
        pass
    frames = frames_of(a.wire)
    assert [stream for _, stream, _ in frames][:4] == [1, 3, 1, 3]
    assert max(size for *_, size in frames) <= MAX_PAYLOAD
    settle(a, b)
    assert (b.sinks[0].received, b.sinks[1].received) == (b"1" * 200 * KIB, b"2" * 200 * KIB)


def test_interactive_goes_first_and_makes_quanta_small() -> None:
    a, b = pair()
    bulk = a.open()
    keys = a.open(interactive=True)
    settle(a, b)
    a.mux.pause_writing()
    bulk.stream.send(b"b" * 100 * KIB)
    keys.stream.send(b"k")
    keys.stream.send(b"ey")
    a.mux.resume_writing()
    frames = frames_of(a.wire)
    assert frames[0] == ("DATA", keys.stream.id, 3)
    assert max(size for *_, size in frames) == 16 * KIB


def test_a_link_is_calm_for_a_moment_after_somebody_typed() -> None:
    a, b = pair()
    keys = a.open(interactive=True)
    settle(a, b)
    for end in (a, b):
        assert (end.mux.outbox.calm, end.mux.outbox.quantum) == (True, 16 * KIB)
    for _ in range(2):
        a.mux.tick()
        b.mux.tick()
        settle(a, b)
    for end in (a, b):
        assert (end.mux.outbox.calm, end.mux.outbox.quantum) == (False, MAX_PAYLOAD)
    keys.stream.send(b"k")
    settle(a, b)
    assert a.mux.outbox.calm
    assert b.mux.outbox.calm
    a.mux.tick()
    assert a.mux.outbox.calm


def test_a_turn_of_the_loop_writes_only_so_much_and_interactive_needs_no_turn() -> None:
    a, b = pair()
    bulks = [a.open() for _ in range(4)]
    keys = a.open(interactive=True)
    settle(a, b)
    for bulk in bulks:
        bulk.stream.send(b"b" * 200 * KIB)
    assert a.turns == 1
    assert a.on_wire < 400 * KIB
    waiting = a.on_wire
    keys.stream.send(b"k")
    assert a.on_wire == waiting + 9
    settle(a, b)
    assert all(len(sink.received) == 200 * KIB for sink in b.sinks[:4])


def test_a_blocked_transport_gets_no_data_but_all_of_it_later() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    a.high = 32 * KIB
    sent = bytes(range(256)) * 800
    for start in range(0, len(sent), 1000):
        near.stream.send(sent[start : start + 1000])
    assert a.on_wire < 110 * KIB
    assert near.stream.queued > 80 * KIB
    for _ in range(1000):
        a.deliver(7777)
        b.deliver()
        a.next_turn()
    assert b.sinks[0].received == sent


def test_end_follows_the_data_it_was_queued_behind() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    a.mux.pause_writing()
    near.stream.send(b"last words")
    near.stream.finish()
    near.stream.finish()
    near.stream.send(b"after the end")
    assert not b.sinks[0].at_eof
    a.mux.resume_writing()
    assert [kind for kind, *_ in frames_of(a.wire)] == ["DATA", "EOF"]
    settle(a, b)
    assert (b.sinks[0].received, b.sinks[0].at_eof) == (b"last words", True)


def test_the_sender_hears_that_there_is_room_even_when_that_was_the_end() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    b.sinks[0].stream.finish()
    settle(a, b)
    a.mux.pause_writing()
    near.stream.send(b"x" * 200 * KIB)
    assert near.stream.full
    near.stream.finish()
    a.mux.resume_writing()
    settle(a, b)
    assert near.notes == ["accepted", "writable"]
    assert not a.mux.streams


def test_grants_wait_while_the_transport_is_blocked() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    b.mux.pause_writing()
    near.stream.send(b"x" * INITIAL_WINDOW)
    near.stream.send(b"y" * INITIAL_WINDOW)
    settle(a, b)
    assert len(b.sinks[0].received) == INITIAL_WINDOW
    assert not b.wire
    b.mux.resume_writing()
    settle(a, b)
    assert len(b.sinks[0].received) == 2 * INITIAL_WINDOW


def test_lingering_ends_by_force() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    near.stream.linger()
    settle(a, b)
    assert b.sinks[0].at_eof
    assert len(a.mux.streams) == 1
    for _ in range(31):
        a.clock.advance(1)
        a.mux.tick()
        b.mux.tick()
        settle(a, b)
    assert b.sinks[0].notes == [("reset", "lingered")]
    assert not a.mux.streams
    assert not b.mux.streams


def test_bytes_for_a_closed_stream_are_answered_with_a_reset() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    near.stream.linger()
    near.stream.linger()
    b.sinks[0].stream.send(b"anybody there?")
    settle(a, b)
    assert b.sinks[0].notes == [("reset", "closed")]
    assert not a.mux.streams


def test_a_closed_stream_sends_what_it_owes_first() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    a.mux.pause_writing()
    near.stream.send(b"owed")
    near.stream.linger()
    b.sinks[0].stream.send(b"unread")
    b.deliver()
    a.mux.resume_writing()
    settle(a, b)
    assert (b.sinks[0].received, b.sinks[0].at_eof) == (b"owed", True)


@pytest.mark.parametrize("which", ["streams", "opens_pending"])
def test_openings_above_a_cap_are_refused(which: str) -> None:
    a, b = pair()
    b.mux.limits = MuxLimits(streams=2) if which == "streams" else MuxLimits(opens_pending=2)
    b.accepting = False
    sinks = [a.open() for _ in range(3)]
    settle(a, b)
    code = "too_many_streams" if which == "streams" else "too_many_opens"
    assert [sink.notes for sink in sinks] == [[], [], [("refused", code)]]


def test_our_own_openings_are_capped_too() -> None:
    a, _ = pair(MuxLimits(streams=1))
    a.open()
    with pytest.raises(TooManyRequests):
        a.open()


def test_what_cannot_be_said_about_a_stream_is_refused_here() -> None:
    a, _ = pair()
    with pytest.raises(TooLarge):
        a.mux.open("x", {"large": "y" * MAX_PAYLOAD}, a.open())
    with pytest.raises(InvalidRequest):
        a.mux.open("x", {"object": object()}, a.open())
    with pytest.raises(InvalidRequest):
        a.mux.open("\ud800", {}, a.open())
    assert a.mux.budget.used == 3 * (INITIAL_WINDOW - EARLY_WINDOW)


def test_go_away_stops_new_streams_both_ways_and_lets_old_ones_finish() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    crossing = a.open()
    b.mux.go_away("restart", "Back in a moment.")
    b.mux.go_away("restart")
    settle(a, b)
    assert a.gone_away == LinkEnd("restart", "Back in a moment.")
    assert crossing.notes == [("refused", "going_away")]
    with pytest.raises(Unavailable, match="no new streams"):
        a.open()
    with pytest.raises(Unavailable):
        b.open()
    near.stream.send(b"still works")
    settle(a, b)
    assert b.sinks[0].received == b"still works"


def test_close_resets_every_stream_and_tells_the_peer() -> None:
    a, b = pair()
    near, waiting = a.open(), a.open()
    settle(a, b)
    a.mux.close("closed", "Good night.")
    a.mux.close("twice")
    near.stream.send(b"nothing")
    a.mux.outbox.control(b"nothing")
    b.deliver()
    a.deliver()
    assert near.notes == waiting.notes == ["accepted", ("reset", "link_lost")]
    assert b.sinks[0].notes == [("reset", "link_lost")]
    assert a.end == b.end == LinkEnd("closed", "Good night.")
    with pytest.raises(Unavailable):
        a.open()
    b.mux.feed(b"ignored")
    b.mux.tick()
    b.mux.lost(None)
    assert b.disconnected
    assert code_of(b) == "closed"


def test_a_lost_transport_says_why() -> None:
    a, _ = pair()
    a.mux.lost(ConnectionResetError("reset by peer"))
    assert a.end == LinkEnd("connection_lost", "The connection was lost: reset by peer.")


def test_large_control_messages_travel_in_parts() -> None:
    a, b = pair()
    message = NotifyMessage("sessions", {"text": "x" * 300_000})
    a.mux.send_message(FrameType.NOTIFY, message)
    assert [kind for kind, *_ in frames_of(a.wire)] == ["PART"] * 4 + ["NOTIFY"]
    small = RequestMessage(1, "metrics", {})
    a.mux.send_message(FrameType.REQUEST, small)
    settle(a, b)
    assert b.messages == [message, small]
    with pytest.raises(TooLarge):
        a.mux.send_message(FrameType.NOTIFY, NotifyMessage("k", {"x": "y" * (1 << 20)}))


def open_frame(stream_id: int) -> bytes:
    payload = encode_payload(OpenFrame("x", {}, 1000))
    return encode_frame(stream_id, FrameType.OPEN, payload)


ACCEPTED = open_frame(1)
DATA = encode_frame(1, FrameType.DATA, b"x")
EOF = encode_frame(1, FrameType.EOF)
END = encode_payload(EndFrame("x"))


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\xff" * 8, "frame_too_large"),
        (DATA, "unknown_stream"),
        (encode_frame(2, FrameType.EOF), "unknown_stream"),
        (open_frame(2), "wrong_stream"),
        (ACCEPTED + ACCEPTED, "wrong_stream"),
        (open_frame(3) + ACCEPTED, "wrong_stream"),
        (ACCEPTED + EOF + DATA, "wrong_state"),
        (ACCEPTED + EOF + EOF, "wrong_state"),
        (ACCEPTED + encode_frame(1, FrameType.EOF, b"x"), "wrong_state"),
        (ACCEPTED + encode_frame(1, FrameType.ACCEPT, b"\x91\x00"), "wrong_state"),
        (ACCEPTED + encode_frame(1, FrameType.WINDOW, b"123"), "bad_payload"),
        (ACCEPTED + encode_frame(1, FrameType.WINDOW, b"\xff" * 4), "flow_control"),
        (ACCEPTED + encode_frame(1, FrameType.DATA, b"x" * MAX_PAYLOAD) * 5, "flow_control"),
        (encode_frame(1, FrameType.OPEN, b"junk"), "bad_payload"),
        (encode_frame(0, FrameType.PING, b"short"), "bad_payload"),
        (encode_frame(0, FrameType.REQUEST, b"junk"), "bad_payload"),
        (encode_frame(0, FrameType.PART, b"x" * MAX_PAYLOAD) * 17, "control_too_large"),
    ],
)
def test_a_violation_ends_the_link_with_a_clear_code(wire: bytes, code: str) -> None:
    _, b = pair()
    b.hold = True
    b.mux.feed(wire)
    assert code_of(b) == code
    assert frames_of(b.wire)[-1][0] == "CLOSE"


def test_openings_may_overtake_each_other_where_the_carrier_lets_them() -> None:
    _, b = pair(ordered=False)
    b.mux.feed(open_frame(5))
    b.mux.feed(open_frame(1) + DATA)
    b.mux.feed(open_frame(3))
    assert len(b.sinks) == 3
    assert b.sinks[1].received == b"x"
    b.mux.feed(encode_frame(3, FrameType.RESET, END) + encode_frame(3, FrameType.DATA, b"late"))
    assert b.end is None
    b.mux.feed(open_frame(1))
    assert code_of(b) == "wrong_stream"  # a number in use stays one


def test_answers_to_streams_we_opened_are_checked() -> None:
    a, _ = pair()
    sink = a.open()
    a.mux.feed(encode_frame(1, FrameType.DATA, b"before the answer"))
    assert code_of(a) == "wrong_state"
    assert sink.notes == [("reset", "link_lost")]


def test_a_peer_that_asks_and_does_not_read_is_cut_off() -> None:
    a, b = pair()
    b.mux.pause_writing()
    b.accepting = False
    number = 1
    for _ in range(200):
        for _ in range(200):
            b.mux.feed(open_frame(number))
            number += 2
        if b.end:
            break
    assert code_of(b) == "not_reading"
    assert b.on_wire < 2 << 20
    assert a.end is None


def test_pings_while_the_transport_is_blocked_fill_no_memory() -> None:
    a, b = pair()
    b.mux.pause_writing()
    for number in range(1000):
        b.mux.feed(encode_frame(0, FrameType.PING, number.to_bytes(8, "big")))
    assert not b.wire
    b.mux.resume_writing()
    assert b.wire == [encode_frame(0, FrameType.PONG, (999).to_bytes(8, "big"))]
    assert a.end is None


def test_nothing_moves_after_the_end() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    a.mux.pause_writing()
    near.stream.send(b"queued")
    a.mux.ended(LinkEnd("closed"))
    a.mux.resume_writing()
    a.mux.next_turn()
    a.mux.feed(DATA)
    assert not a.wire
    b.mux.feed(ACCEPTED.replace(pack_header(1, 0)[:4], pack_header(3, 0)[:4]))
    assert code_of(b) is None
