"""A viewer: one socket's place in a hub, and what to send it next."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underpass.control.subject import Subject
from underpass.gateway.terminals.hub_core import Cursor, Role, Skip
from underpass.wire.terminal import Exit

if TYPE_CHECKING:
    from underpass.gateway.terminals.hub import Hub

__all__ = ["Outcome", "Viewer", "exit_message"]

_MAX_NOTICES = 256
_BORROW = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        status: ``closed`` or ``error``, as the row will say.
        exit: the program's own end, if it was that.
        code, message: what people are told when it was something else.
        close_code: of their sockets.
        tell_agent: the reason the agent is given to end the program; None = it knows.
    """

    status: str
    exit: Exit | None = None
    code: str = ""
    message: str = ""
    close_code: int = 1000
    tell_agent: str | None = None


class Viewer:
    """One socket's place in a hub: what to send it next. The socket's shell pulls from it.

    Attributes:
        over: set when this viewer gets nothing more than what :meth:`next` still gives.
    """

    def __init__(self, hub: Hub, subject: Subject, cursor: Cursor) -> None:
        self.hub = hub
        self.subject = subject
        self.cursor = cursor
        self.wake = asyncio.Event()
        self.over = asyncio.Event()
        self.reading_paused = False
        self._notices: deque[dict[str, Any]] = deque(maxlen=_MAX_NOTICES)
        self._end: Outcome | None = None
        self._borrowed = 0

    @property
    def role(self) -> Role:
        return self.cursor.role

    @property
    def may_write(self) -> bool:
        """Whether it may type and resize."""
        return self.cursor.role != "observer"

    @property
    def end(self) -> Outcome | None:
        """How it ended for this viewer; known once :meth:`next` has given everything."""
        return self._end

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a control message; it goes before terminal bytes."""
        self._notices.append(message)
        self.wake.set()

    def cut(self, outcome: Outcome) -> None:
        """End this viewer now, whatever output is left."""
        if self._end is None:
            self._end = outcome
            self._notices.append(
                {"type": "error", "code": outcome.code, "message": outcome.message}
            )
            self.over.set()
            self.wake.set()

    def credit(self, count: int) -> None:
        """The client takes *count* bytes more."""
        repaid = min(self._borrowed, max(count, 0))
        self._borrowed -= repaid
        self.cursor.grant(count - repaid)
        self.wake.set()
        self.hub.progress()

    def next(self) -> bytes | dict[str, Any] | None:
        """What to send now; None = nothing yet (see :attr:`wake`) or, if :attr:`end`, ever."""
        if self._notices:
            return self._notices.popleft()
        if self._end is not None:
            return None
        core = self.hub.core
        self._borrow()
        found = core.take(self.cursor)
        if isinstance(found, Skip):
            return self.hub.resumed(found.offset)
        if found is not None:
            if self.cursor is core.owner:
                self.hub.progress()
            return found
        outcome = self.hub.announced
        if outcome is not None and (outcome.exit is None or core.finished(self.cursor)):
            self._end = outcome
            if outcome.exit is None:
                return {"type": "error", "code": outcome.code, "message": outcome.message}
            return exit_message(outcome.exit)
        return None

    def _borrow(self) -> None:
        # A browser that is not read (its input is full) can't grant credit, and a program that
        # can't print does not read its input. Plain back-pressure must do meanwhile.
        cursor = self.cursor
        if self.reading_paused and cursor.limit is not None and cursor.offset >= cursor.limit:
            self._borrowed += _BORROW
            cursor.limit += _BORROW


def exit_message(end: Exit) -> dict[str, Any]:
    """The ``exit`` message a person's terminal gets."""
    message: dict[str, Any] = {"type": "exit", "code": end.code}
    if end.signal is not None:
        message["signal"] = end.signal
    return message
