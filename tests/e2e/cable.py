"""A cable that can be cut, fall silent, be listened to and lie: a loopback TCP relay between a
program and its peer."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable

__all__ = ["Cable"]


class Cable:
    """Relays ``127.0.0.1:port`` to *target*; :meth:`cut` closes, :meth:`freeze` black-holes.

    Args:
        target: the loopback port the bytes go to.
        port: the one to listen on; 0 takes a free one.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.passing: Callable[[bytes, bool], bytes] = lambda data, _outward: data
        """Given what passes and whether it goes to the target; what it returns goes on."""
        self._lock = threading.Lock()
        self._near: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._down = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(timeout=0.1):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listener:
                    self._accept()
                else:
                    self._relay(source)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self._down:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            near.close()
            return
        with self._lock:
            self._peers[near], self._peers[far] = far, near
            self._near.add(near)
            for end in (near, far):
                self._selector.register(end, selectors.EVENT_READ)

    def _relay(self, source: socket.socket) -> None:
        with self._lock:
            sink = self._peers.get(source)
            if sink is None:
                return
            try:
                data = source.recv(65536)
                if data:
                    sink.sendall(self.passing(data, source in self._near))
                    return
            except OSError:
                pass
            self._drop(source)

    def _drop(self, end: socket.socket) -> None:
        for one in (end, self._peers.pop(end)):
            self._peers.pop(one, None)
            self._near.discard(one)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            one.close()

    def cut(self, *, stay_down: bool = False) -> None:
        """Close every connection; with *stay_down* refuse new ones until :meth:`mend`."""
        with self._lock:
            self._down = stay_down
            while self._peers:
                self._drop(next(iter(self._peers)))

    def mend(self) -> None:
        self._down = False

    def freeze(self) -> int:
        """Stop relaying existing connections without closing them; how many there were."""
        with self._lock:
            count = len(self._peers) // 2
            for end in self._peers:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
            return count

    def close(self) -> None:
        self.cut(stay_down=True)
        self._closed = True
        self._thread.join(2)
        self._listener.close()
        self._selector.close()
