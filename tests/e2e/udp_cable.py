"""A UDP path that can lose, move and fall silent: a loopback relay between two programs."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable

__all__ = ["UdpCable"]


class UdpCable:
    """Relays datagrams from ``127.0.0.1:port`` to *target* and back.

    Args:
        target: the loopback port they go to.
        port: the one to listen on; 0 takes a free one.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self.forwarded = 0
        self.lose: Callable[[bytes, bool], bool] = lambda _data, _outward: False
        """Given each datagram and whether it goes to the target; true drops it."""
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._listener.setblocking(False)  # readable may mean an error somebody else has read
        self._listener.bind(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._ways: dict[tuple[str, int], socket.socket] = {}
        self._clients: dict[socket.socket, tuple[str, int]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._frozen: set[tuple[str, int]] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(timeout=0.1):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                with self._lock, contextlib.suppress(OSError):
                    self._relay(source)

    def _relay(self, source: socket.socket) -> None:
        data, sender = source.recvfrom(65_536)
        outward = source is self._listener
        client = sender if outward else self._clients.get(source)
        if client in self._frozen or self.lose(data, outward):
            return
        self.forwarded += 1
        if outward:
            if sender not in self._ways:
                self._add(sender)
            self._ways[sender].sendto(data, ("127.0.0.1", self.target))
        elif source in self._clients:
            self._listener.sendto(data, self._clients[source])

    def _add(self, client: tuple[str, int], host: str = "127.0.0.1") -> None:
        way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        way.setblocking(False)
        way.bind((host, 0))
        self._ways[client] = way
        self._clients[way] = client
        self._selector.register(way, selectors.EVENT_READ)

    def move(self, host: str = "127.0.0.1") -> None:
        """Send on from other ports from now on, as a NAT that forgot or a machine that moved.

        Args:
            host: the loopback address they are ports of.
        """
        with self._lock:
            for client, way in list(self._ways.items()):
                self._remove(way)
                self._add(client, host)

    def freeze(self) -> int:
        """Carry nothing any more for who is there now, without telling; how many there are."""
        with self._lock:
            self._frozen |= set(self._ways)
            return len(self._frozen)

    def _remove(self, way: socket.socket) -> None:
        self._selector.unregister(way)
        del self._clients[way]
        way.close()

    def close(self) -> None:
        """End the relay."""
        self._closed = True
        self._thread.join(5)
        with self._lock:
            for way in list(self._clients):
                self._remove(way)
            self._ways.clear()
            self._listener.close()
            self._selector.close()
