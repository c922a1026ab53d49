"""A trunk without a network: the test plays the gateway, with as much credit as it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from underpass.agent.terminals.trunk import TrunkLost
from underpass.wire.terminal import Ack, Attached, Control, Exit, Failure, Pong

DEADLINE = 15.0


class RecordingTrunk:
    """What the session sends is kept; what the test :meth:`give`s is received."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.controls: list[Control] = []
        self.aborted: str | None = None
        self.closed = False
        self._inbox: asyncio.Queue[bytes | Control | TrunkLost | None] = asyncio.Queue()
        self._changed = asyncio.Event()

    # -- Trunk ----------------------------------------------------------------------------------

    async def send(self, message: bytes | Control) -> None:
        if self.aborted is not None:
            raise TrunkLost("aborted")
        if isinstance(message, bytes):
            self.output += message
        else:
            self.controls.append(message)
            if isinstance(message, Exit | Failure):
                self._inbox.put_nowait(None)  # a gateway closes when it has read the last word
        self._changed.set()
        await asyncio.sleep(0)

    async def receive(self) -> bytes | Control | None:
        message = await self._inbox.get()
        if isinstance(message, TrunkLost):
            raise message
        return message

    async def finish(self) -> None:
        return None

    async def close(self) -> None:
        self.closed = True
        self._changed.set()

    def abort(self, code: str, message: str) -> None:
        self.aborted = code
        self._inbox.put_nowait(TrunkLost(code))
        self._changed.set()

    # -- the test's side ------------------------------------------------------------------------

    def give(self, *messages: bytes | Control) -> None:
        """Let the session receive *messages*."""
        for message in messages:
            self._inbox.put_nowait(message)

    def lose(self) -> None:
        """Break the connection."""
        self._inbox.put_nowait(TrunkLost("lost"))

    def end(self) -> None:
        """End it cleanly from the gateway's side."""
        self._inbox.put_nowait(None)

    async def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait until *condition* holds, looking whenever something was sent."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not condition():
                    self._changed.clear()
                    if not condition():
                        await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{what} did not come; output ends {bytes(self.output[-200:])!r}, "
                f"controls {self.controls[-3:]}"
            ) from None

    async def shows(self, text: bytes) -> None:
        """Wait until *text* was printed."""
        await self.until(lambda: text in self.output, repr(text))

    async def last_word(self) -> Exit | Failure:
        """Wait for the exit or failure."""
        await self.until(lambda: bool(self._last()), "the exit")
        return self._last()[0]

    def _last(self) -> list[Exit | Failure]:
        return [m for m in self.controls if isinstance(m, Exit | Failure)]

    @property
    def attached(self) -> Attached:
        first = self.controls[0]
        assert isinstance(first, Attached)
        return first

    @property
    def acked(self) -> int:
        return max((m.input for m in self.controls if isinstance(m, Ack)), default=0)

    @property
    def pongs(self) -> list[int | float]:
        return [m.t for m in self.controls if isinstance(m, Pong)]
