"""Trunks: how one session's messages travel to the gateway, over a stream or a WebSocket."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.stream import Stream
from underpass.wire.terminal import (
    Control,
    FrameDecoder,
    FrameType,
    decode_control,
    encode_control,
    frame,
    frames,
)

__all__ = ["StreamTrunk", "Trunk", "TrunkLost", "WebSocketTrunk"]


class TrunkLost(Unavailable):
    """The trunk ended before the session did; the session is detached and can be resumed.

    Args:
        let_go: whether the gateway said so itself, rather than a network that failed.
    """

    code = "trunk_lost"

    def __init__(self, message: str, *, let_go: bool = False) -> None:
        super().__init__(message)
        self.let_go = let_go


_LET_GO = "trunk_closed"  # the code a gateway resets a trunk's stream with


class Trunk(Protocol):
    """What a session needs of a trunk. One task sends, one receives; ``abort`` from anywhere."""

    async def send(self, message: bytes | Control) -> None:
        """Send terminal bytes or a control message; waits while the trunk is full.

        Raises:
            TrunkLost: it is over.
        """
        ...

    async def receive(self) -> bytes | Control | None:
        """The next terminal bytes or control message; None when the peer ended it cleanly.

        Raises:
            TrunkLost: it broke.
        """
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent; the peer then ends its side."""
        ...

    async def close(self) -> None:
        """Release the trunk; what was sent still arrives. Idempotent."""
        ...

    def abort(self, code: str, message: str) -> None:
        """End it at once, both ways."""
        ...


class StreamTrunk:
    """A trunk over a stream of a link: framed (``wire/terminal.py``)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder()
        self._received: deque[bytes | Control] = deque()

    async def send(self, message: bytes | Control) -> None:
        try:
            if isinstance(message, bytes):
                for piece in frames(FrameType.BYTES, message):
                    self._stream.write(piece)
            else:
                self._stream.write(frame(FrameType.CONTROL, encode_control(message)))
            await self._stream.drain()
        except UnderpassError as error:
            raise _lost(error) from error

    async def receive(self) -> bytes | Control | None:
        while not self._received:
            try:
                data = await self._stream.read()
                if not data:
                    if self._decoder.mid_frame:
                        raise TrunkLost("The trunk ended in the middle of a message.")
                    return None
                for kind, message in self._decoder.feed(data):
                    # stderr and end-of-stdin frames belong to `exec`; here they mean nothing.
                    if kind in (FrameType.BYTES, FrameType.CONTROL):
                        self._received.append(message)
            except TrunkLost:
                raise
            except UnderpassError as error:
                raise _lost(error) from error
        return self._received.popleft()

    async def finish(self) -> None:
        try:
            await self._stream.write_eof()
        except UnderpassError as error:
            raise _lost(error) from error

    async def close(self) -> None:
        await self._stream.close()

    def abort(self, code: str, message: str) -> None:
        self._stream.abort(code, message)


def _lost(error: UnderpassError) -> TrunkLost:
    return TrunkLost(error.message, let_go=error.code == _LET_GO)


class WebSocketTrunk:
    """A trunk over poll mode's WebSocket: binary = terminal bytes, text = JSON, no framing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def send(self, message: bytes | Control) -> None:
        try:
            if isinstance(message, bytes):
                await self._connection.send(message)
            else:
                await self._connection.send(encode_control(message), text=True)
        except ConnectionClosed as error:
            raise TrunkLost("The gateway closed the connection.") from error

    async def receive(self) -> bytes | Control | None:
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosedOK:
                return None
            except ConnectionClosed as error:
                raise TrunkLost("The connection to the gateway was lost.") from error
            if isinstance(message, bytes):
                if message:
                    return message
            elif (control := decode_control(message)) is not None:
                return control

    async def finish(self) -> None:
        # A WebSocket has no half-close: the exit message is the last word, the gateway closes.
        return None

    async def close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._connection.close()
        except TimeoutError:
            self._connection.transport.abort()

    def abort(self, code: str, message: str) -> None:
        self._connection.transport.abort()
