"""Signing in leaves one private file with an API key and the gateway's key, signing out none."""

from __future__ import annotations

import base64
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from underpass.cli import exits

from .conftest import PASSWORD, USER, Result, RunningGateway


def stored(home: Path) -> dict[str, object]:
    return json.loads((home / ".config/underpass/credentials.json").read_text())


def test_login_keeps_a_private_file_with_key_and_pin(
    signed_in: Callable[..., Result], gateway: RunningGateway, home: Path
) -> None:
    path = home / ".config/underpass/credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert PASSWORD not in path.read_text()
    login = stored(home)["logins"][gateway.url]  # type: ignore[index]
    assert login["token"].startswith("upt_")
    assert len(base64.b64decode(login["gateway_key"])) == 32
    assert signed_in("--json", "machines").json == []


def test_logout_revokes_and_forgets(
    signed_in: Callable[..., Result], gateway: RunningGateway, home: Path
) -> None:
    token = stored(home)["logins"][gateway.url]["token"]  # type: ignore[index]
    result = signed_in("--json", "logout")
    assert result.json == {"server": gateway.url, "revoked": True}
    assert stored(home)["logins"] == {}
    again = signed_in("--server", gateway.url, "--token", token, "machines")
    assert again.status == exits.REFUSED
    assert signed_in("logout", gateway.url).status == exits.REFUSED


def test_a_wrong_password_is_one_line_and_leaves_nothing(
    gateway: RunningGateway,
    underpass: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong password\n"))
    result = underpass("login", gateway.url, "-u", USER, "--password-stdin")
    assert result.status == exits.REFUSED
    assert len(result.err.strip().splitlines()) == 1
    assert not (home / ".config/underpass").exists()


def test_without_a_terminal_it_says_what_to_give(
    underpass: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "--username" in underpass("login", "http://127.0.0.1:9").err
    assert "--password-stdin" in underpass("login", "http://127.0.0.1:9", "-u", "x").err


def test_a_stored_token_goes_to_no_other_gateway(signed_in: Callable[..., Result]) -> None:
    from underpass.cli.options import Options

    assert Options().connection().token is not None
    assert Options(server="http://elsewhere:1").connection().token is None


def test_a_broken_file_is_named(underpass: Callable[..., Result], home: Path) -> None:
    path = home / ".config/underpass/credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    result = underpass("machines")
    assert result.status == exits.USAGE
    assert str(path) in result.err
