"""The state directory: private, whole or not there, one agent at a time."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from underpass.agent import state as states
from underpass.agent.state import AgentState, StateError


@pytest.fixture(autouse=True)
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "KEY_BITS", 2048)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_identity_is_made_once_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    state = AgentState(directory)
    client_id, key = state.client_id(), state.private_key()
    assert mode(directory) == 0o700
    for name in ("client_id", "private_key.pem"):
        assert mode(directory / name) == 0o600
    again = AgentState(directory)
    assert again.client_id() == client_id
    assert again.private_key().private_numbers() == key.private_numbers()
    assert sorted(path.name for path in directory.iterdir()) == ["client_id", "private_key.pem"]


def test_an_enrolment_is_kept_and_forgotten(tmp_path: Path) -> None:
    state = AgentState(tmp_path)
    assert not state.enrolled
    assert (state.secret(), state.gateway_key(), state.server()) == (None, None, None)
    state.keep_enrolment(b"s" * 32, gateway_key=None, server="http://x")
    assert state.enrolled
    assert state.gateway_key() is None
    state.keep_enrolment(b"t" * 32, gateway_key=b"g" * 32, server="http://x")
    again = AgentState(tmp_path)
    assert (again.secret(), again.gateway_key(), again.server()) == (
        b"t" * 32,
        b"g" * 32,
        "http://x",
    )
    assert base64.b64decode((tmp_path / "agent_secret_key").read_text()) == b"t" * 32
    client_id = state.client_id()
    state.forget_enrolment()
    state.forget_enrolment()
    assert not again.enrolled
    assert (again.client_id(), again.server()) == (client_id, "http://x")


def test_what_others_could_read_is_closed(tmp_path: Path) -> None:
    state = AgentState(tmp_path)
    state.keep_enrolment(b"s" * 32, gateway_key=None, server="x")
    tmp_path.chmod(0o755)
    (tmp_path / "agent_secret_key").chmod(0o644)
    assert AgentState(tmp_path).secret() == b"s" * 32
    assert mode(tmp_path) == 0o700
    assert mode(tmp_path / "agent_secret_key") == 0o600


def test_what_belongs_to_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateError, match="belongs to another user"):
        AgentState(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("client_id", "../../etc/passwd"),
        ("private_key.pem", "no key"),
        ("agent_secret_key", "c2hvcnQ="),
        ("agent_secret_key", "not base64"),
        ("gateway_key", "AAAA"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    state = AgentState(tmp_path)
    read = {
        "client_id": state.client_id,
        "private_key.pem": state.private_key,
        "agent_secret_key": state.secret,
        "gateway_key": state.gateway_key,
    }[name]
    with pytest.raises(StateError) as refused:
        read()
    assert name in refused.value.message
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError):
            AgentState(directory)
    state = AgentState(tmp_path / "state")
    (state.directory / "client_id").symlink_to("/etc/hostname")
    with pytest.raises(StateError):
        state.client_id()
    (state.directory / "server").write_bytes(b"\xff")
    with pytest.raises(StateError):
        state.server()
    (state.directory / "gateway_key").mkdir()
    with pytest.raises(StateError):
        state.keep_gateway_key(b"g" * 32)
    assert not [path for path in state.directory.iterdir() if path.name.startswith(".")]


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    first, second = AgentState(tmp_path), AgentState(tmp_path)
    first.lock()
    first.lock()
    with pytest.raises(StateError) as refused:
        second.lock()
    assert refused.value.code == "state_in_use"
    first.close()
    first.close()
    second.lock()
    second.close()
