"""What the tunnels' end-to-end tests share: mappings made over the API, and small servers."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest


def make(client: httpx.Client, machine: str, **wanted: Any) -> dict[str, Any]:
    """Make a mapping to *machine*; its record."""
    body = {"protocol": "tcp", "target_client_id": machine, **wanted}
    answer = client.post("/api/v1/mappings", json=body)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json()["data"])


def stats(client: httpx.Client, mapping: dict[str, Any]) -> dict[str, Any]:
    """Its statistics right now."""
    answer = client.get(f"/api/v1/mappings/{mapping['id']}/stats")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def tcp_server(handle: Any, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve each connection with *handle* (called with the socket) in a thread; the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                handle(self.request)

    with (_Server6 if ":" in host else _Server)((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(5)


def echo(sock: socket.socket) -> None:
    """Send everything back."""
    while data := sock.recv(65536):
        sock.sendall(data)


def after_the_end(sock: socket.socket) -> None:
    """Say how much came, once the other side is done sending."""
    size = len(read_all(sock))
    sock.sendall(b"got %d\n" % size)


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    got = bytearray()
    while data := sock.recv(65536):
        got += data
    return bytes(got)


@contextlib.contextmanager
def udp_server(answer: Any, host: str = "127.0.0.1") -> Iterator[int]:
    """Answer each datagram with what *answer* makes of it; the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    data, address = sock.recvfrom(70_000)
                    sock.sendto(answer(data), address)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(sock.getsockname()[1])
        finally:
            over.set()
            thread.join(5)


def connect(port: int, host: str = "127.0.0.1", timeout: float = 10.0) -> socket.socket:
    """A TCP connection."""
    return socket.create_connection((host, port), timeout)


def ended(sock: socket.socket) -> bool:
    """Whether the connection ends without another byte, orderly or by reset."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        pytest.fail("the connection is still open")
