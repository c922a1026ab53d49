"""The frame codec: round trips however the bytes are cut, and every kind of nonsense refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    MAX_TARGET,
    AcceptFrame,
    EndFrame,
    ErrorFrame,
    FrameDecoder,
    FrameType,
    OpenFrame,
    ProtocolError,
    RequestMessage,
    decode_payload,
    encode_frame,
    encode_payload,
    pack_header,
)


class Reader:
    """Collects what a decoder hands on; pieces of one stream's DATA are joined."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.pieces = 0
        self.decoder = FrameDecoder(self.on_data, self.on_frame)

    def on_data(self, stream_id: int, chunk: bytes | memoryview) -> None:
        self.pieces += 1
        if self.frames and self.frames[-1][:2] == (FrameType.DATA, stream_id):
            self.frames[-1] = (FrameType.DATA, stream_id, self.frames[-1][2] + bytes(chunk))
        else:
            self.frames.append((FrameType.DATA, stream_id, bytes(chunk)))

    def on_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        self.frames.append((kind, stream_id, payload))


STREAM_FRAMES = st.tuples(
    st.sampled_from([k for k in FrameType if FrameType.DATA <= k <= FrameType.RESET]),
    st.integers(1, 2**32 - 1),
    st.binary(max_size=300),
)
LINK_FRAMES = st.tuples(
    st.sampled_from([k for k in FrameType if k >= FrameType.PING]),
    st.just(0),
    st.binary(max_size=300),
)


def joined(frames: list[tuple[FrameType, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What a Reader shows of *frames*: neighbouring DATA of a stream in one, empty DATA not."""
    shown: list[tuple[int, int, bytes]] = []
    for kind, stream_id, payload in frames:
        if kind is FrameType.DATA and shown and shown[-1][:2] == (kind, stream_id):
            shown[-1] = (kind, stream_id, shown[-1][2] + payload)
        else:
            shown.append((kind, stream_id, payload))
    return [frame for frame in shown if frame[0] != FrameType.DATA or frame[2]]


@given(st.lists(STREAM_FRAMES | LINK_FRAMES, max_size=8), st.data())
def test_frames_survive_any_cut(
    frames: list[tuple[FrameType, int, bytes]], data: st.DataObject
) -> None:
    wire = b"".join(encode_frame(stream_id, kind, body) for kind, stream_id, body in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))
    reader = Reader()
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        reader.decoder.feed(wire[start:end])
    got = [frame for frame in reader.frames if frame[0] != FrameType.DATA or frame[2]]
    assert got == joined(frames)
    assert not reader.decoder.mid_frame


def test_frames_survive_byte_by_byte() -> None:
    wire = (
        encode_frame(7, FrameType.DATA, b"x" * 5000)
        + encode_frame(0, FrameType.PING, b"12345678")
        + encode_frame(7, FrameType.EOF)
    )
    reader = Reader()
    for index in range(len(wire)):
        reader.decoder.feed(wire[index : index + 1])
    assert reader.frames == [(0, 7, b"x" * 5000), (7, 0, b"12345678"), (5, 7, b"")]


def test_data_is_handed_on_before_its_frame_is_complete() -> None:
    reader = Reader()
    wire = encode_frame(3, FrameType.DATA, b"a" * 60000)
    reader.decoder.feed(wire[:30000])
    assert reader.frames == [(0, 3, b"a" * (30000 - HEADER_SIZE))]
    assert reader.decoder.mid_frame
    reader.decoder.feed(wire[30000:] + encode_frame(3, FrameType.EOF))
    assert reader.frames == [(0, 3, b"a" * 60000), (5, 3, b"")]


def test_large_payloads_are_views_and_small_ones_bytes() -> None:
    kinds: list[type] = []
    decoder = FrameDecoder(lambda _id, chunk: kinds.append(type(chunk)), lambda *_: None)
    decoder.feed(
        encode_frame(1, FrameType.DATA, b"s") + encode_frame(1, FrameType.DATA, b"l" * 4096)
    )
    assert kinds == [bytes, memoryview]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (pack_header(1, FrameType.OPEN << 24 | MAX_PAYLOAD + 1), "frame_too_large"),
        (pack_header(1, MAX_PAYLOAD + 1), "frame_too_large"),
        (pack_header(1, 200 << 24), "unknown_frame"),
        (pack_header(0, (max(FrameType) + 1) << 24), "unknown_frame"),
        (pack_header(5, FrameType.PING << 24 | 8), "wrong_stream"),
        (pack_header(0, FrameType.OPEN << 24), "wrong_stream"),
    ],
)
def test_impossible_headers_are_refused(wire: bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Reader().decoder.feed(wire + bytes(100))
    assert caught.value.code == code


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_nonsense_raises_only_protocol_errors(data: bytes, step: int) -> None:
    reader = Reader()
    try:
        for start in range(0, len(data), step):
            reader.decoder.feed(data[start : start + step])
    except ProtocolError:
        pass


@given(
    st.text(max_size=MAX_TARGET),
    st.dictionaries(st.text(max_size=5), st.integers(-5, 5) | st.text(max_size=5) | st.none()),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
def test_open_round_trip(
    target: str, meta: dict[str, object], window: int, interactive: bool
) -> None:
    frame = OpenFrame(target, meta, window, interactive)
    assert decode_payload(OpenFrame, encode_payload(frame)) == frame


def test_fields_a_later_version_appends_are_ignored() -> None:
    later = msgspec.msgpack.encode(["code", "message", "something new", 7])
    assert decode_payload(EndFrame, later) == EndFrame("code", "message")


def test_fields_with_defaults_may_be_missing() -> None:
    assert decode_payload(EndFrame, msgspec.msgpack.encode(["gone"])) == EndFrame("gone", "")
    assert decode_payload(ErrorFrame, msgspec.msgpack.encode(["a", "b"])).status == 500


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (OpenFrame, b""),
        (OpenFrame, b"\xc1"),
        (OpenFrame, msgspec.msgpack.encode({"target": "x"})),
        (OpenFrame, msgspec.msgpack.encode(["x", {}, -1])),
        (OpenFrame, msgspec.msgpack.encode(["x", {}, 2**31])),
        (OpenFrame, msgspec.msgpack.encode(["x" * (MAX_TARGET + 1), {}, 1])),
        (OpenFrame, msgspec.msgpack.encode(["x", {1: 2}, 1])),
        (AcceptFrame, msgspec.msgpack.encode([2**40])),
        (RequestMessage, msgspec.msgpack.encode([1, "kind"])),
        (RequestMessage, msgspec.msgpack.encode([1, "kind"])[:-1] + b"\xff\xff"),
        (RequestMessage, b"\x93\x01\xa4kind" + b"\x81\xa1a" * 21_000 + b"\xc0"),
    ],
)
def test_bad_payloads_are_refused(kind: type[OpenFrame], payload: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_payload(kind, payload)
    assert caught.value.code == "bad_payload"
