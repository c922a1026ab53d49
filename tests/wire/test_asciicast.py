"""Asciicast lines are what players expect, whatever bytes come and however they are cut."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.asciicast import CastError, CastHeader, CastReader, CastWriter, Utf8Decoder

HEADER = CastHeader(100, 30, 1_700_000_000, "/bin/bash", "ann on web-1", {"TERM": "xterm"})
VERSIONS: list[Literal[2, 3]] = [2, 3]


def test_the_header_of_version_2() -> None:
    line = json.loads(CastWriter(2).header(HEADER))
    assert line == {
        "version": 2, "width": 100, "height": 30, "timestamp": 1_700_000_000,
        "command": "/bin/bash", "title": "ann on web-1", "env": {"TERM": "xterm"},
    }  # fmt: skip


def test_the_header_of_version_3() -> None:
    line = json.loads(CastWriter(3).header(HEADER))
    assert line["version"] == 3
    assert line["term"] == {"cols": 100, "rows": 30, "type": "xterm"}
    assert json.loads(CastWriter(3).header(CastHeader(1, 2))) == {
        "version": 3, "term": {"cols": 1, "rows": 2},
    }  # fmt: skip


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3"):
        CastWriter(4)  # type: ignore[arg-type]


def test_times_are_absolute_in_2_and_intervals_in_3() -> None:
    two, three = CastWriter(2), CastWriter(3)
    for writer, second in ((two, 1.5), (three, 0.5)):
        assert json.loads(writer.output(b"a", 1_000_000)) == [1.0, "o", "a"]
        assert json.loads(writer.resize(80, 24, 1_500_000)) == [second, "r", "80x24"]
    assert json.loads(three.exit(3, 1_500_001)) == [0.000001, "x", "3"]
    assert two.exit(3, 1_500_001) == b""
    assert json.loads(two.marker('say "hi"', 1_600_000)) == [1.6, "m", 'say "hi"']


def test_time_never_runs_backwards() -> None:
    writer = CastWriter(2)
    writer.output(b"a", 5_000_000)
    assert json.loads(writer.output(b"b", 4_000_000))[0] == 5.0
    assert json.loads(writer.output(b"c", 10**20))[0] == 1e9


def test_intervals_do_not_drift() -> None:
    writer, reader = CastWriter(3), CastReader()
    data = writer.header(HEADER)
    for step in range(1, 2000):
        data += writer.output(b"x", step * 333_333)
    assert reader.feed(data)[-1].time_us == 1999 * 333_333


@pytest.mark.parametrize("version", VERSIONS)
def test_a_character_split_anywhere_is_one_character(version: Literal[2, 3]) -> None:
    raw = "aé漢🎉z".encode()
    for cut in range(len(raw) + 1):
        writer, reader = CastWriter(version), CastReader()
        data = writer.header(HEADER) + writer.output(raw[:cut], 1) + writer.output(raw[cut:], 2)
        assert writer.pending == 0
        events = reader.feed(data)
        assert "".join(event.data for event in events) == "aé漢🎉z"


def test_an_unfinished_character_waits_and_is_replaced_at_the_end() -> None:
    writer = CastWriter()
    assert writer.output(b"\xf0\x9f", 1) == b""
    assert writer.pending == 2
    assert json.loads(writer.flush(2)) == [0.000002, "o", "\ufffd"]
    assert writer.pending == 0
    assert writer.flush(3) == b""
    assert json.loads(writer.output(b"\xff\xfeok", 3))[2] == "\ufffd\ufffdok"


@given(st.lists(st.binary(max_size=12), max_size=12))
def test_any_bytes_decode_as_if_they_came_at_once(pieces: list[bytes]) -> None:
    decoder = Utf8Decoder()
    text = "".join(decoder.feed(piece) for piece in pieces)
    assert decoder.pending <= 3
    assert text + decoder.feed(b"", final=True) == b"".join(pieces).decode(errors="replace")


@given(
    st.sampled_from(VERSIONS),
    st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from("orm"), st.text(max_size=8))),
    st.integers(1, 64),
)
def test_what_is_written_is_read_in_any_pieces(
    version: Literal[2, 3], events: list[tuple[int, str, str]], step: int
) -> None:
    writer, reader = CastWriter(version), CastReader()
    data = bytearray(writer.header(HEADER))
    expected: list[tuple[int, str, str]] = []
    for delta, code, text in events:
        at = writer.last_us + delta
        if code == "o":
            text = text.encode(errors="replace").decode()
            data += writer.output(text.encode(), at)
            if not text:
                continue
        elif code == "r":
            data += writer.resize(len(text) + 1, 2, at)
            text = f"{len(text) + 1}x2"
        else:
            text = text.encode(errors="replace").decode()
            data += writer.marker(text, at)
        expected.append((min(at, 10**15), code, text))
    found = []
    for position in range(0, len(data), step):
        found += reader.feed(bytes(data[position : position + step]))
    assert [(event.time_us, event.code, event.data) for event in found] == expected
    assert reader.consumed == len(data)
    assert reader.header == HEADER if version == 2 else reader.header is not None


def test_a_cut_last_line_is_left_alone() -> None:
    writer, reader = CastWriter(), CastReader()
    whole = writer.header(HEADER) + writer.output(b"a", 1)
    assert len(reader.feed(whole + b'[0.5,"o","b')) == 1
    assert reader.consumed == len(whole)


def test_comments_and_empty_lines_are_passed_over() -> None:
    reader = CastReader()
    events = reader.feed(b'{"version":3,"term":{"cols":1,"rows":1}}\n# hi\n\n[1,"o","a"]\n')
    assert [(event.time_us, event.data) for event in events] == [(1_000_000, "a")]


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"{", b'{"version":1,"width":1,"height":1}', b'{"version":2}',
        b'{"version":2,"width":true,"height":1}', b'{"version":2,"width":0,"height":1}',
        b'{"version":3}', b'{"version":3,"term":{"cols":1}}', b"\xff", b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_bad_header_is_refused(line: bytes) -> None:
    with pytest.raises(CastError):
        CastReader().feed(line + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[1]", b'["1","o","a"]', b'[true,"o","a"]', b'[1,2,"a"]', b'[1,"o",2]',
        b'[-1,"o","a"]', b'[1e300,"o","a"]', b"nope",
    ],
)  # fmt: skip
def test_a_bad_event_is_refused(line: bytes) -> None:
    reader = CastReader()
    reader.feed(CastWriter().header(HEADER))
    with pytest.raises(CastError):
        reader.feed(line + b"\n")


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(CastError):
        CastReader().feed(b"x" * (1 << 20) + b"xx")
