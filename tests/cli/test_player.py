"""When what is shown, and what the keys do; `recordings play` on a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from underpass.cli import exits
from underpass.cli.player import Frame, Player, schedule
from underpass.wire.asciicast import CastEvent

from .conftest import Result

EVENTS = [
    CastEvent(0, "o", "a"),
    CastEvent(1_500_000, "i", "typed"),
    CastEvent(2_000_000, "m", "marker"),
    CastEvent(10_000_000, "o", "b"),
    CastEvent(10_250_000, "o", "c"),
]


def test_only_output_is_shown_at_its_time() -> None:
    assert list(schedule(EVENTS)) == [
        Frame(0, "a", 0), Frame(10, "b", 10), Frame(0.25, "c", 10.25)
    ]  # fmt: skip


def test_pauses_are_cut() -> None:
    assert [frame.pause for frame in schedule(EVENTS, idle_limit=1)] == [0, 1, 0.25]


def test_keys() -> None:
    player = Player()
    assert player.passed(2) == 2
    player.key(b"+")
    assert player.passed(2) == 3
    player.key(b"--")
    assert player.passed(2) == 1
    player.key(b" ")
    assert player.passed(2) == 0
    player.key(b".")
    assert player.passed(2) == float("inf")
    assert player.passed(2) == 0
    player.key(b" x")
    assert player.passed(2) == 1
    assert not player.left
    player.key(b"q")
    assert player.left


def test_the_speed_has_ends() -> None:
    player = Player(16)
    player.key(b"+" * 30)
    assert player.speed == 16
    player.key(b"-" * 30)
    assert player.speed == 0.25


def test_playing_a_file(underpass: Callable[..., Result], tmp_path: Path) -> None:
    cast = tmp_path / "x.cast"
    cast.write_text(
        '{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "one "]\n[9.0, "o", "two"]\n'
    )
    result = underpass("recordings", "play", str(cast), "--idle-limit", "0.01", "--speed", "10")
    assert result.status == 0
    assert result.out.startswith("one two")


@pytest.mark.parametrize("name", ["missing.cast", "broken.cast"])
def test_a_file_that_cannot_be_played(
    underpass: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    (tmp_path / "broken.cast").write_text("nonsense\n")
    result = underpass("recordings", "play", str(tmp_path / name))
    assert result.status in (exits.NOT_FOUND, exits.USAGE)
    assert len(result.err.strip().splitlines()) == 1
