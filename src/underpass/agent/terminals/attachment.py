"""One trunk's time with a session: what to send and when, and what to do with what comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from underpass.agent.terminals.flow import SessionFlow
from underpass.agent.terminals.trunk import Trunk, TrunkLost
from underpass.core.clock import Clock
from underpass.wire.terminal import (
    Ack,
    Attached,
    Control,
    Credit,
    Exit,
    Failure,
    Ping,
    Pong,
    Resize,
    Terminate,
)

__all__ = ["Attachment", "Terminal"]

_FAREWELL = 10.0
_MAX_PONGS = 16


class Terminal(Protocol):
    """What an attachment needs of its session."""

    flow: SessionFlow

    def input_came(self) -> None:
        """There is input to write."""
        ...

    async def input_room(self) -> None:
        """Wait until input was written, or another trunk took over."""
        ...

    def output_wanted(self) -> None:
        """There may be room to read output again."""
        ...

    def resize(self, cols: int, rows: int) -> None:
        """The person's window has this size now."""
        ...

    def terminated(self, reason: str) -> None:
        """The gateway wants the session to end."""
        ...

    def last_word(self) -> Exit | Failure | None:
        """What to send last, once everything before it was sent."""
        ...


class Attachment:
    """Serves one trunk. Sending and receiving are tasks of their own, so that input and Ctrl-C are
    taken however stuck the output is.

    Attributes:
        wake: set when there may be something to send.
    """

    def __init__(self, trunk: Trunk, terminal: Terminal, clock: Clock) -> None:
        self.wake = asyncio.Event()
        self._trunk = trunk
        self._terminal = terminal
        self._clock = clock
        self._replaced = False
        self._last_word_sent = False
        self._pongs: deque[int | float] = deque(maxlen=_MAX_PONGS)

    def replace(self) -> None:
        """Another trunk takes over: from now on nothing of the session is touched from here."""
        self._replaced = True
        self._trunk.abort("replaced", "The session is shown over a newer connection.")
        self.wake.set()

    async def run(self, attached: Attached) -> bool:
        """Serve until the trunk or the session ends; True when the peer has read it to its end."""
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(attached))
            receiver = group.create_task(self._receive())
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            if self._last_word_sent and not receiver.done():
                # The peer ends its side when it has read everything.
                await asyncio.wait({receiver}, timeout=_FAREWELL)
            read = self._last_word_sent and receiver.done() and receiver.result()
            sender.cancel()
            receiver.cancel()
        return read

    async def _send(self, attached: Attached) -> None:
        trunk, flow = self._trunk, self._terminal.flow
        try:
            await trunk.send(attached)
            while not self._replaced:
                self.wake.clear()
                now = self._clock.monotonic()
                while self._pongs:
                    await trunk.send(Pong(self._pongs.popleft()))
                # A send may have waited, and another trunk may have taken over meanwhile.
                taken = None if self._replaced else flow.due_ack(now)
                if taken is not None:
                    await trunk.send(Ack(taken))
                data = b"" if self._replaced else flow.next_output()
                if data:
                    self._terminal.output_wanted()
                    await trunk.send(data)
                    continue
                last_word = None if self._replaced else self._terminal.last_word()
                if last_word is not None:
                    await trunk.send(last_word)
                    self._last_word_sent = True
                    await trunk.finish()
                    return
                await _wait(self.wake, flow.ack_wait(now))
        except TrunkLost:
            return

    async def _receive(self) -> bool:
        """Take what the trunk brings; True when the peer itself ended it."""
        try:
            while (message := await self._trunk.receive()) is not None:
                if self._replaced:
                    return False
                if isinstance(message, bytes):
                    self._terminal.flow.input(message)
                    self._terminal.input_came()
                    while self._terminal.flow.input_full and not self._replaced:
                        await self._terminal.input_room()
                else:
                    self._control(message)
        except TrunkLost as lost:
            return lost.let_go
        return True

    def _control(self, message: Control) -> None:
        match message:
            case Resize(cols=cols, rows=rows):
                self._terminal.resize(cols, rows)
            case Credit(bytes=count):
                self._terminal.flow.grant(count)
                self._terminal.output_wanted()
                self.wake.set()
            case Ping(t=t):
                self._pongs.append(t)
                self.wake.set()
            case Terminate(reason=reason):
                self._terminal.terminated(reason)
            case _:
                return  # what agents send; nothing to us


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
