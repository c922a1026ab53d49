"""A file is replaced whole, or stays as it was with nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from underpass.core.whole_file import replace_file


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_it_replaces_what_was_there(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"before")
    replace_file(path, b"after", mode)
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.mkdir()  # which no file replaces
    with pytest.raises(OSError, match=r"."):
        replace_file(path, b"after")
    assert list(tmp_path.iterdir()) == [path]
