"""A deadline around awaiting, at a third of the price of ``asyncio.timeout``.

For what is done for every connection. It cannot be moved or looked at; otherwise it is the same.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Deadline"]


class Deadline:
    """``with Deadline(seconds):`` cancels what is awaited inside and raises TimeoutError.

    To be entered once, inside a task.

    Args:
        seconds: from entering on.

    Raises:
        TimeoutError: on leaving, when the time was up first.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task as well: then that is what counts.
        if (
            self._expired
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error
