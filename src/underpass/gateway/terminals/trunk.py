"""The gateway's end of a trunk: one session's bytes and control messages to and from its agent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from underpass.core.errors import Unavailable
from underpass.links.stream import Stream, StreamReset
from underpass.wire.terminal import (
    MAX_FRAME,
    Control,
    FrameDecoder,
    FrameType,
    TerminalFrameError,
    decode_control,
    encode_control,
    frame,
    frames,
)

__all__ = ["SocketTrunk", "StreamTrunk", "Trunk", "TrunkLost"]

_PENDING = 256 * 1024


class TrunkLost(Unavailable):
    """The way to the agent is gone; the session may live on there."""

    code = "trunk_lost"


class Trunk(Protocol):
    """What a hub needs of the way to its agent. One reader, one writer."""

    address: str | None
    """The agent's address, when known."""

    async def receive(self) -> list[bytes | Control]:
        """What came; never empty. Raises TrunkLost at the end."""
        ...

    def send(self, message: bytes | Control) -> None:
        """Queue input bytes or a control message; :meth:`drain` bounds the queue."""
        ...

    async def drain(self) -> None:
        """Return when little enough waits to be sent. Raises TrunkLost."""
        ...

    async def finish(self) -> None:
        """End it cleanly: everything was read. The agent may then forget the session."""
        ...

    def abort(self) -> None:
        """Give it up at once; the agent keeps the session for its grace. Idempotent."""
        ...


class StreamTrunk:
    """A trunk over a stream of the agent's link."""

    def __init__(self, stream: Stream, address: str | None = None) -> None:
        self.address = address
        self._stream = stream
        self._decoder = FrameDecoder()

    async def receive(self) -> list[bytes | Control]:
        while True:
            try:
                data = await self._stream.read()
                if not data:
                    raise TrunkLost("The agent closed the terminal's stream.")
                found = self._decoder.feed(data)
            except (StreamReset, TerminalFrameError) as error:
                self.abort()
                raise TrunkLost(error.message) from None
            messages = [body for kind, body in found if kind != FrameType.STDIN_EOF]
            if messages:
                return messages

    def send(self, message: bytes | Control) -> None:
        if isinstance(message, bytes):
            for piece in frames(FrameType.BYTES, message):
                self._stream.write(piece)
        else:
            self._stream.write(frame(FrameType.CONTROL, encode_control(message)))

    async def drain(self) -> None:
        try:
            await self._stream.drain()
        except StreamReset as error:
            raise TrunkLost(error.message) from None

    async def finish(self) -> None:
        await self._stream.close()

    def abort(self) -> None:
        self._stream.abort("trunk_closed", "The gateway let go of the terminal's stream.")


class SocketTrunk:
    """A trunk over the poll mode's WebSocket: binary is bytes, text is JSON."""

    def __init__(self, websocket: WebSocket, address: str | None = None) -> None:
        self.address = address
        self._websocket = websocket
        self._out: deque[bytes | Control] = deque()
        self._size = 0
        self._lost = False
        self.released = asyncio.Event()
        """Set when the hub needs the socket no more; whoever accepted it then closes it."""

    async def receive(self) -> list[bytes | Control]:
        while not self._lost:
            try:
                message = await self._websocket.receive()
            except (WebSocketDisconnect, RuntimeError):
                break
            if message["type"] != "websocket.receive":
                break
            data = message.get("bytes")
            if data:
                return [data]
            text = message.get("text")
            control = decode_control(text) if text else None
            if control is not None:
                return [control]
        self.abort()
        raise TrunkLost("The agent closed the relay socket.")

    def send(self, message: bytes | Control) -> None:
        # The hub drains after every round, and its input is capped: this only guards against us.
        if self._size > _PENDING:
            raise TrunkLost("The relay socket does not take what is sent.")
        self._out.append(message)
        self._size += len(message) if isinstance(message, bytes) else 64

    async def drain(self) -> None:
        while self._out:
            message = self._out.popleft()
            try:
                if isinstance(message, bytes):
                    for position in range(0, len(message), MAX_FRAME):
                        await self._websocket.send_bytes(message[position : position + MAX_FRAME])
                else:
                    await self._websocket.send_text(encode_control(message).decode())
            except (WebSocketDisconnect, RuntimeError, OSError):
                self._lost = True
                raise TrunkLost("The agent closed the relay socket.") from None
        self._size = 0

    async def finish(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._lost = True
        self.released.set()
