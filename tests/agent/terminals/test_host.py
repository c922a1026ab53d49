"""The host: caps, policy on every resume, closing, and nothing left after 200 sessions."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.agent.started import started
from tests.agent.terminals.conftest import Attach, eventually
from tests.agent.terminals.recording_trunk import RecordingTrunk
from underpass.agent.terminals import host as hosts
from underpass.agent.terminals.host import TerminalHost
from underpass.core.clock import ManualClock
from underpass.core.errors import Forbidden, Gone, TooManyRequests, Unavailable
from underpass.wire.terminal import Failure, Terminate
from underpass.wire.terminal_requests import PtyRequest


async def test_a_cap_on_sessions(home: Path) -> None:
    host = TerminalHost(
        login_allowed=lambda name: True, max_sessions=2, environ={"HOME": str(home)}
    )
    await host.prepare(PtyRequest(session_id="a", command="cat"))
    await host.prepare(PtyRequest(session_id="b", command="cat"))
    with pytest.raises(TooManyRequests) as caught:
        await host.prepare(PtyRequest(session_id="c"))
    assert caught.value.code == "too_many_sessions"
    await host.close()


async def test_policy_is_asked_again_on_resume(home: Path) -> None:
    allowed = True
    host = TerminalHost(login_allowed=lambda name: allowed, environ={"HOME": str(home)})
    await host.prepare(PtyRequest(session_id="a", command="cat"))
    allowed = False
    with pytest.raises(Forbidden) as caught:
        await host.prepare(PtyRequest(session_id="a", offset=0))
    assert caught.value.code == "login_forbidden"
    await host.close()


async def test_closing_tells_everybody_and_ends_everything(
    host: TerminalHost, attach: Attach
) -> None:
    trunks = [attach(PtyRequest(session_id=str(n), command="echo on; sleep 100")) for n in range(3)]
    for trunk in trunks:
        await trunk.shows(b"on")
    pids = [trunk.attached.pid for trunk in trunks]
    begun = time.monotonic()
    await host.close()
    assert time.monotonic() - begun < 5
    for trunk in trunks:
        end = await trunk.last_word()
        assert isinstance(end, Failure)
        assert end.code == "agent_stopping"
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert len(host) == 0
    await host.close()
    with pytest.raises(Unavailable) as caught:
        await host.prepare(PtyRequest(session_id="later"))
    assert caught.value.code == "agent_stopping"


async def test_windows_is_refused(host: TerminalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "pty_supported", lambda: False)
    with pytest.raises(Unavailable) as caught:
        await host.prepare(PtyRequest(session_id="a"))
    assert caught.value.code == "pty_unsupported"


async def test_an_account_database_that_hangs(
    host: TerminalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_LOGIN_TIMEOUT", 0.05)
    monkeypatch.setattr(hosts, "choose_login", lambda *_, **__: time.sleep(0.3))
    with pytest.raises(Unavailable) as caught:
        await host.prepare(PtyRequest(session_id="a"))
    assert caught.value.code == "login_lookup_timeout"


async def test_why_a_session_is_gone_is_remembered(host: TerminalHost, attach: Attach) -> None:
    trunk = attach(PtyRequest(session_id="a", command="exit 3"))
    await trunk.last_word()
    await eventually(lambda: len(host) == 0)
    with pytest.raises(Gone, match="its program ended \\(exit code 3\\)") as caught:
        await host.prepare(PtyRequest(session_id="a", offset=0))
    assert caught.value.code == "session_gone"
    with pytest.raises(Gone, match="not running here"):
        await host.prepare(PtyRequest(session_id="b", offset=0))


async def test_epitaphs_are_few(host: TerminalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_MAX_EPITAPHS", 2)
    for name in "abc":
        host._remember(name, "x")
    assert list(host._epitaphs) == ["b", "c"]


async def test_terminate_forgets_what_nobody_will_read(
    host: TerminalHost, attach: Attach, clock: ManualClock
) -> None:
    running = await host.prepare(PtyRequest(session_id="a", command="sleep 100"))
    assert host.terminate("a", "by admin")
    await running.wait_ended()
    host.sweep()
    over = await host.prepare(PtyRequest(session_id="b", command="exit 1"))
    await over.wait_ended()
    assert len(host) == 1
    assert host.terminate("b", "unknown to the gateway")
    assert len(host) == 0
    assert not host.terminate("b", "again")
    with pytest.raises(Gone, match="by admin"):
        await host.prepare(PtyRequest(session_id="a", offset=0))


async def test_a_gateway_that_terminates_and_leaves(host: TerminalHost, attach: Attach) -> None:
    trunk = attach(PtyRequest(session_id="a", command="echo on; trap '' HUP; sleep 100"))
    await trunk.shows(b"on")
    trunk.give(Terminate("by admin"))
    trunk.lose()
    await eventually(lambda: host.tty_status()["active_sessions"] == 0)
    host.sweep()
    assert len(host) == 0


async def test_exited_sessions_nobody_reads_are_few(
    host: TerminalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_MAX_EXITED", 2)
    for name in "abcd":
        session = await host.prepare(PtyRequest(session_id=name, command="true"))
        await session.wait_ended()
    host.sweep()
    assert [entry["session_id"] for entry in host.announce()] == ["c", "d"]


async def test_the_sweep_runs_by_itself(
    host: TerminalHost, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_SWEEP", 0.01)
    session = await host.prepare(PtyRequest(session_id="a", command="exit 0", grace=5.0))
    await session.wait_ended()
    clock.advance(6)
    await eventually(lambda: len(host) == 0)


def session_tasks() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("terminals:session", "terminals:end"))]


async def test_two_hundred_sessions_leave_nothing(home: Path) -> None:
    host = TerminalHost(login_allowed=lambda name: True, environ={"HOME": str(home)})

    async def one(number: int) -> None:
        trunk = RecordingTrunk()
        request = PtyRequest(session_id=str(number), command=f"echo {number}; read x")
        async with asyncio.TaskGroup() as group:
            group.create_task(host.attach(trunk, request))
            await trunk.shows(b"%d\r\n" % number)
            match number % 4:
                case 0:
                    trunk.give(b"\n")  # the program ends
                case 1:
                    trunk.give(Terminate("test"))
                case 2:
                    trunk.lose()
                    host.terminate(str(number), "test")
                case _:
                    trunk.end()
                    host.terminate(str(number), "test")

    await one(0)
    await eventually(lambda: len(host) == 0 and not session_tasks())
    descriptors, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    for first in range(0, 200, 20):
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + 20):
                group.create_task(one(number))
    await eventually(lambda: host.tty_status()["active_sessions"] == 0)
    host.sweep()
    assert len(host) == 0
    await eventually(lambda: not session_tasks() and len(asyncio.all_tasks()) <= tasks)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert started() == []
    await host.close()
