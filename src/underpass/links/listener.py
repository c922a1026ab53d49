"""Takes connections from listening sockets, and lives through everything ``accept`` can say.

An accept loop of our own, because libuv's ends the listener when the process is out of
descriptors. Here it waits a moment and goes on; the kernel keeps who comes meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import structlog

__all__ = ["Accepted", "Listener"]

_log = structlog.get_logger(__name__)

Accepted = Callable[[socket.socket, tuple[Any, ...]], None]
"""Takes a connection that does not block, and where it comes from; owns it from then on."""

_BATCH: Final = 16
"""Connections taken in one turn of the loop; then those that are open have theirs: each costs some
0.1 ms, and what is opened for them leaves at the end of the turn."""
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_GONE_AGAIN: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""The connection is over, or the firewall took it back; the next one is fine."""


class _AcceptedSocket(socket.socket):
    """A socket whose family and type are bare numbers.

    Event loops ask for them several times for each connection, and making an enumeration's member
    of a number each time is a twentieth of what a new connection costs.
    """

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class Listener:
    """Accepts on *sockets* until closed.

    Args:
        sockets: listening, not blocking; owned from now on.
        accepted: given every connection.

    Attributes:
        failures: how often ``accept`` had to wait (out of descriptors or memory).
    """

    def __init__(self, sockets: Sequence[socket.socket], accepted: Accepted) -> None:
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._sockets = tuple(sockets)
        self._kinds = {
            sock: (int(sock.family), int(sock.type), sock.proto) for sock in self._sockets
        }
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._waits: dict[socket.socket, float] = {}
        self._closed = False
        self.failures = 0
        for sock in self._sockets:
            self._listen(sock)

    @property
    def ports(self) -> list[int]:
        """The ports, each once, in order."""
        return sorted({int(sock.getsockname()[1]) for sock in self._sockets})

    def close(self) -> None:
        """Give the ports back; connections that are not taken yet are reset. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def _listen(self, sock: socket.socket) -> None:
        self._timers.pop(sock, None)
        self._loop.add_reader(sock.fileno(), self._ready, sock)

    def _ready(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            if self._closed:
                return
            try:
                # What accept() itself calls, which would then make a plain socket of it.
                descriptor, address = cast("Any", sock)._accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _GONE_AGAIN:
                    continue
                self._wait(sock, error)
                return
            self._waits.pop(sock, None)
            connection = _AcceptedSocket(*self._kinds[sock], fileno=descriptor)
            connection.setblocking(False)
            self._accepted(connection, address)

    def _wait(self, sock: socket.socket, error: OSError) -> None:
        """Out of descriptors or memory: give those who have some the time to return them."""
        self.failures += 1
        wait = self._waits.get(sock, _FIRST_WAIT)
        self._waits[sock] = min(2 * wait, _LONGEST_WAIT)
        if wait == _FIRST_WAIT:
            _log.warning("accept_failed", error=error.strerror or str(error), retry_in=wait)
        self._loop.remove_reader(sock.fileno())
        self._timers[sock] = self._loop.call_later(wait, self._listen, sock)
