"""Any bytes as a recording, as a side index, as terminal output, as a browser's message."""

from __future__ import annotations

from underpass.core.errors import InvalidRequest
from underpass.gateway.terminals.browser_messages import parse
from underpass.wire.asciicast import CastError, CastHeader, CastReader, CastWriter
from underpass.wire.cast_index import CastIndex, Checkpoint, Marker, encode_entries
from underpass.wire.screen_text import TextStripper, find_hits, stamp

_WRITER = CastWriter()
SEEDS: list[bytes] = [
    _WRITER.header(CastHeader(80, 24, 1, "bash", "ann", {"TERM": "xterm"}))
    + _WRITER.output("aé漢🎉\x1b[31m".encode(), 10)
    + _WRITER.resize(90, 33, 20),
    b'{"version":3,"term":{"cols":1,"rows":1}}\n#c\n[0.5,"o","x"]\n[1,"x","0"]\n',
    encode_entries([Checkpoint(1, 100, 50, 20, k=True), Marker(2, "m")]),
    stamp(5) + b"needle in \x1b]0;title\x07 haystack\r\n\x1bPq\x1b\\",
    b'{"type":"resize","cols":80,"rows":24}',
    b'{"type":"auth","token":"upx_x"}',
    b"\xff\xfe\xc3(\xf0\x9f\x8e\x89",
]


def one_input(data: bytes) -> None:
    """Nothing but our own errors, and what was written reads back as it was."""
    reader = CastReader()
    half = len(data) // 2
    try:
        reader.feed(data[:half])
        reader.feed(data[half:])
    except CastError:
        pass
    assert reader.consumed <= len(data)

    index = CastIndex.parse(data, cast_size=1000, text_size=1000)
    assert index.consumed <= len(data)
    index.seek(len(data))

    writer, again = CastWriter(), CastReader()
    cast = writer.header(CastHeader(80, 24))
    text = ""
    stripper = TextStripper()
    for position in range(0, len(data), 7):
        cast += writer.output(data[position : position + 7], position)
        text += writer.text
        plain = stripper.feed(writer.text)
        assert "\x1b" not in plain
        assert "\x1e" not in plain
    cast += writer.flush(len(data))
    text += writer.text
    assert text == data.decode(errors="replace")
    assert "".join(event.data for event in again.feed(cast)) == text

    find_hits(data, "e", limit=3)
    try:
        parse(data.decode(errors="surrogateescape"))
    except InvalidRequest:
        pass
