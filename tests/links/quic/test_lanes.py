"""Which QUIC stream each frame goes on, and whole frames made of what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.links.quic.lanes import LaneReader, Lanes
from underpass.wire.frames import (
    MAX_PAYLOAD,
    AcceptFrame,
    EndFrame,
    ErrorFrame,
    FrameDecoder,
    FrameType,
    OpenFrame,
    ProtocolError,
    encode_frame,
    encode_payload,
    pack_header,
)


def opening(stream: int) -> bytes:
    return encode_frame(stream, FrameType.OPEN, encode_payload(OpenFrame("tcp:h:1", {}, 16384)))


def data(stream: int, payload: bytes) -> bytes:
    return encode_frame(stream, FrameType.DATA, payload)


def eof(stream: int) -> bytes:
    return encode_frame(stream, FrameType.EOF)


def reset(stream: int) -> bytes:
    return encode_frame(stream, FrameType.RESET, encode_payload(EndFrame("gone")))


def accepted(stream: int) -> bytes:
    return encode_frame(stream, FrameType.ACCEPT, encode_payload(AcceptFrame(16384)))


PING = encode_frame(0, FrameType.PING, b"12345678")


def sent(lanes: Lanes, *frames: bytes) -> list[tuple[int | None, bytes, bool]]:
    return [
        (piece.lane, bytes(piece.data), piece.end) for piece in lanes.outgoing(b"".join(frames))
    ]


def numbered(*numbers: int) -> Lanes:
    given = iter(numbers)
    return Lanes(lambda: next(given, None))


class TestOutgoing:
    def test_each_stream_has_a_lane_and_the_link_the_control_lane(self) -> None:
        lanes = numbered(0, 4)
        assert sent(lanes, PING, opening(1), data(1, b"a"), opening(3), PING, data(1, b"b")) == [
            (None, PING, False),
            (0, opening(1) + data(1, b"a"), False),
            (4, opening(3), False),
            (None, PING, False),
            (0, data(1, b"b"), False),
        ]

    def test_without_a_free_quic_stream_the_control_lane_is_shared(self) -> None:
        lanes = numbered(0)
        assert sent(lanes, opening(1), opening(3), data(3, b"x"), eof(3)) == [
            (0, opening(1), False),
            (None, opening(3) + data(3, b"x") + eof(3), False),
        ]
        assert lanes.unsettled == 1

    def test_a_lane_ends_when_the_stream_is_over_both_ways(self) -> None:
        lanes = numbered(0)
        assert sent(lanes, opening(1), eof(1)) == [(0, opening(1) + eof(1), False)]
        assert lanes.incoming(0, accepted(1) + data(1, b"x"), False, control=False)
        assert lanes.take_finished() == []
        lanes.incoming(0, eof(1), False, control=False)
        assert lanes.take_finished() == [0]
        assert lanes.take_finished() == []
        assert lanes.unsettled == 1  # the peer's half is still open
        assert lanes.incoming(0, b"", True, control=False) == b""
        assert lanes.unsettled == 0
        assert sent(lanes, data(1, b"late")) == [(None, data(1, b"late"), False)]

    def test_a_reset_ends_it_at_once(self) -> None:
        lanes = numbered(0)
        sent(lanes, opening(1))
        assert sent(lanes, data(1, b"x"), reset(1)) == [(0, data(1, b"x") + reset(1), True)]
        # What the peer sent before it heard of it goes to the mux, which knows that it is late.
        assert lanes.incoming(0, data(1, b"y"), False, control=False) == data(1, b"y")

    def test_a_refusal_of_the_peer_ends_it(self) -> None:
        lanes = numbered(0)
        sent(lanes, opening(1))
        refusal = encode_frame(1, FrameType.REFUSE, encode_payload(ErrorFrame("no", "No.")))
        assert lanes.incoming(0, refusal, True, control=False) == refusal
        assert lanes.take_finished() == [0]
        assert lanes.unsettled == 0


class TestIncoming:
    def test_answers_go_where_the_opening_came_from(self) -> None:
        lanes = numbered()
        assert lanes.incoming(1, opening(2), False, control=False) == opening(2)
        assert sent(lanes, accepted(2), data(2, b"x")) == [(1, accepted(2) + data(2, b"x"), False)]
        assert lanes.incoming(3, opening(4), False, control=True) == opening(4)
        assert sent(lanes, accepted(4)) == [(None, accepted(4), False)]

    def test_a_lane_is_for_one_stream(self) -> None:
        lanes = numbered()
        lanes.incoming(1, opening(2), False, control=False)
        with pytest.raises(ProtocolError) as error:
            lanes.incoming(1, opening(4), False, control=False)
        assert error.value.code == "wrong_stream"
        lanes = numbered()
        lanes.incoming(1, opening(2), False, control=False)
        with pytest.raises(ProtocolError):
            lanes.incoming(5, opening(2), False, control=False)

    def test_frames_of_another_lane_do_not_end_a_stream(self) -> None:
        lanes = numbered(0)
        sent(lanes, opening(1), eof(1))
        lanes.incoming(3, eof(1), False, control=True)
        assert lanes.take_finished() == []

    def test_a_closing_peer_ends_lanes_and_is_answered(self) -> None:
        lanes = numbered(0)
        sent(lanes, opening(1))
        lanes.incoming(0, accepted(1), True, control=False)
        assert lanes.take_finished() == [0]
        assert lanes.unsettled == 0

    def test_closing_ends_every_lane_once(self) -> None:
        lanes = numbered(0, 4)
        sent(lanes, opening(1), opening(3), reset(3))
        lanes.incoming(1, opening(2), False, control=False)
        assert lanes.end_all() == [0, 1]
        assert lanes.end_all() == []
        assert lanes.unsettled == 3
        for number in (0, 1, 4):
            lanes.incoming(number, b"", True, control=False)
        assert lanes.unsettled == 0


class TestReader:
    def test_whole_frames_pass_untouched(self) -> None:
        both = data(1, b"x" * 3000) + PING
        assert LaneReader(lambda *_: None).feed(both) == both

    def test_a_part_of_data_is_made_a_smaller_frame(self) -> None:
        reader = LaneReader(lambda *_: None)
        whole = data(7, b"hello world")
        assert reader.feed(whole[:8]) == b""
        assert reader.feed(whole[8:13]) == data(7, b"hello")
        assert reader.feed(whole[13:] + PING) == data(7, b" world") + PING

    def test_a_frame_that_is_too_large_is_none(self) -> None:
        with pytest.raises(ProtocolError) as error:
            LaneReader(lambda *_: None).feed(pack_header(1, MAX_PAYLOAD + 1))
        assert error.value.code == "frame_too_large"

    @given(
        st.lists(st.binary(max_size=200), max_size=8),
        st.lists(st.integers(1, 40), min_size=1, max_size=20),
    )
    def test_however_it_is_cut_the_same_comes_out(
        self, payloads: list[bytes], cuts: list[int]
    ) -> None:
        frames = [opening(3), *(data(3, payload) for payload in payloads), eof(3), PING]
        stream = b"".join(frames)
        noted: list[int] = []
        reader = LaneReader(lambda kind, _stream: noted.append(kind))
        received = bytearray()
        others: list[tuple[int, bytes]] = []
        offset = index = 0
        while offset < len(stream):
            step = cuts[index % len(cuts)]
            index += 1
            decoder = FrameDecoder(
                lambda _stream, chunk: received.extend(chunk),
                lambda kind, _stream, payload: others.append((kind, payload)),
            )
            decoder.feed(reader.feed(stream[offset : offset + step]))
            assert not decoder.mid_frame
            offset += step
        assert bytes(received) == b"".join(payloads)
        assert [kind for kind, _ in others] == [FrameType.OPEN, FrameType.EOF, FrameType.PING]
        assert noted == [FrameType.OPEN, FrameType.EOF]
