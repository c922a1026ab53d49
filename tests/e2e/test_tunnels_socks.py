"""SOCKS5 and HTTP CONNECT mappings through the real programs, with curl."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually
from tests.e2e.tunnelled import connect, ended, make, stats, udp_server
from underpass.wire.socks5 import ClientHandshake, build_udp, parse_udp

STANDING = True
pytestmark = pytest.mark.needs("curl")
LOGIN = {"username": "ada", "password": "pass word"}


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page\n" * 20_000)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "-sS", "--max-time", "15", "--noproxy", "", *arguments],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.fixture
def proxy(admin: httpx.Client, machine: str) -> dict[str, Any]:
    return make(admin, machine, protocol="socks5", options=LOGIN)


@pytest.mark.parametrize(
    "how",
    [
        ("--socks5-hostname", "127.0.0.1:{port}", "-U", "ada:pass word"),
        ("--socks5", "127.0.0.1:{port}", "-U", "ada:pass word"),
        ("-x", "http://127.0.0.1:{port}", "-p", "-U", "ada:pass word"),
    ],
)
def test_curl(proxy: dict[str, Any], web: int, how: tuple[str, ...]) -> None:
    arguments = [each.format(port=proxy["public_port"]) for each in how]
    done = curl(*arguments, f"http://localhost:{web}/")
    assert (done.returncode, done.stdout) == (0, b"page\n" * 20_000), done.stderr


def test_what_curl_hears_when_not(proxy: dict[str, Any], web: int) -> None:
    port = proxy["public_port"]
    socks = ["--socks5-hostname", f"127.0.0.1:{port}", "-U", "ada:pass word"]
    connect_ = ["-x", f"http://127.0.0.1:{port}", "-p", "-U", "ada:pass word"]
    # 97: the proxy refused, with the reply's number in its words.
    denied = curl(*socks, "http://169.254.169.254/latest/meta-data")
    assert denied.returncode == 97
    assert b"(2)" in denied.stderr
    assert b"403" in curl(*connect_, "http://169.254.169.254/").stderr
    wrong = ["--socks5-hostname", f"127.0.0.1:{port}", "-U", "ada:guess"]
    assert curl(*wrong, f"http://localhost:{web}/").returncode == 97
    assert b"407" in curl("-x", f"http://127.0.0.1:{port}", "-p", f"http://localhost:{web}/").stderr


def test_without_a_login_on_loopback_only(admin: httpx.Client, machine: str, web: int) -> None:
    mapping = make(admin, machine, protocol="socks5")
    done = curl(
        "--socks5-hostname", f"127.0.0.1:{mapping['public_port']}", f"http://localhost:{web}/"
    )
    assert done.returncode == 0, done.stderr
    answer = admin.post(
        "/api/v1/mappings",
        json={"protocol": "socks5", "target_client_id": machine, "source": {"bind": "0.0.0.0"}},
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "login_needed"


def associate(port: int) -> tuple[socket.socket, int]:
    """An association: its control connection, and the port for datagrams."""
    control = connect(port)
    handshake = ClientHandshake(
        "0.0.0.0", 0, LOGIN["username"], LOGIN["password"], command="udp_associate"
    )
    while True:
        control.sendall(handshake.data_to_send())
        if done := handshake.feed(control.recv(1024)):
            return control, done[0].port


def test_udp_associate(admin: httpx.Client, proxy: dict[str, Any]) -> None:
    with (
        udp_server(lambda data: data[::-1]) as target,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        control, port = associate(proxy["public_port"])
        assert port == proxy["public_port"]
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        for host in ("127.0.0.1", "localhost"):
            sock.send(build_udp(host, target, b"abc" * 400))
            assert parse_udp(sock.recv(70_000)) == ("127.0.0.1", target, b"cba" * 400)
        control.close()
        eventually(lambda: stats(admin, proxy)["active"] == 0, what="the association ending")
        sock.settimeout(0.5)
        sock.send(build_udp("127.0.0.1", target, b"late"))
        with pytest.raises(TimeoutError):
            sock.recv(100)


def test_a_killed_agent_ends_associations_and_comes_back(
    admin: httpx.Client,
    agent: AgentProgram,
    gateway: GatewayProgram,
    proxy: dict[str, Any],
    web: int,
) -> None:
    control, _ = associate(proxy["public_port"])
    agent.kill()
    assert ended(control)
    control.close()
    agent.start()
    arguments = ["--socks5-hostname", f"127.0.0.1:{proxy['public_port']}", "-U", "ada:pass word"]
    eventually(
        lambda: curl(*arguments, f"http://localhost:{web}/").returncode == 0, 20, "curl succeeding"
    )
