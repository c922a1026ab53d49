"""The gateway's keys: stable, private, one thing to back up, and noticed when they are wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from underpass.core.settings import GatewaySettings, SettingsError
from underpass.gateway.secrets import GatewaySecrets, check_database_key, prepare_state
from underpass.store.db.database import Database


def _load(state: Path, **settings: str) -> GatewaySecrets:
    return GatewaySecrets.load(GatewaySettings(state=state, **settings))  # type: ignore[arg-type]


def _private(secrets: GatewaySecrets) -> bytes:
    return secrets.node_key.private_bytes_raw()


def test_keys_are_the_same_after_a_restart(tmp_path: Path) -> None:
    one, two = _load(tmp_path / "a"), _load(tmp_path / "a")
    other = _load(tmp_path / "b")
    assert one.database_key == two.database_key != other.database_key
    assert _private(one) == _private(two) != _private(other)
    assert one.node_id == two.node_id != other.node_id
    assert one.database_key != _private(one), "one key, one purpose"
    assert one.key_fingerprint.startswith("sha256:")
    assert len(one.public_key) == 32


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    _load(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    files = list(state.iterdir())
    assert {file.name for file in files} == {"secret_key", "node_id"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_shared_secret_key_gives_shared_keys_and_own_ids(tmp_path: Path) -> None:
    one = _load(tmp_path / "a", secret_key="k" * 32)
    two = _load(tmp_path / "b", secret_key="k" * 32)
    assert one.database_key == two.database_key
    assert one.public_key == two.public_key
    assert one.node_id != two.node_id
    assert not (tmp_path / "a" / "secret_key").exists()
    assert _load(tmp_path / "a", secret_key="j" * 32).database_key != one.database_key


@pytest.mark.parametrize("content", ["", "zz", "00" * 16, "\xff"])
def test_damage_is_said_and_not_repaired(tmp_path: Path, content: str) -> None:
    _load(tmp_path)
    (tmp_path / "secret_key").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match="damaged"):
        _load(tmp_path)


def test_a_damaged_node_id_is_said(tmp_path: Path) -> None:
    _load(tmp_path)
    (tmp_path / "node_id").write_text("../x")
    with pytest.raises(SettingsError, match="damaged"):
        _load(tmp_path)


def test_a_state_directory_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for state in (file, file / "below", Path("/proc/underpass")):
        with pytest.raises(SettingsError) as caught:
            prepare_state(state)
        assert "can't be written" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_two_that_start_at_once_agree(tmp_path: Path) -> None:
    real = os.link

    def slow(source: Path, target: Path) -> None:
        Path(target).write_text("ab" * 32)  # the other one was here in between
        real(source, target)

    os.link = slow  # type: ignore[assignment]
    try:
        secrets = None
        with pytest.raises(SettingsError):  # node_id gets the same text, which is no id
            secrets = _load(tmp_path)
        assert secrets is None
    finally:
        os.link = real
    assert (tmp_path / "secret_key").read_text() == "ab" * 32


async def test_a_database_of_another_key_is_noticed(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'x.db'}")
    try:
        await check_database_key(database, b"a" * 32, 0.0)
        await check_database_key(database, b"a" * 32, 1.0)
        with pytest.raises(SettingsError, match="another SECRET_KEY"):
            await check_database_key(database, b"b" * 32, 2.0)
    finally:
        await database.close()
