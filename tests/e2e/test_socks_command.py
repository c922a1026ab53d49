"""``underpass socks``: curl goes out at the machine, by SOCKS5 and HTTP, and UDP does, too."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cable import Cable
from tests.e2e.programs import AgentProgram, GatewayProgram, environment, eventually, run
from tests.e2e.test_exec import token_of
from tests.e2e.test_forward_survives import Forward
from underpass.wire.socks5 import ClientHandshake, build_udp, parse_udp

STANDING = True
pytestmark = pytest.mark.needs("curl")

TEXT = b"Only the machine can reach this.\n"


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every GET with :data:`TEXT`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def socks(directory: Path, port: int, token: str, *arguments: str, **env: str) -> Iterator[Forward]:
    program = Forward(directory, port, token, "box", "--port", "0", *arguments, command="socks")
    program.env |= env
    program.start()
    try:
        yield program
        assert "Traceback" not in program.text()
        assert program.stop() == 0
    finally:
        if program.alive:
            program.kill()


def curl(home: Path, proxy: str, url: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", "--proxy", proxy,
         "--proxytunnel", "--noproxy", "", url],
        capture_output=True, check=False, env=environment(home), timeout=60,
    )  # fmt: skip


def test_curl_through_socks_and_http(
    gateway: GatewayProgram,
    admin: httpx.Client,
    agent: AgentProgram,
    machine: str,
    web: int,
    tmp_path: Path,
) -> None:
    cable = Cable(gateway.port)
    with socks(tmp_path / "client", cable.port, token_of(admin)) as program:
        (port,) = program.ports()
        for scheme in ("socks5h", "socks5", "http"):
            for host in ("127.0.0.1", "localhost"):
                done = curl(tmp_path, f"{scheme}://127.0.0.1:{port}", f"http://{host}:{web}/")
                assert done.stdout == TEXT, (scheme, host, done.stderr)
            cable.cut()  # the next connection waits for the next link
        refused = curl(tmp_path, f"http://127.0.0.1:{port}", "http://127.0.0.1:1/")
        assert b"502" in refused.stderr
        denied = curl(tmp_path, f"http://127.0.0.1:{port}", "http://192.0.2.1/")
        assert b"403" in denied.stderr
        eventually(lambda: "policy" in program.text(), 5, "saying why")
    cable.close()


def test_datagrams_leave_at_the_machine(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str, tmp_path: Path
) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socks(tmp_path / "client", gateway.port, token_of(admin)) as program,
    ):
        service.bind(("127.0.0.1", 0))
        for sock in (service, ours):
            sock.settimeout(20)
        (port,) = program.ports()
        with socket.create_connection(("127.0.0.1", port), 20) as control:
            handshake = ClientHandshake("0.0.0.0", 0, command="udp_associate")
            found = None
            while not found:
                control.sendall(handshake.data_to_send())
                found = handshake.feed(control.recv(1000))
            where = (found[0].host, found[0].port)
            ours.sendto(build_udp("localhost", service.getsockname()[1], b"ask"), where)
            data, sender = service.recvfrom(2000)
            assert data == b"ask"
            service.sendto(b"answer" * 200, sender)
            host, answered, payload = parse_udp(ours.recvfrom(65536)[0])
            assert (host, answered) == ("127.0.0.1", service.getsockname()[1])
            assert payload == b"answer" * 200


def test_a_login_is_demanded(
    gateway: GatewayProgram,
    admin: httpx.Client,
    agent: AgentProgram,
    machine: str,
    web: int,
    tmp_path: Path,
) -> None:
    token = token_of(admin)
    open_to_all = run(gateway, tmp_path / "cli", "socks", "box", "--bind", "0.0.0.0", token=token)
    assert open_to_all.returncode == 2
    assert b"login" in open_to_all.stderr
    secret = {"UNDERPASS_SOCKS_PASSWORD": "open sesame"}
    with socks(tmp_path / "client", gateway.port, token, "--username", "ada", **secret) as program:
        (port,) = program.ports()
        url = f"http://127.0.0.1:{web}/"
        for scheme in ("socks5h", "http"):
            good = curl(tmp_path, f"{scheme}://ada:open%20sesame@127.0.0.1:{port}", url)
            assert good.stdout == TEXT, good.stderr
            for login in ("ada:wrong@", "eve:open%20sesame@", ""):
                assert curl(tmp_path, f"{scheme}://{login}127.0.0.1:{port}", url).returncode != 0
