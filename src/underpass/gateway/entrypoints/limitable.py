"""A stream that can be put under a limit while a relay runs over it.

Most mappings have no limit, and their bytes should not go through the machinery of one. So this
passes everything straight on until :meth:`LimitableStream.limit` is called.
"""

from __future__ import annotations

from collections.abc import Callable

from underpass.links.stream import CHUNK, Receiver, Stream

__all__ = ["LimitableStream"]


class LimitableStream(Stream):
    """*inner* as it is, or, from a certain moment on, shaped.

    Args:
        inner: owned from now on.

    Attributes:
        shaped, metered: what it was put under; for whoever does.
    """

    def __init__(self, inner: Stream) -> None:
        self.shaped = False
        self.metered = False
        self._now = inner
        self._receiver: Receiver | None = None
        self._paused = False

    def limit(self, shape: Callable[[Stream], Stream]) -> None:
        """From now on everything goes through what *shape* makes of the stream."""
        if self._now.closed:
            return
        self._now = shape(self._now)
        if self._receiver is not None:
            self._now.attach(self._receiver)
        if self._paused:
            self._now.pause()

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return self._now.closed

    @property
    def bytes_in(self) -> int:  # type: ignore[override]
        return self._now.bytes_in

    @property
    def bytes_out(self) -> int:  # type: ignore[override]
        return self._now.bytes_out

    async def read(self, max_bytes: int = CHUNK) -> bytes:
        return await self._now.read(max_bytes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._now.write(data)

    async def drain(self) -> None:
        await self._now.drain()

    async def close(self) -> None:
        await self._now.close()

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        self._now.abort(code, message)

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._now.attach(receiver)

    def pause(self) -> None:
        self._paused = True
        self._now.pause()

    def resume(self) -> None:
        self._paused = False
        self._now.resume()

    def finish(self) -> None:
        self._now.finish()

    def send(self, data: bytes | memoryview) -> None:
        self._now.send(data)

    @property
    def full(self) -> bool:
        return self._now.full
