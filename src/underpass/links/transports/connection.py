"""A TCP or TLS connection as a link's transport: an asyncio protocol around an asyncio transport.

Use it as the protocol of ``loop.create_connection`` / ``create_server``, or take over a connection
somebody else accepted and looked at (the one port) with :func:`adopt`::

    pipe = adopt(transport, "tls", bytes_already_read)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

from underpass.links.transports.transport import (
    WRITE_HIGH,
    WRITE_LOW,
    BaseTransport,
    Buffer,
    WriteBatch,
)

__all__ = ["StreamTransport", "address_of", "adopt", "connect", "is_local", "tune_socket"]

FULL_READ: Final = 128 << 10
"""Bytes of one read that mean that there is more to read."""
_NOT_SENT: Final = 128 << 10
"""Bytes the kernel keeps unsent for a link; more would only be a longer queue to wait in."""


def tune_socket(transport: asyncio.BaseTransport) -> None:
    """Set what a link wants of its socket: no Nagle delay, a short send queue."""
    sock: Any = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the peer may have gone already; reading will tell
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)


def address_of(transport: asyncio.BaseTransport) -> str | None:
    """``host:port`` of the other end."""
    name: Any = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = cast("tuple[Any, ...]", name)[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return None


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Whether both ends have one address, as on the loopback interface."""
    here: Any = transport.get_extra_info("sockname")
    there: Any = transport.get_extra_info("peername")
    if not (isinstance(here, tuple) and isinstance(there, tuple)):
        return False
    return bool(cast("tuple[Any, ...]", here)[0] == cast("tuple[Any, ...]", there)[0])


class StreamTransport(BaseTransport, asyncio.Protocol):
    """A link's bytes on a TCP or TLS connection.

    Args:
        carrier: what ``Link.carrier`` shows.
    """

    def __init__(self, carrier: Literal["tcp", "tls"] = "tcp") -> None:
        super().__init__(carrier)
        self._transport: asyncio.Transport
        self._batch: WriteBatch
        self._loop = asyncio.get_running_loop()

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer_address = address_of(transport)
        self.local = is_local(transport)
        self._transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        tune_socket(transport)
        # Only uvloop's writelines will do: asyncio's joins its parts (before 3.12) or forgets to
        # pause the protocol (3.12 and 3.13), and TLS would make a record of each part.
        gathers = self.carrier == "tcp" and type(transport).__module__.startswith("uvloop")
        self._batch = WriteBatch(
            self._transport.write, self._transport.writelines if gathers else None
        )
        # No method in between: these two are called for every frame.
        self.write = self._batch.add
        self.writelines = self._batch.extend

    def data_received(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed(data)
        else:
            self._arrived(data)
        if len(data) >= FULL_READ and self._reading and not self.closing:
            # There is more. libuv would read on, up to 8 MB in one go; let others have their turn.
            self._set_reading(False)
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._reading and not self._held and not self.closing:
            self._set_reading(True)

    def eof_received(self) -> bool:
        return False  # a link has no half-close: the transport closes itself

    def pause_writing(self) -> None:
        self._pause_sink()

    def resume_writing(self) -> None:
        self._resume_sink()

    def connection_lost(self, exc: Exception | None) -> None:
        self._batch.end(flush=False)
        self._transport.close()  # uvloop: never drop a transport that was not closed
        self._gone(exc)

    # -- Transport ------------------------------------------------------------------------------

    def _set_reading(self, reading: bool) -> None:
        if not self._transport.is_closing():  # uvloop raises after close
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def write(self, data: Buffer) -> None:
        """Replaced by the batch's method once connected."""
        raise RuntimeError("not connected yet")

    def writelines(self, parts: Sequence[Buffer]) -> None:
        """Replaced by the batch's method once connected."""
        raise RuntimeError("not connected yet")

    def flush(self) -> None:
        self._batch.flush()

    def close(self) -> None:
        if not self.closing:
            self._batch.end(flush=True)
            self.closing = True
            self._transport.close()

    def abort(self) -> None:
        self.closing = True
        self._batch.end(flush=False)
        if not self._lost:  # asyncio's transport fails when it had flushed, closed and gone before
            self._transport.abort()


def adopt(
    transport: asyncio.Transport, carrier: Literal["tcp", "tls"], already_read: bytes = b""
) -> StreamTransport:
    """Make an accepted asyncio *transport* a link transport.

    Args:
        already_read: what was read from it before; fed to the sink first.
    """
    pipe = StreamTransport(carrier)
    transport.set_protocol(pipe)
    pipe.connection_made(transport)
    if already_read:
        pipe.data_received(already_read)
    return pipe


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> StreamTransport:
    """Connect a link transport to *host*:*port*. Put a deadline around it.

    Args:
        tls: makes it a TLS connection.
        server_hostname: checked against the certificate; default *host*.

    Raises:
        OSError: when the connection cannot be made (``ssl.SSLError`` is one).
    """
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(
        lambda: StreamTransport("tcp" if tls is None else "tls"),
        host,
        port,
        ssl=tls,
        server_hostname=(server_hostname or host) if tls is not None else None,
    )
    return pipe
