"""Spawning: errors are named, privileges dropped, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path

import pytest

from tests.agent.started import started
from underpass.agent.terminals import pty as ptys
from underpass.agent.terminals.login import DEFAULT_PATH, Login, choose_login, own_login
from underpass.agent.terminals.pty import Pty, spawn
from underpass.core.errors import Internal, Unavailable

ENVIRONMENT = {"PATH": DEFAULT_PATH}


async def output(pty: Pty) -> str:
    text = b""
    async with asyncio.timeout(10):
        while data := await pty.master.read(65536):
            text += data
        await pty.program.wait()
    await pty.close()
    return text.decode()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("program", ["/nonexistent/shell", "/etc/passwd", "/"])
async def test_a_program_that_cannot_start_is_an_error_with_its_reason(program: str) -> None:
    before, children = descriptors(), len(started())
    with pytest.raises(Internal, match="did not start \\(program: ") as caught:
        await spawn(own_login(), program, ["x"], ENVIRONMENT, cols=80, rows=24)
    assert caught.value.code == "spawn_failed"
    assert descriptors() == before
    assert len(started()) == children


async def test_a_directory_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    own = own_login()
    login = Login(own.name, own.uid, own.gid, own.groups, str(tmp_path / "no"), own.shell, True)
    pty = await spawn(login, "/bin/pwd", ["pwd"], ENVIRONMENT, cols=80, rows=24)
    assert await output(pty) == "/\r\n"


async def test_running_as_somebody_else_drops_everything() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs root, as CI has")
    entry = pwd.getpwnam("nobody")
    login = Login(
        entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_gid,), "/nonexistent", "/bin/sh",
        is_self=False,
    )  # fmt: skip
    script = (
        "id -u; id -g; id -G; stat -c %U $(tty); pwd; (: > /root/owned); echo $?; "
        "grep -E '^Cap(Prm|Eff)' /proc/self/status"
    )
    pty = await spawn(login, "/bin/sh", ["sh", "-c", script], ENVIRONMENT, cols=80, rows=24)
    lines = (await output(pty)).split("\r\n")
    uid, gid = str(entry.pw_uid), str(entry.pw_gid)
    assert lines[:5] == [uid, gid, gid, "nobody", "/"]
    assert "denied" in lines[5]
    assert lines[6] != "0"
    assert lines[7:9] == ["CapPrm:\t" + "0" * 16, "CapEff:\t" + "0" * 16]


async def test_a_login_from_the_account_database() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs root, as CI has")
    login = choose_login("nobody", lambda name: True)
    pty = await spawn(login, "/usr/bin/id", ["id", "-un"], ENVIRONMENT, cols=80, rows=24)
    assert await output(pty) == "nobody\r\n"


async def test_the_environment_is_exactly_what_was_given() -> None:
    pty = await spawn(own_login(), "/usr/bin/env", ["env"], {"A": "1"}, cols=80, rows=24)
    assert set((await output(pty)).split("\r\n")) - {""} == {"A=1"}


async def test_no_more_ptys_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "openpty", none_left)
    with pytest.raises(Unavailable, match="No space left") as caught:
        await spawn(own_login(), "/bin/true", ["true"], {}, cols=80, rows=24)
    assert caught.value.code == "pty_exhausted"


async def test_no_more_processes_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()

    def none_left(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(ptys.subprocess, "Popen", none_left)
    with pytest.raises(Unavailable, match="Resource temporarily"):
        await spawn(own_login(), "/bin/true", ["true"], {}, cols=80, rows=24)
    assert descriptors() == before


async def test_windows_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptys.sys, "platform", "win32")
    with pytest.raises(Unavailable, match="Windows") as caught:
        await spawn(own_login(), "/bin/true", ["true"], {}, cols=80, rows=24)
    assert caught.value.code == "pty_unsupported"


async def test_a_cancelled_spawn_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            spawn(own_login(), "/bin/sleep", ["sleep", "9"], {}, cols=80, rows=24)
        )
        await asyncio.sleep(0)
        task.cancel()
    assert descriptors() == before
    assert started() == []


async def test_a_start_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(ptys, "_CHILD", str(slow))
    monkeypatch.setattr(ptys, "_START_TIMEOUT", 0.1)
    with pytest.raises(Internal, match="in time"):
        await spawn(own_login(), "/bin/true", ["true"], {}, cols=80, rows=24)
    assert started() == []


async def test_an_unchanged_size_is_not_set_again() -> None:
    pty = await spawn(own_login(), "/bin/cat", ["cat"], ENVIRONMENT, cols=80, rows=24)
    assert not pty.resize(80, 24)
    assert pty.resize(81, 24)
    assert not pty.resize(81, 24)
    await pty.close()
    assert not pty.resize(1, 1)
    await pty.close()
