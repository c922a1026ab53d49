"""Sockets as streams: what an entry point accepts and an opener connects.

The owner of a :class:`SocketStream` ends it with ``close`` or ``abort`` on every path, also when
the peer has long gone: uvloop corrupts memory when half-closed transports are dropped unclosed
(measured with uvloop 0.21 to 0.23).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, Final, cast

from underpass.core.errors import Unavailable
from underpass.links.deadline import Deadline
from underpass.links.stream import BufferedStream, StreamReset
from underpass.links.transports.connection import FULL_READ, is_local

__all__ = ["SocketStream", "connect_tcp", "connect_unix", "stream_on"]

_READ_HIGH: Final = 256 << 10
"""Bytes kept for a slow reader before the socket is no longer read."""
_WRITE_HIGH: Final = 512 << 10
_LINGER: Final = 30.0
"""Seconds a closed socket may take to send what was written."""


_NO_LINGER: Final = struct.pack("ii", 1, 0)


def _inet_socket(transport: asyncio.BaseTransport) -> Any:
    """The transport's TCP socket, None for any other."""
    sock: Any = transport.get_extra_info("socket")
    inet = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
    return sock if inet else None


def _send_at_once(transport: asyncio.BaseTransport) -> None:
    if sock := _inet_socket(transport):
        with contextlib.suppress(OSError):  # the peer may have gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class SocketStream(BufferedStream, asyncio.Protocol):
    """A stream on a socket's transport.

    Use it as the protocol of ``create_connection`` or ``create_server``; a subclass or a callback
    learns in *on_connected* that an accepted connection is ready.

    Args:
        on_connected: called with the stream once the transport is there.
    """

    def __init__(self, on_connected: Any = None) -> None:
        super().__init__()
        self._on_connected = on_connected
        self._transport: asyncio.Transport
        self._write_paused = False
        self._paused = False
        self._reading = True
        self._gone = False
        self._finished = False
        self._linger: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_HIGH // 4)
        if not type(transport).__module__.startswith("uvloop"):  # which never waits for more
            _send_at_once(transport)
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        receiver = self._receiver
        if receiver is not None:
            receiver.data(data)
            if len(data) >= FULL_READ and self._reading and not self._gone:
                # There is more. libuv would read on, up to 8 MB in one go; let others have a turn.
                self._set_reading(False)
                self._loop.call_soon(self._read_on)
        elif not self.closed:
            self._arrived(data)
            if self._buffered >= _READ_HIGH:
                self._set_reading(False)

    def _read_on(self) -> None:
        if not (self._paused or self._gone):
            self._set_reading(True)

    def eof_received(self) -> bool:
        self._ended()
        # True keeps the writing half; a TLS transport has none and closes regardless.
        return True

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._open_gate()
        if self._receiver is not None:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._linger is not None:
            self._linger.cancel()
        self._transport.close()
        if self._error is not None:
            return
        if exc is None and self._at_eof and self._finished:
            self._lost(StreamReset("The stream is over.", code="closed"))
        else:
            text = f"The connection was lost: {exc}." if exc else "The connection was closed."
            self._lost(StreamReset(text, code="connection_lost"))

    # -- Stream -----------------------------------------------------------------------------------

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Host and port of the other end; None for a Unix socket."""
        name: Any = self._transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return None
        host, port = cast("tuple[Any, ...]", name)[:2]
        return str(host), int(port)

    def _taken(self, count: int) -> None:
        if not self._reading and not self._paused and self._buffered < _READ_HIGH // 2:
            self._set_reading(True)

    def _set_reading(self, reading: bool) -> None:
        if reading != self._reading and not self._at_eof:
            self._reading = reading
            if not self._transport.is_closing():  # uvloop raises after close
                if reading:
                    self._transport.resume_reading()
                else:
                    self._transport.pause_reading()

    @property
    def full(self) -> bool:
        return self._write_paused

    def send(self, data: bytes | memoryview) -> None:
        if data and not (self.closed or self._finished):
            self.bytes_out += len(data)
            try:
                self._transport.write(data)
            except RuntimeError:
                pass  # uvloop has closed the transport; connection_lost comes next

    def pause(self) -> None:
        self._paused = True
        self._set_reading(False)

    def resume(self) -> None:
        self._paused = False
        self._set_reading(True)

    def finish(self) -> None:
        if not (self.closed or self._finished):
            self._finished = True
            if not self._transport.is_closing() and self._transport.can_write_eof():
                try:
                    self._transport.write_eof()
                except (OSError, RuntimeError):
                    # The peer is gone already; connection_lost comes by itself.
                    self._transport.abort()

    async def close(self) -> None:
        if not self._gone and self._linger is None:
            transport = self._transport
            if not transport.is_closing() and (
                transport.get_write_buffer_size() or transport.get_extra_info("sslcontext")
            ):
                # The kernel takes no more for now, or there is a farewell to wait for.
                self._linger = self._loop.call_later(_LINGER, transport.abort)
            transport.close()
        self._chunks.clear()
        self._lost(StreamReset("The stream was closed on this side.", code="closed"))

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        if not self._gone:
            if not self._transport.is_closing() and (sock := _inet_socket(self._transport)):
                # Without lingering the kernel says reset instead of an orderly end.
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
        self._chunks.clear()
        self._lost(StreamReset(message or "The stream was given up on this side.", code=code))

    # -- for splicing (links/splice.py) -----------------------------------------------------------

    @property
    def local(self) -> bool:
        """Whether the other end is on this machine."""
        return is_local(self._transport)

    @property
    def descriptor(self) -> int | None:
        """The descriptor of an open plain socket; None when it is closing, or TLS is on it."""
        transport: Any = getattr(self, "_transport", None)
        if transport is None or self._gone or self.closed or transport.is_closing():
            return None
        if transport.get_extra_info("sslcontext") is not None:
            return None
        sock = transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else None

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def tell_when_empty(self, wanted: bool) -> None:
        """Call ``Receiver.writable`` only when everything is sent; False: as usual."""
        if not self._transport.is_closing():  # uvloop raises after close
            high = 0 if wanted else _WRITE_HIGH
            self._transport.set_write_buffer_limits(high, high // 4)

    def broken(self, error: OSError) -> None:
        """Somebody met *error* on the descriptor: the connection is lost, as if found here."""
        if not self._gone:
            self._transport.abort()
        self._lost(StreamReset(f"The connection was lost: {error}.", code="connection_lost"))


async def connect_tcp(host: str, port: int, timeout: float = 10.0) -> SocketStream:
    """Connect to *host*:*port* within *timeout* seconds.

    Raises:
        Unavailable: code ``connect_refused``, ``connect_timeout`` or ``connect_failed``.
    """
    return await _connect(f"{host}:{port}", timeout, host=host, port=port)


async def connect_unix(path: str, timeout: float = 10.0) -> SocketStream:
    """Connect to the Unix socket at *path* within *timeout* seconds.

    Raises:
        Unavailable: as :func:`connect_tcp`.
    """
    return await _connect(path, timeout, path=path)


async def _connect(where: str, timeout: float, **address: Any) -> SocketStream:
    loop = asyncio.get_running_loop()
    connect: Any = loop.create_unix_connection if "path" in address else loop.create_connection
    try:
        with Deadline(timeout):
            _, stream = await connect(SocketStream, **address)
    except TimeoutError:
        raise Unavailable(
            f"{where} did not answer within {timeout:g} seconds.", code="connect_timeout"
        ) from None
    except ConnectionRefusedError:
        raise Unavailable(f"{where} refused the connection.", code="connect_refused") from None
    except OSError as error:
        raise Unavailable(
            f"{where} cannot be reached: {error.strerror or error}.", code="connect_failed"
        ) from None
    return stream


async def stream_on(sock: socket.socket) -> SocketStream:
    """The stream of an accepted connection; cancelled half way, the connection is closed."""
    made: list[SocketStream] = []
    stream = SocketStream(made.append)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, sock)
    except BaseException:
        if made:
            stream.abort()
        sock.close()
        raise
    return stream
