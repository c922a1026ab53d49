"""The ssh configuration: names ssh takes, commands it can run from anywhere, files kept whole."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from underpass.cli.options import Connection, Options
from underpass.cli.ssh import _include, host_alias, proxy_command, ssh_entries

from .conftest import Result

ID = "3f0c2f7e-0000-4000-8000-000000000001"
OTHER = "3f0c2f7e-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    ("name", "alias"),
    [("web-1", "web-1.x"), ("Büro PC #3", "b-ro-pc-3.x"), ("…", f"{ID}.x"), ("a.b", "a.b.x")],
)
def test_aliases(name: str, alias: str) -> None:
    assert host_alias({"id": ID, "hostname": name}, ".x") == alias


def test_entries() -> None:
    machines = [{"id": ID, "name": "web", "hostname": "h"}, {"id": OTHER, "hostname": "web"}]
    command = ["/opt/my programs/underpass", "--server", "https://g%w"]
    text = ssh_entries(machines, command, port=2222, user="root")
    assert "Host web.underpass\n" in text
    assert f"Host {OTHER}.underpass\n" in text  # the name is taken
    assert f"HostKeyAlias underpass-{ID}" in text
    assert "  User root" in text
    line = next(line for line in text.splitlines() if "ProxyCommand" in line)
    assert "g%%w" in line  # ssh expands %
    words = shlex.split(line.replace("%%", "%"))
    assert words == ["ProxyCommand", *command, "ssh-proxy", ID, "2222"]


def test_the_command_is_absolute_and_holds_no_token() -> None:
    options = Options(token="upt_secret", fingerprint="sha256:" + "0" * 64)
    words = proxy_command(options, Connection("https://gw"))
    assert Path(words[0]).is_absolute()
    assert "upt_secret" not in " ".join(words)
    assert words[-2:] == ["--fingerprint", "sha256:" + "0" * 64]


def test_the_include_goes_to_the_top_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    assert not _include(config, add=False)
    config.write_text("Host x\n  Port 1\n")
    assert _include(config, add=True)
    assert _include(config, add=True)
    assert config.read_text() == "Include underpass.conf\n\nHost x\n  Port 1\n"


def test_writing(signed_in: Callable[..., Result], home: Path) -> None:
    result = signed_in("ssh-config", "--write")
    assert "Include underpass.conf" in result.out
    assert (home / ".ssh/underpass.conf").exists()
    assert not (home / ".ssh/config").exists()
    assert signed_in("ssh-config", "--write", "--include", "--json").json["included"]
    assert (home / ".ssh/config").read_text().startswith("Include")


def test_proxy_to_a_machine_that_is_not_there(signed_in: Callable[..., Result]) -> None:
    result = signed_in("ssh-proxy", "nobox")
    assert result.status == 255
    assert "nobox" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_shell_and_exec_on_a_machine_that_is_not_there(signed_in: Callable[..., Result]) -> None:
    for arguments in (("shell", "nobox"), ("exec", "nobox", "--", "true")):
        result = signed_in(*arguments)
        assert result.status == 255
        assert "nobox" in result.err
