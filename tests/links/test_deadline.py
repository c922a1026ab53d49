"""Deadlines: the time is up, it is not, and somebody else cancels."""

from __future__ import annotations

import asyncio

import pytest

from tests.links.loops import anyio_backend  # noqa: F401
from underpass.links.deadline import Deadline


async def test_time_is_up() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError):
        with Deadline(0.001):
            await asyncio.Event().wait()
    assert not task.cancelling()
    await asyncio.sleep(0)  # and nothing is left of it


async def test_in_time() -> None:
    with Deadline(0.001):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # the timer is gone


async def test_an_error_inside_is_the_error() -> None:
    with pytest.raises(ValueError, match="mine"):
        with Deadline(10):
            raise ValueError("mine")


async def test_somebody_else_cancels() -> None:
    async def wait() -> None:
        with Deadline(10):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_of_two_is_the_one() -> None:
    with Deadline(10):
        with pytest.raises(TimeoutError):
            with Deadline(0.001):
                await asyncio.Event().wait()
        await asyncio.sleep(0)


def test_outside_a_loop() -> None:
    with pytest.raises(RuntimeError, match="loop"):
        Deadline(1).__enter__()
