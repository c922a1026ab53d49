"""A stream on a connection of its own, on the leash of a mux stream.

The bytes are TCP's; the mux stream carries none. While it lives the peer and the link do. When it
is reset the stream is, with the peer's code, which TCP could not tell. And the end of a direction
counts only when both have said it: a program that is killed ends its connections in the same
orderly way, and half a file must not look like a whole one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from underpass.core.errors import UnderpassError
from underpass.links.sockets import SocketStream
from underpass.links.stream import Stream, StreamReset

__all__ = ["CarrierStream"]

CODE_WAIT: Final = 0.5
"""Seconds a broken connection waits for the leash to say why."""
END_WAIT: Final = 10.0
"""Seconds the connection's end waits for the leash's."""


class CarrierStream(SocketStream):
    """A socket stream whose ends are told on a leash, too. See :meth:`hold`."""

    def __init__(self) -> None:
        super().__init__()
        self._leash: Stream | None = None
        self._leash_at_eof = False
        self._ended_here = False  # the connection's receiving half is over
        self._waiting: asyncio.TimerHandle | None = None

    def hold(self, leash: Stream) -> None:
        """Live as long as *leash*, which nobody else uses, and tell it of our ends."""
        if self._error is not None:
            leash.abort(self._error.code, self._error.message)
            return
        self._leash = leash
        leash.attach(_Leash(self))

    # -- told by the leash ------------------------------------------------------------------------

    def leash_ended(self) -> None:
        """The peer has sent everything; it may still be under way."""
        self._leash_at_eof = True
        if self._ended_here:
            self._wait_no_more()
            super()._ended()

    def leash_lost(self, error: UnderpassError) -> None:
        """The peer reset the stream, or the link is over."""
        leash, self._leash = self._leash, None
        if leash is not None:
            super().abort(error.code, error.message)

    # -- ends -------------------------------------------------------------------------------------

    def finish(self) -> None:
        if self._leash is not None and not (self.closed or self._finished):
            self._leash.finish()
        super().finish()

    def _ended(self) -> None:
        self._ended_here = True
        if self._leash_at_eof:
            super()._ended()
        else:
            text = "The connection ended, and the peer does not say that this is the end."
            self._give_up_after(END_WAIT, StreamReset(text, code="connection_lost"))

    def _lost(self, error: UnderpassError) -> None:
        over = self._leash is None or (self._leash_at_eof and self._finished)
        if error.code == "connection_lost" and not over:
            # The peer's reset, with its code, comes another way and may be a little behind.
            self._wait_no_more()
            self._give_up_after(CODE_WAIT, error)
            return
        self._wait_no_more()
        super()._lost(error)

    def _give_up_after(self, seconds: float, error: UnderpassError) -> None:
        if self._waiting is None:
            self._waiting = self._loop.call_later(seconds, self.abort, error.code, error.message)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def close(self) -> None:
        leash, self._leash = self._leash, None
        await super().close()
        if leash is not None:
            await leash.close()

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        leash, self._leash = self._leash, None
        if leash is not None:
            leash.abort(code, message)  # first: it says why
        super().abort(code, message)


class _Leash:
    """Receives what the leash's mux stream pushes."""

    def __init__(self, stream: CarrierStream) -> None:
        self._stream = stream

    def data(self, chunk: bytes | memoryview) -> None:
        self._stream.abort("bad_carrier", "The peer sent bytes where none belong.")

    def eof(self) -> None:
        self._stream.leash_ended()

    def lost(self, error: UnderpassError) -> None:
        self._stream.leash_lost(error)

    def writable(self) -> None:
        """Nothing is ever written to it."""
