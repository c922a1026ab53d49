"""Owned background tasks: each has a name, an owner that ends it, and a place its failure shows.

Bare ``asyncio.create_task`` is banned by lint; this is what to use where an ``asyncio.TaskGroup``
does not fit, because one failure must not cancel its siblings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

__all__ = ["Supervisor"]

_log = structlog.get_logger(__name__)


class Supervisor:
    """Runs background tasks until it is closed; then cancels what is left and waits for it.

    Args:
        name: shown in logs and task names, e.g. ``"gateway"``.
        on_failure: called with (task name, exception) when a task ends by an exception; the
            default logs it.
    """

    def __init__(
        self, name: str, on_failure: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._on_failure = on_failure

    def __len__(self) -> int:
        """How many tasks are running (a gauge that must return to zero)."""
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start *coroutine* as a task this supervisor owns.

        Raises:
            RuntimeError: after :meth:`close`; the coroutine is closed, not leaked.
        """
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"supervisor {self.name!r} is closed")
        loop = asyncio.get_running_loop()
        task = loop.create_task(coroutine, name=f"{self.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)
        else:
            _log.error("task_failed", task=task.get_name(), exc_info=error)

    def cancel(self) -> None:
        """Cancel every task but the one that asks, without waiting for them."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def close(self, timeout: float = 5.0) -> None:
        """Cancel every task and wait at most *timeout* seconds for them. Safe to call twice."""
        self._closed = True
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=timeout)
            for task in stuck:
                _log.error("task_stuck", task=task.get_name())

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
