"""Text for searching: escape sequences vanish however they are cut; hits carry their time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.screen_text import Hit, TextStripper, find_hits, stamp


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("plain\r\n", "plain\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0;2\x1b\\x", "x"),
        ("\x1b(B\x1b=\x1b7ok", "ok"),
        ("10%\r20%\n", "10%\n20%\n"),
        ("typo\x08\x08po", "typo"),
        ("a\x00\x07\x1e\x9bb", "ab"),
    ],
)
def test_what_a_reader_sees(output: str, text: str) -> None:
    assert TextStripper().feed(output + "|") == text + "|"
    for cut in range(len(output)):
        stripper = TextStripper()
        shown = stripper.feed(output[:cut]) + stripper.feed(output[cut:] + "|")
        assert shown == text + "|" or "\x08" in output, cut


def test_an_endless_sequence_is_not_kept_for_ever() -> None:
    stripper = TextStripper()
    for _ in range(10):
        stripper.feed("\x1b]0;" + "x" * 3000)
    assert len(stripper._held) <= 4096
    assert stripper.feed("\x07seen ").endswith("seen ")


@given(st.text(alphabet="\x1b[]0;1mP\\\x07\r\n\x08ab(", max_size=60), st.integers(0, 60))
def test_no_control_character_gets_through(text: str, cut: int) -> None:
    stripper = TextStripper()
    shown = stripper.feed(text[:cut]) + stripper.feed(text[cut:])
    assert not set(shown) & {"\x1b", "\x07", "\x08", "\r", "\x1e"}


def test_hits_carry_the_time_of_their_line() -> None:
    data = stamp(1_000_000) + b"one\ntwo Needle\n" + stamp(5_000_000) + b"a needle again needle\n"
    hits, last = find_hits(data, "nEEdle", limit=10)
    assert hits == [Hit(1_000_000, "two Needle"), Hit(5_000_000, "a needle again needle")]
    assert last == 5_000_000
    assert find_hits(data, "needle", limit=1)[0] == hits[:1]
    assert find_hits(b"needle\n", "needle", limit=1, time_us=7) == ([Hit(7, "needle")], 7)
    assert find_hits(data, "1000000", limit=5)[0] == []
    assert find_hits("İ needle".encode(), "NEEDLE", limit=5)[0] == [Hit(0, "İ needle")]


def test_long_lines_are_shortened() -> None:
    hits, _ = find_hits(b"x" * 5000 + b"needle" + b"y" * 5000, "needle", limit=1)
    assert "needle" in hits[0].line
    assert len(hits[0].line) <= 400
