"""``underpass exec`` carries bytes, errors and exit codes as if the command ran here."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from tests.e2e.programs import GatewayProgram, run

STANDING = True


def token_of(client: httpx.Client) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


def test_ten_mebibytes_come_back_byte_identical(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, tmp_path: Path
) -> None:
    data = os.urandom(10 << 20)
    done = run(
        gateway, tmp_path / "cli", "exec", "box", "--", "cat", token=token_of(admin), stdin=data
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_exit_codes_and_stderr_pass_through(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, tmp_path: Path
) -> None:
    done = run(
        gateway, tmp_path / "cli", "exec", "box", "--", "sh", "-c",
        "echo out; echo err >&2; exit 7",
        token=token_of(admin),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_machine_that_is_not_there_is_one_clear_line(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, tmp_path: Path
) -> None:
    done = run(gateway, tmp_path / "cli", "exec", "nobox", "--", "true", token=token_of(admin))
    assert done.returncode not in (0, 1)
    assert b"nobox" in done.stderr
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
