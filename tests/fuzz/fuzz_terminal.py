"""Trunk frames, control messages and opening requests from a hostile or broken peer."""

from __future__ import annotations

import msgspec

from underpass.core.errors import InvalidRequest
from underpass.wire.terminal import (
    Attached,
    Credit,
    Exit,
    FrameDecoder,
    FrameType,
    Ping,
    Resize,
    Signal,
    TerminalFrameError,
    decode_control,
    encode_control,
    frame,
)
from underpass.wire.terminal_requests import parse_exec_request, parse_pty_request

SEEDS: list[bytes] = [
    frame(FrameType.BYTES, b"ls -l\r") + frame(FrameType.CONTROL, encode_control(Resize(80, 24))),
    frame(FrameType.CONTROL, encode_control(Attached("s", 1, 2, 3, "bash", "ann", 80, 24))),
    frame(FrameType.CONTROL, encode_control(Credit(65536))) + frame(FrameType.STDIN_EOF),
    frame(FrameType.STDERR, b"oops") + frame(FrameType.CONTROL, encode_control(Signal("INT"))),
    encode_control(Exit(code=3, offset=99)),
    encode_control(Ping(1.5)),
    b'{"type":"resize","cols":1e3,"rows":-1}',
    b'{"session_id":"s","command":"ls","cols":80,"rows":24,"offset":5,"grace":1.5}',
    b'{"session_id":"s","command":["ls","-l"],"env":{"TERM":"xterm"},"user":{"id":"u"}}',
]


def one_input(data: bytes) -> None:
    """Decode *data* as everything it could be; check what holds for any input."""
    whole = _decode([data])
    split = _decode([data[:1], data[1 : len(data) // 2], data[len(data) // 2 :]])
    assert whole == split
    message = decode_control(data)
    if message is not None:
        assert decode_control(encode_control(message)) == message
    if isinstance(message, Resize):
        assert 1 <= message.cols <= 1000
        assert 1 <= message.rows <= 1000
    try:
        meta = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return
    for parse in (parse_pty_request, parse_exec_request):
        try:
            parse(meta)
        except InvalidRequest:
            continue


def _decode(pieces: list[bytes]) -> tuple[bytes, bytes, list[object], bool]:
    decoder = FrameDecoder()
    out, err, controls, broken = b"", b"", list[object](), False
    for piece in pieces:
        try:
            found = decoder.feed(piece)
        except TerminalFrameError:
            # What came before it in the same piece is lost with the trunk, so nothing to compare.
            return b"", b"", [], True
        for kind, message in found:
            if isinstance(message, bytes):
                out += message if kind is FrameType.BYTES else b""
                err += message if kind is FrameType.STDERR else b""
                if kind is FrameType.STDIN_EOF:
                    controls.append("eof")
            else:
                controls.append(message)
    assert len(decoder._control) <= 4096
    return out, err, controls, broken
