"""Settings: where they come from, which one wins, and one line for each that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from underpass.core.settings import GatewaySettings, SettingsError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("UNDERPASS_") or name in {"PORT", "SECRET_KEY"}:
            monkeypatch.delenv(name)


def test_the_defaults_of_the_contract() -> None:
    settings = GatewaySettings.load()
    assert (settings.host, settings.port) == ("0.0.0.0", 3000)
    assert settings.state == Path.home() / ".underpass"
    assert settings.database_url == f"sqlite:///{Path.home()}/.underpass/underpass.db"
    assert (settings.kv, settings.broker) == ("memory:", "memory:")
    assert settings.local_agent is True
    assert settings.secret_key is None
    assert settings.admin_password is None
    assert not settings.uses_tls


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "underpass.yaml"
    file.write_text("listen: 127.0.0.1:1\nnode-name: file\nport_range: 1000-2000\n")
    monkeypatch.setenv("UNDERPASS_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("UNDERPASS_NODE_NAME", "environment")
    settings = GatewaySettings.load(file, listen="127.0.0.1:3", state=None)
    assert settings.port == 3
    assert settings.node_name == "environment"
    assert settings.public_ports == range(1000, 2001)
    monkeypatch.setenv("UNDERPASS_CONFIG", str(file))
    monkeypatch.delenv("UNDERPASS_LISTEN")
    assert GatewaySettings.load().port == 1


def test_an_agents_file_is_told_from_the_gateways(tmp_path: Path) -> None:
    (file := tmp_path / "underpass.yaml").write_text("mappings: []\n")
    with pytest.raises(SettingsError, match="underpass agent --config FILE") as error:
        GatewaySettings.load(file)
    assert "\n" not in str(error.value)


def test_plain_names_that_platforms_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("SECRET_KEY", "x" * 32)
    settings = GatewaySettings.load()
    assert settings.listen == "0.0.0.0:8080"
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "x" * 32
    assert GatewaySettings.load(listen="127.0.0.1:1").port == 1
    monkeypatch.setenv("UNDERPASS_SECRET_KEY", "y" * 32)
    again = GatewaySettings.load()
    assert again.secret_key is not None
    assert again.secret_key.get_secret_value() == "y" * 32


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPASS_LISTEN", "")
    monkeypatch.setenv("PORT", "")
    assert GatewaySettings.load().port == 3000


def test_lists_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPASS_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1")
    assert GatewaySettings.load().trusted_proxies == ["10.0.0.0/8", "192.0.2.1"]


def test_a_quota_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPASS_DEFAULT_QUOTA", '{"max_mappings": 5, "bandwidth": null}')
    assert GatewaySettings.load().default_quota == {"max_mappings": 5, "bandwidth": None}
    for wrong, text in (("5 mappings", "must be JSON"), ('{"bandwidth": "fast"}', "valid integer")):
        monkeypatch.setenv("UNDERPASS_DEFAULT_QUOTA", wrong)
        with pytest.raises(SettingsError, match=text) as caught:
            GatewaySettings.load()
        assert "default_quota" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_constructing_directly_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPASS_LISTEN", "127.0.0.1:2")
    assert GatewaySettings().port == 3000


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("0.0.0.0:3000", "0.0.0.0", 3000),
        (":80", "0.0.0.0", 80),
        ("[::]:3000", "::", 3000),
        ("localhost:0", "localhost", 0),
    ],
)
def test_listen(listen: str, host: str, port: int) -> None:
    settings = GatewaySettings.load(listen=listen)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"listen": "3000"}, "Bad setting listen: must be HOST:PORT"),
        ({"listen": "a:b"}, "Bad setting listen"),
        ({"listen": "a:99999"}, "Bad setting listen"),
        ({"listen": "::1:3000"}, "brackets"),
        ({"public_url": "gw.example.org"}, "Bad setting public_url"),
        ({"public_url": "https://gw/path"}, "without a path"),
        ({"public_url": "https://u:p@gw"}, "without a path"),
        ({"port_range": "9-1"}, "Bad setting port_range"),
        ({"port_range": "80"}, "Bad setting port_range"),
        ({"trusted_proxies": ["10.0.0.1/99"]}, "Bad setting trusted_proxies"),
        ({"trusted_proxies": "nobody"}, "Bad setting trusted_proxies"),
        ({"database": "oracle://x"}, "Bad setting database"),
        ({"kv": "redis://x"}, "only memory:"),
        ({"broker": "nats://x"}, "only memory:"),
        ({"secret_key": "short"}, "at least 16 characters"),
        ({"tls": "on"}, "Bad setting tls"),
        ({"tls_cert": "/a"}, "tls_cert and tls_key go together"),
        ({"tls": "self", "tls_cert": "/a", "tls_key": "/b"}, "exclude each other"),
        ({"admin_user": "ada"}, "admin_user and admin_password go together"),
        ({"session_idle": 1}, "Bad setting session_idle"),
        ({"max_body": 10}, "Bad setting max_body"),
        ({"lisen": "x"}, "There is no setting 'lisen'"),
    ],
)
def test_what_is_wrong_is_one_line(flags: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load(**flags)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_are_not_repeated_in_errors_or_reprs() -> None:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load(admin_user="ada", admin_password="hunter2hunter2", tls="x")
    assert "hunter2" not in str(caught.value)
    settings = GatewaySettings.load(admin_user="ada", admin_password="hunter2hunter2")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("- a list", "must hold settings"),
        ("listen: [", "is not valid YAML (line"),
        ("a: b: c", "is not valid YAML"),
        ("nonsense: 1", "There is no setting 'nonsense'"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "underpass.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load(file)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        GatewaySettings.load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid YAML"):
        GatewaySettings.load(tmp_path / "binary")
    (tmp_path / "empty").write_text("")
    assert GatewaySettings.load(tmp_path / "empty").port == 3000


def test_every_setting_is_in_the_reference() -> None:
    reference = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    text = reference.read_text(encoding="utf-8")
    missing = [name for name in GatewaySettings.model_fields if f"`{name}`" not in text]
    assert missing == []
