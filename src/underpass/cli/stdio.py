"""This process's own stdin, stdout and stderr for asyncio, whatever they are.

Terminals, pipes and plain files all work: a thread reads or writes each, because an event loop
cannot wait for plain files, and non-blocking mode would be shared with whoever else has the
terminal open. The threads are daemons: one that is stuck in a read does not hold up the end.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable

from underpass.links.stream import BufferedStream, StreamReset, WriteGate

__all__ = ["InputPipe", "OutputPipe", "StdioStream"]

_CHUNK = 65536
_READ_HIGH = 4 * _CHUNK
"""Bytes read ahead of whoever takes them."""
_WRITE_HIGH = 8 * _CHUNK
"""Bytes waiting to be written before ``full`` is true."""


class InputPipe:
    """Reads a file descriptor and hands on what comes.

    Args:
        fd: what to read.
        on_data: called in the loop with each piece, and with ``b""`` at the end.
    """

    def __init__(self, fd: int, on_data: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()
        self._go.set()
        self._taken = threading.Event()
        self._stopped = False
        threading.Thread(target=self._read, name=f"read-{fd}", daemon=True).start()

    def pause(self) -> None:
        """Read nothing more for now; one piece may still come."""
        self._go.clear()

    def resume(self) -> None:
        """Go on reading."""
        self._go.set()

    def stop(self) -> None:
        """Hand on nothing more, ever."""
        self._stopped = True
        self._go.set()

    def _read(self) -> None:
        while not self._stopped:
            self._go.wait()
            try:
                data = os.read(self._fd, _CHUNK)
            except OSError:
                data = b""  # closed before we came, or the terminal hung up: nothing more comes
            self._taken.clear()
            try:
                self._loop.call_soon_threadsafe(self._hand_on, data)
            except RuntimeError:
                return  # the loop has ended
            if not data:
                return
            # One piece under way at a time, so that `pause` is never overrun.
            self._taken.wait()

    def _hand_on(self, data: bytes) -> None:
        if not self._stopped:
            self._on_data(data)
        self._taken.set()


class OutputPipe:
    """Writes to a file descriptor without ever blocking the loop.

    Args:
        fd: where to write.
        on_written: called in the loop with the number of bytes each write took.
        on_broken: called in the loop, once, when nobody reads any more.
    """

    def __init__(
        self,
        fd: int,
        on_written: Callable[[int], None] | None = None,
        on_broken: Callable[[OSError], None] | None = None,
    ) -> None:
        self._fd = fd
        self._on_written = on_written
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        # Bounded by its writers: they wait in `drain`, or for credit.
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._gate = WriteGate()
        self._ends = False
        self.waiting = 0
        """Bytes not written yet."""
        self.broken: OSError | None = None
        threading.Thread(target=self._write, name=f"write-{fd}", daemon=True).start()

    @property
    def full(self) -> bool:
        return self.waiting >= _WRITE_HIGH and self.broken is None

    def write(self, data: bytes) -> None:
        """Write *data* after what was given before; dropped when nobody reads any more."""
        if data and self.broken is None:
            self.waiting += len(data)
            self._queue.put(data)

    async def drain(self) -> None:
        """Return when little enough is waiting."""
        while self.full:
            await self._gate.wait()

    async def flush(self) -> None:
        """Return when everything is written, or nobody reads any more."""
        while self.waiting and self.broken is None:
            await self._gate.wait()

    def stop(self) -> None:
        """End the thread after what is waiting."""
        self._queue.put(None)

    def finish(self) -> None:
        """Let whoever reads see the end after what is waiting."""
        self._ends = True
        self.stop()

    def _write(self) -> None:
        while (data := self._queue.get()) is not None:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
                self._tell(self._done, len(data))
            except OSError as error:
                self._tell(self._failed, error)
                return
        if self._ends:
            # Not closed: the number would be given to the next file opened, and written to.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._fd)
            os.close(nowhere)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop has ended; nobody waits for this any more

    def _done(self, count: int) -> None:
        self.waiting -= count
        self._gate.open()
        if self._on_written is not None:
            self._on_written(count)

    def _failed(self, error: OSError) -> None:
        self.broken = error
        self.waiting = 0
        self._gate.open()
        if self._on_broken is not None:
            self._on_broken(error)


class StdioStream(BufferedStream):
    """Stdin and stdout as one stream: what is read comes from stdin, what is written goes out.

    Args:
        stdin, stdout: file descriptors; *stdin* None is an input that has ended already.
    """

    def __init__(self, stdin: int | None = 0, stdout: int = 1) -> None:
        super().__init__()
        self._finished = False
        self._paused = False
        self._out = OutputPipe(stdout, self._written, self._broken)
        self._in = None if stdin is None else InputPipe(stdin, self._read)
        if self._in is None:
            self._ended()

    def _read(self, data: bytes) -> None:
        if not data:
            self._ended()
            return
        self.bytes_in += len(data)
        if self._receiver is not None:
            self._receiver.data(data)
        elif not self.closed:
            self._arrived(data)
            self._steer()

    def _taken(self, count: int) -> None:
        self._steer()

    def _steer(self) -> None:
        if self._in is not None:
            if self._paused or self._buffered >= _READ_HIGH:
                self._in.pause()
            else:
                self._in.resume()

    def _written(self, count: int) -> None:
        if not self._out.full:
            self._open_gate()
            if self._receiver is not None:
                self._receiver.writable()

    def _broken(self, error: OSError) -> None:
        self._lost(StreamReset(f"Nobody reads the output: {error.strerror}.", code="broken_pipe"))

    @property
    def full(self) -> bool:
        return self._out.full

    def send(self, data: bytes | memoryview) -> None:
        if not (self.closed or self._finished):
            self.bytes_out += len(data)
            self._out.write(bytes(data))

    def pause(self) -> None:
        self._paused = True
        self._steer()

    def resume(self) -> None:
        self._paused = False
        self._steer()

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._out.finish()

    async def flush(self) -> None:
        """Return when everything written has left the process."""
        await self._out.flush()

    async def close(self) -> None:
        self._finished = True
        await self._out.flush()
        self.abort("closed", "The stream was closed on this side.")

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        self._finished = True
        if self._in is not None:
            self._in.stop()
        self._out.stop()
        self._lost(StreamReset(message or "The stream was given up.", code=code))
