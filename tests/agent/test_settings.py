"""Agent settings: flags over environment, one line per mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from underpass.agent.settings import AgentSettings
from underpass.core.settings import SettingsError

PIN = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("UNDERPASS_"):
            monkeypatch.delenv(name)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNDERPASS_SERVER", "gateway.example:3000")
    monkeypatch.setenv("UNDERPASS_FINGERPRINT", "AB:" * 31 + "AB")
    monkeypatch.setenv("UNDERPASS_LABELS", "env=prod, team=web")
    monkeypatch.setenv("UNDERPASS_JOIN", "upj_secret")
    monkeypatch.setenv("UNDERPASS_MODE", "poll")
    settings = AgentSettings.load(state=str(tmp_path), mode="link", name=None)
    assert settings.server == "http://gateway.example:3000"
    assert settings.fingerprint == PIN
    assert settings.labels == {"env": "prod", "team": "web"}
    assert settings.join is not None
    assert settings.join.get_secret_value() == "upj_secret"
    assert "upj_secret" not in repr(settings)
    assert settings.mode == "link"
    assert settings.hostname


def test_policy_file(tmp_path: Path) -> None:
    settings = AgentSettings.load(state=str(tmp_path))
    assert settings.policy_file is None
    (tmp_path / "policy.yaml").write_text("allow: []")
    assert settings.policy_file == tmp_path / "policy.yaml"
    given = AgentSettings.load(state=str(tmp_path), policy=str(tmp_path / "other.yaml"))
    assert given.policy_file == tmp_path / "other.yaml"


def test_the_file_of_declared_mappings_is_known_before_it_is_there(tmp_path: Path) -> None:
    settings = AgentSettings.load(state=str(tmp_path))
    assert settings.config_file == tmp_path / "underpass.yaml"
    given = AgentSettings.load(state=str(tmp_path), config=str(tmp_path / "other.yaml"))
    assert given.config_file == tmp_path / "other.yaml"


def test_the_files_of_agent_and_gateway_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine, gateways = tmp_path / "underpass.yaml", tmp_path / "gateway.yaml"
    mine.write_text("mappings:\n- name: web\n")
    gateways.write_text("listen: 127.0.0.1:1\n")
    monkeypatch.setenv("UNDERPASS_AGENT_CONFIG", str(mine))
    monkeypatch.setenv("UNDERPASS_CONFIG", str(gateways))
    state = str(tmp_path / "state")
    assert AgentSettings.load(state=state).config_file == mine
    assert AgentSettings.load(state=state, config="/x").config_file == Path("/x")
    monkeypatch.delenv("UNDERPASS_AGENT_CONFIG")
    for harmless in (gateways, tmp_path / "absent.yaml", tmp_path):
        monkeypatch.setenv("UNDERPASS_CONFIG", str(harmless))
        assert AgentSettings.load(state=state).config is None
    monkeypatch.setenv("UNDERPASS_CONFIG", str(mine))
    with pytest.raises(SettingsError, match="UNDERPASS_AGENT_CONFIG"):
        AgentSettings.load(state=state)
    assert AgentSettings.load(state=state, config=str(mine)).config_file == mine


def test_what_is_declared_needs_a_link(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="need a link"):
        AgentSettings.load(state=str(tmp_path), mode="poll", config="/etc/u.yaml")


def test_labels_from_flags() -> None:
    settings = AgentSettings.load(labels=["a=1", "b=x=y"], name="web-1")
    assert settings.labels == {"a": "1", "b": "x=y"}
    assert settings.hostname == "web-1"
    assert AgentSettings.load(labels={"a": "1"}).labels == {"a": "1"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"server": "ftp://x"}, "server"),
        ({"server": "http://"}, "server"),
        ({"fingerprint": "sha1:aa"}, "fingerprint"),
        ({"transport": "pigeon"}, "'tcp', 'websocket' or 'quic'"),
        ({"mode": "push"}, "mode"),
        ({"labels": ["novalue"]}, "KEY=VALUE"),
        ({"labels": ["!=x"]}, "KEY=VALUE"),
        ({"labels": 3}, "labels"),
        ({"labels": [f"k{n}=v" for n in range(65)]}, "at most 64"),
        ({"heartbeat": 0}, "heartbeat"),
    ],
)
def test_mistakes_are_one_line(flags: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError) as error:
        AgentSettings.load(**flags)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
