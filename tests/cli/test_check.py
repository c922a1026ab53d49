"""``underpass check``: right or wrong, for people and for scripts, without a gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from underpass.cli import exits

from .conftest import Result

RIGHT = "mappings:\n- {name: ssh, protocol: tcp, target: 22}\n"
WRONG = "mappings:\n- {name: ssh, protocol: tcp, target: x}\n- {nam: y}\n"


def test_a_file_that_is_right(underpass: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(RIGHT)
    result = underpass("check", str(file))
    assert (result.status, result.out) == (exits.OK, f"{file} is right: 1 mapping: ssh.\n")
    assert underpass("check", str(file), "--json").json == {
        "file": str(file), "valid": True, "errors": [], "mappings": ["ssh"],
    }  # fmt: skip
    file.write_text("")
    assert underpass("check", str(file)).out == f"{file} is right: 0 mappings.\n"


def test_a_file_that_is_wrong(underpass: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(WRONG)
    result = underpass("check", str(file))
    assert (result.status, result.out) == (exits.FAILED, "")
    lines = result.err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{file}, line 2: mappings[0] (ssh): target 'x' is none")
    assert "did you mean name?" in lines[1]
    result = underpass("--json", "check", str(file))
    assert result.status == exits.FAILED
    assert result.json["valid"] is False
    assert [each["line"] for each in result.json["errors"]] == [2, 3, 3, 3]
    file.write_text("a: [")
    assert underpass("--json", "check", str(file)).json["errors"][0]["line"] is None


def test_no_file(underpass: Callable[..., Result], tmp_path: Path) -> None:
    result = underpass("check", str(tmp_path / "no.yaml"))
    assert result.status == exits.USAGE
    assert "No such file" in result.err
    assert "check --example" in result.err


def test_where_it_looks(
    underpass: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert underpass("check").status == exits.USAGE
    (home / ".underpass").mkdir()
    (home / ".underpass" / "underpass.yaml").write_text(WRONG)
    assert underpass("check").status == exits.FAILED
    (home / "underpass.yaml").write_text(RIGHT)
    assert underpass("check").out.startswith("underpass.yaml is right")


def test_the_example_is_right(underpass: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(underpass("check", "--example").out)
    assert underpass("--json", "check", str(file)).json["mappings"] == [
        "ssh", "everything", "tried",
    ]  # fmt: skip
    assert underpass("--json", "check", "--example").json["example"] == file.read_text()
