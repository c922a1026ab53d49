"""Commands that stay end by signals and by failures, each with its status."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from underpass.cli import exits
from underpass.cli.options import Options
from underpass.cli.tunnel_options import Stopping, run_until_stopped
from underpass.core.errors import Forbidden, Unauthenticated, UnderpassError


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, exits.OK), (signal.SIGINT, exits.INTERRUPTED)]
)
def test_signals_end_it(number: signal.Signals, status: int) -> None:
    seen: list[str] = []

    async def program(stopping: Stopping) -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await stopping.wait(asyncio.get_running_loop().create_future())
        finally:
            seen.append("cleaned up")

    before = signal.getsignal(number)
    assert run_until_stopped(Options(), program) == status
    assert seen == ["cleaned up"]
    assert signal.getsignal(number) == before


def test_what_fails_for_good_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def program(stopping: Stopping) -> None:
        failing: asyncio.Future[UnderpassError] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failing.set_result, Unauthenticated("Signed out."))
        await stopping.wait(failing)

    assert run_until_stopped(Options(), program) == exits.REFUSED
    assert capsys.readouterr().err == "underpass: Signed out.\n"


def test_what_cannot_start_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def program(stopping: Stopping) -> None:
        raise Forbidden("Not you.")

    assert run_until_stopped(Options(json=True), program) == exits.FORBIDDEN
    assert '"forbidden"' in capsys.readouterr().out
