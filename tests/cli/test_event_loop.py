"""A program that cannot start is one line and status 2, on either loop."""

from __future__ import annotations

import asyncio

import pytest

from underpass.cli import exits
from underpass.cli.event_loop import run_loop
from underpass.core.errors import InvalidRequest


@pytest.mark.parametrize("loop", ["asyncio", ""])
def test_runs_and_gives_the_status(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("UNDERPASS_LOOP", loop)
    names: list[str] = []

    async def program() -> int:
        names.append(type(asyncio.get_running_loop()).__module__)
        return 7

    assert run_loop(program) == 7
    assert names[0].startswith("asyncio") == (loop == "asyncio")


def test_failures(capsys: pytest.CaptureFixture[str]) -> None:
    async def refused() -> int:
        raise InvalidRequest("The state directory is a file.", hint="Choose another.")

    async def interrupted() -> int:
        raise KeyboardInterrupt

    assert run_loop(refused) == exits.USAGE
    assert capsys.readouterr().err == (
        "underpass: The state directory is a file. Choose another.\n"
    )
    assert run_loop(interrupted) == exits.INTERRUPTED
