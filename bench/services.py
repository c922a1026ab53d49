"""What the links benchmark reaches through the tunnel: iperf3, nginx, an echo; and child processes.

Every child is started by :class:`Children` and ended by it, by its own process id.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NGINX = """
{user} daemon off; pid {state}/nginx.pid; error_log {state}/nginx.log crit; worker_processes 1;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; client_body_temp_path {state}/b; proxy_temp_path {state}/p;
  fastcgi_temp_path {state}/f; uwsgi_temp_path {state}/u; scgi_temp_path {state}/s;
  keepalive_requests 100000000; keepalive_timeout 60; sendfile on; tcp_nodelay on;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ root {state}/www; }} }}
}}
"""


class Children:
    """Child processes that end with the ``with`` block, whatever happens in it."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start *command* quietly."""
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen(command, **options)
        self._all.append(child)
        return child

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            if child.poll() is None:
                child.terminate()
        for child in self._all:
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


class Program:
    """A gateway or agent of ``bench.tunnel``."""

    def __init__(self, children: Children, *arguments: str) -> None:
        self._child = children.start(
            sys.executable, "-m", "bench.tunnel", *arguments,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self._child.pid

    def hear(self) -> dict[str, Any]:
        """Its next answer."""
        output: IO[bytes] | None = self._child.stdout
        assert output is not None
        line = output.readline()
        if not line:
            raise RuntimeError(f"A program of the benchmark ended: {self._child.args}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """Send *command* and give its answer."""
        entry: IO[bytes] | None = self._child.stdin
        assert entry is not None
        entry.write(command.encode() + b"\n")
        entry.flush()
        return self.hear()


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    """Return when somebody listens on *port*."""
    for _ in range(1000):
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"Nobody listens on port {port}.")


def start_iperf(children: Children) -> int:
    """An iperf3 server; its port."""
    port = free_port()
    children.start("iperf3", "-s", "-p", str(port), "-B", "127.0.0.1")
    time.sleep(0.3)
    return port


def start_nginx(children: Children, state: Path) -> int:
    """An nginx that serves one small file; its port."""
    port = free_port()
    (state / "www").mkdir()
    (state / "www" / "small").write_bytes(b"x" * 128)
    (state / "nginx.conf").write_text(
        NGINX.format(state=state, port=port, user="user root;" if os.getuid() == 0 else "")
    )
    children.start(
        "nginx", "-p", str(state), "-c", str(state / "nginx.conf"), stderr=subprocess.DEVNULL
    )
    wait_for(port)
    return port


def start_echo(children: Children, host: str = "127.0.0.1") -> int:
    """A server that sends back what it gets, in a process of its own; its port."""
    port = free_port()
    children.start(sys.executable, "-m", "bench.services", "echo", host, str(port))
    wait_for(port)
    return port


def start_forwarders(children: Children, target: int) -> int:
    """Two processes in a row that only copy bytes to *target*; the first one's port.

    What two hops cost at the least here, with neither event loop nor mux: the yardstick for a link.
    """
    for _ in range(2):
        port = free_port()
        children.start(sys.executable, "-m", "bench.services", "forward", str(port), str(target))
        time.sleep(0.3)
        target = port
    return target


def serve_forward(port: int, target: int) -> None:
    """A forwarder: two blocking threads per connection."""
    server = socket.create_server(("127.0.0.1", port), backlog=1024)

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 18):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for one in (source, sink):
                one.close()

    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", target))
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=copy, args=(near, far), daemon=True).start()
        threading.Thread(target=copy, args=(far, near), daemon=True).start()


def serve_echo(host: str, port: int) -> None:
    """The echo server: a blocking thread per connection, the shortest way there is."""
    server = socket.create_server((host, port), backlog=2048)

    def echo(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(65536):
                connection.sendall(data)

    while True:
        connection, _ = server.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def make_certificate(state: Path) -> None:
    """A self-signed certificate for ``localhost`` in *state*."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (state / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (state / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "forward":
        serve_forward(int(sys.argv[2]), int(sys.argv[3]))
    serve_echo(sys.argv[2], int(sys.argv[3]))
