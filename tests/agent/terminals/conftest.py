"""What terminal tests share: a host whose bash starts without anybody's profile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.agent.terminals.recording_trunk import RecordingTrunk
from underpass.agent.terminals.host import TerminalHost
from underpass.core.clock import ManualClock
from underpass.core.supervisor import Supervisor
from underpass.wire.terminal_requests import PtyRequest

Attach = Callable[[PtyRequest], RecordingTrunk]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".bash_profile").write_text("PS1='ready> '\n")
    return tmp_path


@pytest.fixture
async def host(clock: ManualClock, home: Path) -> AsyncIterator[TerminalHost]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "SHELL": "/bin/bash"}
    host = TerminalHost(login_allowed=lambda name: name == "self", clock=clock, environ=environ)
    yield host
    await host.close()


@pytest.fixture
async def attach(host: TerminalHost) -> AsyncIterator[Attach]:
    """Attach a new trunk, as an opener does; the returned trunk is the test's."""
    async with Supervisor("gateways") as supervisor:

        def attach(request: PtyRequest) -> RecordingTrunk:
            trunk = RecordingTrunk()
            supervisor.start(host.attach(trunk, request), "attach")
            return trunk

        yield attach


async def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait for something that sends nothing to anybody (a process that ends, a file)."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)
