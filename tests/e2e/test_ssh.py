"""Stock ``ssh``, ``scp`` and ``rsync`` reach the machine's own sshd through its agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port, run
from tests.e2e.test_exec import token_of

STANDING = True
pytestmark = pytest.mark.needs("sshd", "ssh", "scp", "rsync")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A real sshd on a free loopback port; gives the port and the key that opens it."""
    home = tmp_path / "sshd"
    home.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True
        )
    port = free_port()
    (home / "authorized_keys").write_text((home / "user.pub").read_text())
    (home / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile {home}/pid\n"
        f"AuthorizedKeysFile {home}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(home / "config")],
        stdout=subprocess.DEVNULL,
        stderr=(home / "log").open("wb"),
    )
    eventually(lambda: "listening" in (home / "log").read_text(), 10, "sshd listening")
    try:
        yield port, home / "user"
    finally:
        server.terminate()
        server.wait(10)


def test_ssh_scp_and_rsync_with_the_generated_config(
    gateway: GatewayProgram,
    admin: httpx.Client,
    agent: AgentProgram,
    machine: str,
    sshd: tuple[int, Path],
    tmp_path: Path,
) -> None:
    port, key = sshd
    made = run(gateway, tmp_path / "cli", "ssh-config", "--port", str(port), token=token_of(admin))
    assert made.returncode == 0, made.stderr
    config = tmp_path / "ssh_config"
    config.write_text(
        made.stdout.decode()
        + f"\nHost *\n  IdentityFile {key}\n  UserKnownHostsFile {tmp_path}/known\n"
        "  StrictHostKeyChecking accept-new\n  BatchMode yes\n"
    )
    host = next(
        line.split()[1] for line in config.read_text().splitlines() if line.startswith("Host ")
    )
    environment = {
        **os.environ,
        "UNDERPASS_SERVER": gateway.url,
        "UNDERPASS_TOKEN": token_of(admin),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def call(*command: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=60, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("ssh", "-F", str(config), host, "echo $((6*7))") == b"42\n"
    data = os.urandom(3 << 20)
    assert call("ssh", "-F", str(config), host, "cat", data=data) == data
    source = tmp_path / "source.bin"
    source.write_bytes(data)
    call("scp", "-q", "-F", str(config), str(source), f"{host}:{tmp_path}/copied.bin")
    assert (tmp_path / "copied.bin").read_bytes() == data
    call("rsync", "-a", "-e", f"ssh -F {config}", str(source), f"{host}:{tmp_path}/synced/")
    assert (tmp_path / "synced" / "source.bin").read_bytes() == data


def test_ssh_proxy_needs_permission_on_the_machine(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, tmp_path: Path
) -> None:
    stranger = gateway.add_user(admin, "stranger")
    done = run(gateway, tmp_path / "cli", "ssh-proxy", "box", token=token_of(stranger))
    assert done.returncode not in (0, 1)
    assert b"Traceback" not in done.stderr
    assert b"box" in done.stderr
