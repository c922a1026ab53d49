"""Machines' keys are kept by gateway and machine, readable by their user only."""

from __future__ import annotations

from pathlib import Path

import pytest

from underpass.cli.known_machines import KnownMachines
from underpass.core.errors import InvalidRequest


def test_first_seen_then_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known.json"
    known = KnownMachines("https://a", path)
    assert known.fingerprint("m") is None
    known.keep("m", "sha256:1")
    known.keep("n", "sha256:2")
    KnownMachines("https://b", path).keep("m", "sha256:3")
    again = KnownMachines("https://a", path)
    assert (again.fingerprint("m"), again.fingerprint("n")) == ("sha256:1", "sha256:2")
    assert KnownMachines("https://b", path).fingerprint("n") is None
    assert path.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["known.json"]


def test_the_users_own_file(home: Path) -> None:
    KnownMachines("https://a").keep("m", "sha256:1")
    assert (home / ".config" / "underpass" / "known_machines.json").exists()


@pytest.mark.parametrize(
    "text", ["{", "[1]", "null", '{"https://a": 3}', '{"https://b": {"m": 4}}']
)
def test_a_broken_file_is_no_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "known.json"
    path.write_text(text)
    known = KnownMachines("https://a", path)
    for asked in (lambda: known.fingerprint("m"), lambda: known.keep("m", "sha256:1")):
        with pytest.raises(InvalidRequest) as caught:
            asked()
        assert caught.value.code == "unreadable"
    assert path.read_text() == text


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest) as caught:
        KnownMachines("https://a", tmp_path / "file" / "known.json").keep("m", "x")
    assert caught.value.code in ("unwritable", "unreadable")
