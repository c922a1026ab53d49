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


def test_a_broken_file_is_no_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text("{")
    with pytest.raises(InvalidRequest):
        KnownMachines("https://a", path).fingerprint("m")
    path.write_text("[1]")
    assert KnownMachines("https://a", path).fingerprint("m") is None
    path.write_text('{"https://a": 3, "https://b": {"m": 4}}')
    assert KnownMachines("https://a", path).fingerprint("m") is None
    assert KnownMachines("https://b", path).fingerprint("m") is None


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest) as caught:
        KnownMachines("https://a", tmp_path / "file" / "known.json").keep("m", "x")
    assert caught.value.code in ("unwritable", "unreadable")
