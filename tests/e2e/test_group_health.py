"""A group whose targets are tried: one that falls out gets nothing, and gets its share again."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx

from tests.e2e.programs import eventually
from tests.e2e.tunnelled import connect, make, read_all, tcp_server

STANDING = True

QUICK = {"interval": 1, "fall": 2, "rise": 2}


class Web(socketserver.ThreadingTCPServer):
    """Says its name at every path; at ``/ok`` how it is."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.well = True

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web: Any = self.server
                status = 200 if web.well or self.path != "/ok" else 503
                self.send_response(status)
                self.send_header("Content-Length", str(len(web.name)))
                self.end_headers()
                self.wfile.write(web.name.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = int(self.server_address[1])


@contextlib.contextmanager
def web(name: str) -> Iterator[Web]:
    with Web(name) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def who(port: int, times: int) -> set[str]:
    """Who answers to so many requests."""
    found = set()
    for _ in range(times):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            found.add(answer.read().decode())
    return found


def health(admin: httpx.Client, mapping: dict[str, Any]) -> dict[str, Any]:
    answer = admin.get(f"/api/v1/mappings/{mapping['id']}").json()["data"]
    return dict(answer["health_status"])


def becomes(admin: httpx.Client, mapping: dict[str, Any], state: str) -> None:
    eventually(
        lambda: health(admin, mapping)["health"] == state, 20, f"{mapping['name']} being {state}"
    )


def test_an_unwell_member_is_taken_out_and_brought_back(admin: httpx.Client, machine: str) -> None:
    rules = {"type": "http", "path": "/ok", **QUICK}
    with web("one") as one, web("two") as two:
        wanted: dict[str, Any] = {"group": "web", "health": rules}
        first = make(admin, machine, name="web-one", target_port=one.port, **wanted)
        wanted["source"] = {"port": (port := first["public_port"])}
        second = make(admin, machine, name="web-two", target_port=two.port, **wanted)
        assert second["public_port"] == port
        becomes(admin, first, "up")
        becomes(admin, second, "up")
        assert who(port, 4) == {"one", "two"}

        two.well = False
        becomes(admin, second, "down")
        assert health(admin, second)["reason"] == "The target answered 503."
        assert who(port, 8) == {"one"}

        one.well = False
        becomes(admin, first, "down")
        assert who(port, 4) == {"one", "two"}  # all down: all are used

        one.well = two.well = True
        becomes(admin, first, "up")
        becomes(admin, second, "up")
        assert who(port, 4) == {"one", "two"}

        def story() -> list[tuple[str, str]]:
            events = admin.get("/api/v1/events", params={"type": "mapping.health_changed"}).json()
            return [
                (event["details"]["before"], event["details"]["health"])
                for event in events["data"]["items"]
                if event["object_id"] == second["id"]
            ]

        eventually(
            lambda: sorted(story()) == [("down", "up"), ("up", "down")], 20, "both being recorded"
        )


def test_a_dead_member_is_taken_out_and_its_open_connections_stay(
    admin: httpx.Client, machine: str
) -> None:
    def hold(sock: Any) -> None:
        sock.sendall(b"held")
        read_all(sock)

    with contextlib.ExitStack() as stack:
        dies = contextlib.ExitStack()
        with dies:
            one = stack.enter_context(tcp_server(hold))
            two = dies.enter_context(tcp_server(hold))
            common: dict[str, Any] = {"group": "held", "health": {"type": "tcp", **QUICK}}
            first = make(admin, machine, name="held-one", target_port=one, **common)
            common["source"] = {"port": (port := first["public_port"])}
            second = make(admin, machine, name="held-two", target_port=two, **common)
            becomes(admin, second, "up")
            held = [stack.enter_context(connect(port)) for _ in range(4)]
            assert [sock.recv(4) for sock in held] == [b"held"] * 4
        becomes(admin, second, "down")
        assert "refused" in health(admin, second)["reason"]
        for _ in range(4):
            with connect(port) as sock:
                assert sock.recv(4) == b"held"
        assert not any(_is_over(sock) for sock in held)
        admin.delete(f"/api/v1/mappings/{second['id']}")
        eventually(lambda: sum(_is_over(sock) for sock in held) == 2, 10, "its own ending")


def _is_over(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
