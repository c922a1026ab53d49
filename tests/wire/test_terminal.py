"""Trunk messages: any split gives the same messages; bad ones are ignored, never fatal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.terminal import (
    MAX_CONTROL,
    MAX_FRAME,
    Ack,
    Attached,
    Control,
    Credit,
    Exit,
    Failure,
    FrameDecoder,
    FrameType,
    Ping,
    Pong,
    Resize,
    Signal,
    TerminalFrameError,
    Terminate,
    clamp_size,
    decode_control,
    encode_control,
    frame,
    frames,
)

MESSAGES: list[Control] = [
    Attached("s", 5, 6, 7, "/bin/bash", "root", 100, 30),
    Ack(12),
    Pong(1.5),
    Pong(3),
    Exit(code=3, offset=99),
    Exit(signal="SIGKILL"),
    Failure("grace_over", "Nobody came back."),
    Resize(100, 30),
    Credit(1000),
    Ping(0),
    Terminate("by admin"),
    Signal("INT"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_controls_survive_the_round_trip(message: Control) -> None:
    assert decode_control(encode_control(message)) == message
    assert decode_control(encode_control(message).decode()) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"type":"unknown"}',
        b'{"type":5}',
        b'{"type":"resize"}',
        b'{"type":"resize","cols":"80","rows":24}',
        b'{"type":"resize","cols":null,"rows":24}',
        b'{"type":"credit","bytes":-1}',
        b'{"type":"credit","bytes":1e400}',
        b'{"type":"ack","input":-5}',
        b'{"type":"ping","t":{}}',
        b'{"type":"terminate","reason":"' + b"x" * 300 + b'"}',
        b'{"type":"ping","t":1,"pad":"' + b"x" * MAX_CONTROL + b'"}',
        b"[" * 4000,
        "\ud800",
    ],
)
def test_bad_controls_are_nothing(payload: bytes | str) -> None:
    assert decode_control(payload) is None


def test_unknown_fields_are_ignored() -> None:
    assert decode_control(b'{"type":"ack","input":1,"new":{"a":[1]}}') == Ack(1)


@pytest.mark.parametrize(
    ("asked", "given"),
    [((100, 30), (100, 30)), ((0, -7), (1, 1)), ((1001, 10**12), (1000, 1000))],
)
def test_sizes_are_clamped(asked: tuple[int, int], given: tuple[int, int]) -> None:
    cols, rows = asked
    assert clamp_size(cols, rows) == given
    assert Resize(cols, rows) == Resize(*given)
    raw = json.dumps({"type": "resize", "cols": cols, "rows": rows}).encode()
    assert decode_control(raw) == Resize(*given)
    assert Attached("s", 0, 0, cols=cols, rows=rows).cols == given[0]


def test_frame_layout() -> None:
    assert frame(FrameType.BYTES, b"hi") == b"\x00\x00\x00\x02hi"
    assert frame(FrameType.STDIN_EOF) == b"\x03\x00\x00\x00"
    with pytest.raises(ValueError, match="at most"):
        frame(FrameType.BYTES, bytes(MAX_FRAME + 1))


def test_long_data_becomes_several_frames() -> None:
    data = bytes(range(256)) * 600
    pieces = list(frames(FrameType.STDERR, data))
    assert len(pieces) == 3
    assert list(frames(FrameType.BYTES, b"")) == []
    decoder = FrameDecoder()
    found = decoder.feed(b"".join(pieces))
    assert b"".join(part for kind, part in found if isinstance(part, bytes)) == data
    assert {kind for kind, _ in found} == {FrameType.STDERR}


def test_byte_frames_pass_through_before_they_are_whole() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"\x00\x00\x00\x04ab") == [(FrameType.BYTES, b"ab")]
    assert decoder.mid_frame
    assert decoder.feed(b"cd") == [(FrameType.BYTES, b"cd")]
    assert not decoder.mid_frame
    assert decoder.feed(b"\x00") == []
    assert decoder.mid_frame


def test_too_long_byte_frames_end_the_trunk() -> None:
    with pytest.raises(TerminalFrameError, match="at most"):
        FrameDecoder().feed(b"\x00" + (MAX_FRAME + 1).to_bytes(3, "big"))


def test_too_long_controls_and_unknown_frames_are_skipped() -> None:
    long = b"\x01" + (MAX_CONTROL + 1).to_bytes(3, "big") + b"{" * (MAX_CONTROL + 1)
    unknown = b"\x09\x00\x00\x03abc" + b"\xff\x00\x00\x00"
    bad = frame(FrameType.CONTROL, b"not json") + frame(FrameType.CONTROL)
    decoder = FrameDecoder()
    found = decoder.feed(long + unknown + bad + frame(FrameType.BYTES, b"x"))
    assert found == [(FrameType.BYTES, b"x")]
    assert not decoder._control


def _merged(found: list[tuple[FrameType, Any]]) -> list[tuple[FrameType, Any]]:
    merged: list[tuple[FrameType, Any]] = []
    for kind, value in found:
        if merged and isinstance(value, bytes) and merged[-1][0] is kind and value:
            merged[-1] = (kind, merged[-1][1] + value)
        else:
            merged.append((kind, value))
    return merged


_piece = st.one_of(
    st.binary(min_size=1, max_size=50).map(lambda data: (FrameType.BYTES, data)),
    st.binary(min_size=1, max_size=50).map(lambda data: (FrameType.STDERR, data)),
    st.sampled_from(MESSAGES).map(lambda message: (FrameType.CONTROL, message)),
    st.just((FrameType.STDIN_EOF, b"")),
)


@given(st.lists(_piece, max_size=20), st.lists(st.integers(1, 30)))
def test_any_split_gives_the_same_messages(
    messages: list[tuple[FrameType, Any]], cuts: list[int]
) -> None:
    wire = b"".join(
        frame(kind, value if isinstance(value, bytes) else encode_control(value))
        for kind, value in messages
    )
    decoder = FrameDecoder()
    found: list[tuple[FrameType, Any]] = []
    for cut in cuts:
        found += decoder.feed(wire[:cut])
        wire = wire[cut:]
    found += decoder.feed(wire)
    assert _merged(found) == _merged(messages)
    assert not decoder.mid_frame


@given(st.binary(max_size=300))
def test_noise_never_does_anything_else(noise: bytes) -> None:
    try:
        FrameDecoder().feed(noise)
    except TerminalFrameError:
        pass
