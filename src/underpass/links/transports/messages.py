"""Whole messages as a link's transport: for an ASGI WebSocket or any other framework's.

The one port normally accepts link WebSockets itself (``websocket.py``); this is for requests that
reach the web framework all the same, e.g. on a connection a proxy keeps alive::

    await websocket.accept()
    transport = MessageTransport(websocket.receive_bytes, websocket.send_bytes, websocket.close)
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        link = await accept(transport)
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from underpass.links.transports.transport import (
    WRITE_HIGH,
    WRITE_LOW,
    BaseTransport,
    Buffer,
    WriteBatch,
)

__all__ = ["MessageTransport"]


class _Over(Exception):
    """The connection has ended in an orderly way."""


class MessageTransport(BaseTransport):
    """A link's bytes in messages somebody else sends and receives.

    Args:
        receive: waits for the next message; raises at the end of the connection.
        send: sends a message; waits while the connection is busy.
        close: ends the connection in an orderly way.
        peer_address: ``host:port`` of the other end.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        peer_address: str | None = None,
    ) -> None:
        super().__init__("websocket")
        self.peer_address = peer_address
        self._receive = receive
        self._send = send
        self._close = close
        self._batch = WriteBatch(self._queue)
        self._messages: list[bytes] = []
        self._size = 0
        self._wake_sender = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._aborted = asyncio.Event()

    async def run(self) -> None:
        """Move messages until the connection is over; the endpoint runs this beside the link."""
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_receiver())
                group.create_task(self._run_sender())
                group.create_task(self._run_abort())
        except* _Over:
            pass
        except* Exception as failures:  # noqa: BLE001 - whatever it is, the connection is gone
            error = failures.exceptions[0]  # type: ignore[assignment]
        finally:
            self._batch.end(flush=False)
            self._messages.clear()
            self._gone(error)

    async def _run_abort(self) -> None:
        await self._aborted.wait()
        raise _Over

    async def _run_receiver(self) -> None:
        while True:
            await self._may_read.wait()
            data = await self._receive()
            if data:
                self._arrived(data)

    async def _run_sender(self) -> None:
        while True:
            while self._messages:
                message = b"".join(self._messages)
                self._messages.clear()
                await self._send(message)
                self._size -= len(message)
                if self.writing_paused and self._size <= WRITE_LOW:
                    self._resume_sink()
            if self.closing:
                await self._close()
                raise _Over
            self._wake_sender.clear()
            await self._wake_sender.wait()

    # -- Transport ------------------------------------------------------------------------------

    def _set_reading(self, reading: bool) -> None:
        if reading:
            self._may_read.set()
        else:
            self._may_read.clear()

    def _queue(self, data: bytes) -> None:
        self._messages.append(data)
        self._size += len(data)
        self._wake_sender.set()
        if self._size > WRITE_HIGH and not self.writing_paused:
            self._pause_sink()

    def write(self, data: Buffer) -> None:
        self._batch.add(data)

    def writelines(self, parts: Sequence[Buffer]) -> None:
        self._batch.extend(parts)

    def close(self) -> None:
        if not self.closing:
            self._batch.end(flush=True)
            self.closing = True
            self._wake_sender.set()

    def abort(self) -> None:
        self.closing = True
        self._aborted.set()
