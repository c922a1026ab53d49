"""The frame of every command: help at once, one line for a failure, documented statuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import underpass as package
from underpass.cli import exits
from underpass.cli.main import COMMANDS, hoisted

from .conftest import Result, RunningGateway


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(
    underpass: Callable[..., Result], command: str
) -> None:
    result = underpass(command, "--help")
    assert result.status == 0
    assert result.out.startswith(f"Usage: underpass {command}")
    if command not in ("logout", "version", "reject"):
        assert "Examples:" in result.out


def test_help_lists_the_commands(underpass: Callable[..., Result]) -> None:
    result = underpass("--help")
    assert all(f"  {command}" in result.out for command in COMMANDS)


def test_help_imports_no_command() -> None:
    """What makes it fast: neither the HTTP client nor the gateway is loaded for it."""
    code = (
        "import sys\nfrom underpass.cli.main import run\nrun(['--help'])\n"
        "heavy = {'httpx', 'asyncio', 'rich', 'fastapi', 'sqlalchemy', 'cryptography'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(underpass: Callable[..., Result]) -> None:
    assert underpass("--version").out == f"underpass {package.__version__}\n"


def test_no_arguments_show_help_and_are_wrong_usage(underpass: Callable[..., Result]) -> None:
    result = underpass()
    assert result.status == exits.USAGE
    assert "Commands:" in result.out


@pytest.mark.parametrize("arguments", [("nonsense",), ("machines", "--nonsense"), ("exec", "x")])
def test_wrong_usage_is_one_line_and_status_2(
    underpass: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    result = underpass(*arguments)
    assert result.status == exits.USAGE
    assert len(result.err.strip().splitlines()) == 1
    assert "--help" in result.err


def test_an_unreachable_gateway_is_one_line(underpass: Callable[..., Result]) -> None:
    result = underpass("--server", "http://127.0.0.1:9", "--token", "x", "machines")
    assert result.status == exits.UNREACHABLE
    assert "127.0.0.1:9" in result.err
    assert "doctor" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_failure_as_json_is_one_value(underpass: Callable[..., Result]) -> None:
    result = underpass("--json", "--server", "http://127.0.0.1:9", "machines")
    assert result.json["error"]["code"] == "unreachable"
    assert result.status == exits.UNREACHABLE


def test_not_signed_in_says_how(gateway: RunningGateway, underpass: Callable[..., Result]) -> None:
    result = underpass("--server", gateway.url, "machines")
    assert result.status == exits.REFUSED
    assert f"underpass login {gateway.url}" in result.err


def test_a_bad_address_is_wrong_usage(underpass: Callable[..., Result]) -> None:
    assert underpass("--server", "ftp://x", "machines").status == exits.USAGE


def test_an_unexpected_error_is_one_line_without_a_trace(
    underpass: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("underpass.cli.options.Credentials.load", broken)
    result = underpass("machines")
    assert result.status == exits.FAILED
    assert "a bug" in result.err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["machines", "--json"], ["--json", "machines"]),
        (["--json", "machines"], ["--json", "machines"]),
        (
            ["token", "create", "--json", "--uses", "2"],
            ["--json", "token", "create", "--uses", "2"],
        ),
        (["exec", "box", "--", "jq", "--json"], ["exec", "box", "--", "jq", "--json"]),
        (["shell", "--json"], ["shell", "--json"]),
        (["--json", "exec", "box"], ["--json", "exec", "box"]),
    ],
)
def test_json_may_stand_anywhere_before_the_dashes(given: list[str], wanted: list[str]) -> None:
    assert hoisted(given) == wanted


def test_the_program_really_starts(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "underpass.cli.main", "machines", "--server"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == exits.USAGE
    assert "Traceback" not in done.stderr


def test_status_of_every_kind_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/exit-codes.md").read_text()
    for name in exits.__all__:
        if name.isupper():
            assert f"| {getattr(exits, name)} |" in text, name


def test_the_transport_is_a_flag_and_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from underpass.cli.options import Options
    from underpass.core.errors import InvalidRequest

    monkeypatch.setenv("UNDERPASS_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("UNDERPASS_TRANSPORT", raising=False)
    assert Options().connection().transport == "auto"
    monkeypatch.setenv("UNDERPASS_TRANSPORT", "quic")
    assert Options().connection().transport == "quic"
    assert Options(transport="tcp").connection().transport == "tcp"
    monkeypatch.setenv("UNDERPASS_TRANSPORT", "pigeon")
    with pytest.raises(InvalidRequest) as error:
        Options().connection()
    assert error.value.code == "bad_transport"
    assert "quic" in (error.value.hint or "")
