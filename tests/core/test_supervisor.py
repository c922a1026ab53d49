"""Tasks have owners: what fails is told, what runs is ended, nothing is started too late."""

from __future__ import annotations

import asyncio

import pytest

from underpass.core.supervisor import Supervisor


async def test_closing_cancels_and_waits() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Supervisor("test") as supervisor:
        task = supervisor.start(work(), "work")
        assert task.get_name() == "test:work"
        assert len(supervisor) == 1
        await asyncio.sleep(0)
    assert ended.is_set()
    assert len(supervisor) == 0
    await supervisor.close()


async def test_a_failure_is_told_with_its_name() -> None:
    told: asyncio.Future[tuple[str, BaseException]] = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        raise ValueError("no")

    supervisor = Supervisor("test", lambda name, error: told.set_result((name, error)))
    supervisor.start(fail(), "fails")
    name, error = await asyncio.wait_for(told, 5)
    assert name == "test:fails"
    assert isinstance(error, ValueError)
    assert len(supervisor) == 0
    await supervisor.close()


async def test_a_failure_without_a_listener_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("said so")

    supervisor = Supervisor("test")
    task = supervisor.start(fail(), "fails")
    await asyncio.wait([task], timeout=5)
    await asyncio.sleep(0)
    await supervisor.close()
    shown = capsys.readouterr()
    assert "said so" in shown.out + shown.err


async def test_nothing_starts_after_closing() -> None:
    supervisor = Supervisor("test")
    await supervisor.close()

    async def work() -> None: ...

    coroutine = work()
    with pytest.raises(RuntimeError, match="closed"):
        supervisor.start(coroutine, "late")
    assert coroutine.cr_frame is None


async def test_a_task_may_close_its_own_supervisor() -> None:
    supervisor = Supervisor("test")

    async def last() -> str:
        await supervisor.close()
        return "closed"

    assert await asyncio.wait_for(supervisor.start(last(), "last"), 5) == "closed"


async def test_a_task_that_will_not_end_is_given_up() -> None:
    supervisor = Supervisor("test")
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    task = supervisor.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await asyncio.wait_for(supervisor.close(timeout=0.01), 5)
    assert not task.done()
    let_go.set()
    await asyncio.wait_for(task, 5)
