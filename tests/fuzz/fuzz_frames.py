"""The frame decoder, its payloads and a whole mux behind it: nothing but ProtocolError comes out.

The first byte of an input chooses how its beginning is cut; a mux gets the same bytes, with streams
open in both directions, and must end the link or go on, but never raise.
"""

from __future__ import annotations

from tests.links.muxes import End, Sink, pair
from underpass.core.clock import ManualClock
from underpass.wire.frames import (
    AcceptFrame,
    AnswerMessage,
    EndFrame,
    ErrorFrame,
    FailureMessage,
    FrameDecoder,
    FrameType,
    NotifyMessage,
    OpenFrame,
    ProtocolError,
    RequestMessage,
    decode_payload,
    encode_frame,
    encode_payload,
)

_open = encode_frame(1, FrameType.OPEN, encode_payload(OpenFrame("tcp:h:1", {"a": 1}, 65536)))
_accept = encode_frame(2, FrameType.ACCEPT, encode_payload(AcceptFrame(262144)))
_error = ErrorFrame("forbidden", "No.", 403, "Ask.", 1.5)

SEEDS: list[bytes] = [
    b"\x00" + _open + encode_frame(1, FrameType.DATA, b"hello") + encode_frame(1, FrameType.EOF),
    b"\x01" + _accept + encode_frame(2, FrameType.DATA, b"x" * 3000),
    b"\x07" + _accept + encode_frame(2, FrameType.WINDOW, b"\x00\x01\x00\x00"),
    b"\x05" + encode_frame(2, FrameType.REFUSE, encode_payload(_error)),
    b"\x03" + _open + encode_frame(1, FrameType.RESET, encode_payload(EndFrame("x", "y"))),
    b"\x02" + encode_frame(0, FrameType.PING, b"12345678") + encode_frame(0, FrameType.PONG, b"1"),
    b"\x04" + encode_frame(0, FrameType.GO_AWAY, encode_payload(EndFrame("restart"))),
    b"\x09" + encode_frame(0, FrameType.CLOSE, encode_payload(EndFrame("closed", "bye"))),
    b"\x11"
    + encode_frame(0, FrameType.REQUEST, encode_payload(RequestMessage(1, "metrics", {"a": [1]})))
    + encode_frame(0, FrameType.ANSWER, encode_payload(AnswerMessage(1, {}))),
    b"\x00"
    + encode_frame(0, FrameType.PART, encode_payload(NotifyMessage("kind", {"x": "y"}))[:4])
    + encode_frame(0, FrameType.NOTIFY, encode_payload(NotifyMessage("kind", {"x": "y"}))[4:])
    + encode_frame(0, FrameType.FAILURE, encode_payload(FailureMessage(1, _error))),
]

_CUTS = 48
"""Pieces of one input: enough to split every header and payload there is, and quick."""
_KINDS = (OpenFrame, AcceptFrame, ErrorFrame, EndFrame, RequestMessage, FailureMessage)


def one_input(data: bytes) -> None:
    """Feed *data* to the decoder, to each payload's decoder, and to a mux."""
    if not data:
        return
    step = data[0] or len(data)
    cut = min(len(data), 1 + _CUTS * step)
    pieces = [data[start : start + step] for start in range(1, cut, step)] + [data[cut:]]
    total = 0

    def on_data(_stream: int, chunk: bytes | memoryview) -> None:
        nonlocal total
        total += len(chunk)

    decoder = FrameDecoder(on_data, lambda *_: None)
    try:
        for piece in pieces:
            decoder.feed(piece)
    except ProtocolError:
        pass
    assert total <= len(data)
    for kind in _KINDS:
        try:
            decode_payload(kind, data[1:])
        except ProtocolError:
            pass
    _feed_mux(pieces)


def _feed_mux(pieces: list[bytes]) -> None:
    """The dialler has stream 1 to give, the acceptor under test has opened stream 2."""
    _, end = pair(clock=ManualClock())
    sink: Sink = end.open()
    sink.stream.send(b"early")
    for piece in pieces:
        end.mux.feed(piece)
    _use(end)
    end.mux.close("done")
    assert not end.mux.streams
    assert end.mux.budget.used == 0


def _use(end: End) -> None:
    for sink in end.sinks:
        sink.stream.send(b"answer")
        sink.stream.finish()
    end.mux.tick()
