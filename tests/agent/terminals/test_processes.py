"""How programs end, and how whole sessions of them are ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time

import psutil
import pytest

from tests.agent.terminals.conftest import eventually
from underpass.agent.terminals import processes
from underpass.agent.terminals.processes import Program, session_members, signal_name


def start(script: str) -> Program:
    return Program(subprocess.Popen(["/bin/bash", "-c", script], start_new_session=True, stdout=-3))


@pytest.mark.parametrize(
    ("script", "code", "name"), [("exit 7", 7, None), ("kill -TERM $$; sleep 9", None, "SIGTERM")]
)
async def test_an_end_is_learned_and_reaped(
    script: str, code: int | None, name: str | None
) -> None:
    program = start(script)
    await asyncio.wait_for(program.wait(), 10)
    assert (program.code, program.signal) == (code, name)
    assert psutil.Process(program.pid).status() == psutil.STATUS_ZOMBIE
    program.reap()
    program.reap()
    assert not psutil.pid_exists(program.pid)
    assert program.send(signal.SIGTERM) == 0
    program.send_group(signal.SIGTERM)


async def test_without_pidfds_a_thread_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    program = start("exit 5")
    await asyncio.wait_for(program.wait(), 10)
    assert program.code == 5
    program.reap()


async def test_end_takes_the_whole_session() -> None:
    program = start("set -m; sleep 100 & sleep 100 & sleep 100")
    await eventually(lambda: len(session_members(program.pid)) == 4)
    assert len({os.getpgid(pid) for pid in session_members(program.pid)}) > 2
    assert len(session_members(program.pid, without=program.pid)) == 3
    await program.end()
    assert session_members(program.pid) == []
    assert not psutil.pid_exists(program.pid)
    assert program.signal == "SIGHUP"


async def test_end_wakes_what_is_stopped() -> None:
    program = start("kill -STOP $$")
    await eventually(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED)
    begun = time.monotonic()
    await program.end()
    assert program.signal == "SIGHUP"
    assert time.monotonic() - begun < 1.5


async def test_end_of_what_is_over_is_quick() -> None:
    program = start("exit 0")
    await program.wait()
    begun = time.monotonic()
    await program.end()
    assert time.monotonic() - begun < 0.5


async def test_what_sigkill_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_KILL_AFTER", 0.1)
    monkeypatch.setattr(processes, "_GIVE_UP_AFTER", 0.2)
    sent: list[int] = []
    program = start("sleep 100")
    with monkeypatch.context() as stuck:
        stuck.setattr(os, "kill", lambda pid, number: sent.append(number))
        await program.end()
    assert signal.SIGKILL in sent
    os.killpg(program.pid, signal.SIGKILL)
    await eventually(lambda: not psutil.pid_exists(program.pid))


def test_names() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(200) == "SIG200"
