"""A non-blocking file descriptor (pty or pipe) that coroutines can wait on, closed exactly once."""

from __future__ import annotations

import asyncio
import errno
import os

__all__ = ["Descriptor"]


class Descriptor:
    """Owns *fd*: makes it non-blocking, waits for it, closes it.

    One waiter for reading and one for writing at a time. After :meth:`close`, waits end at once
    and reads give ``b""``.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        """The number, -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor and wake whoever waits for it. Idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        if self._readable is not None:
            self._loop.remove_reader(fd)
            _wake(self._readable)
        if self._writable is not None:
            self._loop.remove_writer(fd)
            _wake(self._writable)
        os.close(fd)

    async def readable(self) -> None:
        """Wait until a read would not block (data, end or error), or the descriptor is closed."""
        if self._fd < 0:
            return
        fd = self._fd
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._readable = waiter
        self._loop.add_reader(fd, _wake, waiter)
        try:
            await waiter
        finally:
            self._readable = None
            if self._fd == fd:
                self._loop.remove_reader(fd)

    async def writable(self) -> None:
        """Wait until a write would not block, or the descriptor is closed."""
        if self._fd < 0:
            return
        fd = self._fd
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._writable = waiter
        self._loop.add_writer(fd, _wake, waiter)
        try:
            await waiter
        finally:
            self._writable = None
            if self._fd == fd:
                self._loop.remove_writer(fd)

    def read_now(self, limit: int) -> bytes | None:
        """What is there, at most *limit* bytes; ``b""`` at the end, None when nothing is there."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, limit)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            # EIO is how Linux says that the last program closed its side of the terminal.
            if error.errno in (errno.EIO, errno.ECONNRESET):
                return b""
            raise

    def write_now(self, data: bytes | bytearray | memoryview) -> int | None:
        """Write what fits; how much that was, 0 when nothing fits, None when nobody will read."""
        if self._fd < 0:
            return None
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in (errno.EIO, errno.EPIPE, errno.ECONNRESET):
                return None
            raise

    async def read(self, limit: int) -> bytes:
        """1 to *limit* bytes, or ``b""`` at the end."""
        while (data := self.read_now(limit)) is None:
            await self.readable()
        return data


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
