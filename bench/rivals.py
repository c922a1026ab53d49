"""The tunnels the benchmark compares: Underpass itself, and every rival found on PATH.

A *tunnel* here is two programs, a server and a client, which make local services reachable on
other ports of the loopback address. Each is started as its own documentation says, with its
defaults, and the plain variant too where encryption can be switched off.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.services import Children, free_port, wait_for

__all__ = ["TUNNELS", "Place", "Running", "Tunnel"]

PASSWORD = "a benchmark's password"


@dataclass
class Running:
    """A started tunnel: where each service is reached, and the programs in between."""

    ports: list[int]
    processes: list[subprocess.Popen[bytes]]


@dataclass(frozen=True)
class Place:
    """Where the two programs of a tunnel run; by default both here, on loopback."""

    address: str = "127.0.0.1"
    """Where the server listens for the client."""
    far: Callable[[], AbstractContextManager[None]] = nullcontext
    """What is started inside runs where the services are."""


Start = Callable[[Children, Path, list[int], Place], Running]


@dataclass(frozen=True)
class Tunnel:
    """One column of the table."""

    name: str
    title: str
    start: Start
    needs: tuple[str, ...] = ()
    """Programs that must be on PATH."""
    encrypted: bool = False

    @property
    def available(self) -> bool:
        return all(shutil.which(program) for program in self.needs)


# -- Underpass ------------------------------------------------------------------------------------


def underpass(*, carrier: str, tls: bool = False, transport: str = "tcp") -> Start:
    """The product: ``underpass serve``, ``underpass agent``, a TCP mapping per service."""

    def start(children: Children, state: Path, services: list[int], place: Place) -> Running:
        port, low = free_port(), free_port()
        command = [sys.executable, "-m", "underpass.cli.main"]
        own = {key: value for key, value in os.environ.items() if key != "UNDERPASS_SERVER"}
        environment = own | {
            "HOME": str(state), "UNDERPASS_ADMIN_USER": "bench",
            "UNDERPASS_ADMIN_PASSWORD": PASSWORD,
        }  # fmt: skip
        gateway = children.start(
            *command, "serve", "--listen", f"{place.address}:{port}",
            "--state", str(state / "gateway"), "--no-local-agent",
            "--port-range", f"{low}-{min(low + 500, 65535)}",
            *(["--tls", "self"] if tls else []),
            env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(port, place.address)
        name = "localhost" if place.address == "127.0.0.1" else place.address
        url = f"{'https' if tls else 'http'}://{name}:{port}"
        # The certificate was made a moment ago on this machine; nothing else is ever reached.
        with httpx.Client(base_url=url, verify=not tls, timeout=20) as api:
            token = _said(
                api.post("/api/v1/auth/login", json={"username": "bench", "password": PASSWORD})
            )["access_token"]
            api.headers["Authorization"] = f"Bearer {token}"
            join = _said(api.post("/api/v1/join-tokens", json={"uses": 1}))["token"]
            pinned = ["--fingerprint", _fingerprint(place.address, port)] if tls else []
            with place.far():
                agent = children.start(
                    *command, "agent", "--server", url, "--join", join, "--name", "bench",
                    "--state", str(state / "agent"), "--transport", transport, *pinned,
                    env=environment, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            machine = _linked(api)
            ports = [
                _said(
                    api.post(
                        "/api/v1/mappings",
                        json={
                            "protocol": "tcp",
                            "source": {"port": 0, "bind": "127.0.0.1"},
                            "target_client_id": machine,
                            "target_host": "127.0.0.1",
                            "target_port": service,
                            "options": {"carrier": carrier},
                        },
                    )
                )["source"]["port"]
                for service in services
            ]
        return Running(ports, [gateway, agent])

    return start


def _said(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code >= 300:
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    data: dict[str, Any] = answer.json()["data"]
    return data


def _fingerprint(host: str, port: int) -> str:

    pem = ssl.get_server_certificate((host, port))
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def _linked(api: httpx.Client) -> str:
    for _ in range(300):
        for item in api.get("/api/v1/assets").json()["data"]["items"]:
            if item["linked"]:
                return str(item["id"])
        time.sleep(0.1)
    raise RuntimeError("The agent did not come.")


# -- rivals ---------------------------------------------------------------------------------------


def rathole(children: Children, state: Path, services: list[int], place: Place) -> Running:
    """rathole: a connection for each stream, no encryption by default."""
    bind, ports = free_port(), [free_port() for _ in services]
    names = [f"service{index}" for index in range(len(services))]
    server = f'[server]\nbind_addr = "{place.address}:{bind}"\ndefault_token = "bench"\n'
    client = f'[client]\nremote_addr = "{place.address}:{bind}"\ndefault_token = "bench"\n'
    for name, port, service in zip(names, ports, services, strict=True):
        server += f'[server.services.{name}]\nbind_addr = "127.0.0.1:{port}"\n'
        client += f'[client.services.{name}]\nlocal_addr = "127.0.0.1:{service}"\n'
    (state / "server.toml").write_text(server)
    (state / "client.toml").write_text(client)
    quiet = os.environ | {"RUST_LOG": "error"}
    first = children.start("rathole", "--server", str(state / "server.toml"), env=quiet)
    wait_for(bind, place.address)
    with place.far():
        second = children.start("rathole", "--client", str(state / "client.toml"), env=quiet)
    return _ready(ports, [first, second])


def bore(children: Children, state: Path, services: list[int], place: Place) -> Running:
    """bore: a connection for each stream, no encryption; a client program per port."""
    quiet = os.environ | {"RUST_LOG": "error"}
    ports = [free_port() for _ in services]
    # Its control port is fixed.
    programs = [
        children.start(
            "bore", "server", "--min-port", "1024", "--bind-addr", place.address,
            "--bind-tunnels", "127.0.0.1",
            env=quiet, stderr=subprocess.DEVNULL,
        )
    ]  # fmt: skip
    wait_for(7835, place.address)
    for port, service in zip(ports, services, strict=True):
        with place.far():
            programs.append(
                children.start(
                    "bore", "local", str(service), "--to", place.address, "--port", str(port),
                    env=quiet,
                )
            )  # fmt: skip
    return _ready(ports, programs)


def frp(*, tls: bool) -> Start:
    """frp: a multiplexed connection, TLS unless switched off."""

    def start(children: Children, state: Path, services: list[int], place: Place) -> Running:
        bind, ports = free_port(), [free_port() for _ in services]
        (state / "frps.toml").write_text(
            f'bindAddr = "{place.address}"\nproxyBindAddr = "127.0.0.1"\n'
            f'bindPort = {bind}\nlog.level = "error"\n'
        )
        client = f'serverAddr = "{place.address}"\nserverPort = {bind}\nlog.level = "error"\n'
        client += f"transport.tls.enable = {str(tls).lower()}\n"
        for index, (port, service) in enumerate(zip(ports, services, strict=True)):
            client += (
                f'[[proxies]]\nname = "p{index}"\ntype = "tcp"\nlocalIP = "127.0.0.1"\n'
                f"localPort = {service}\nremotePort = {port}\n"
            )
        (state / "frpc.toml").write_text(client)
        first = children.start("frps", "-c", str(state / "frps.toml"))
        wait_for(bind, place.address)
        with place.far():
            second = children.start("frpc", "-c", str(state / "frpc.toml"))
        return _ready(ports, [first, second])

    return start


def chisel(children: Children, state: Path, services: list[int], place: Place) -> Running:
    """chisel: SSH channels in a WebSocket, always encrypted."""
    bind, ports = free_port(), [free_port() for _ in services]
    first = children.start(
        "chisel", "server", "--reverse", "--host", place.address, "--port", str(bind),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(bind, place.address)
    remotes = [
        f"R:127.0.0.1:{port}:127.0.0.1:{to}" for port, to in zip(ports, services, strict=True)
    ]
    with place.far():
        second = children.start(
            "chisel", "client", f"http://{place.address}:{bind}", *remotes,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return _ready(ports, [first, second])


def ssh(children: Children, state: Path, services: list[int], place: Place) -> Running:
    """``ssh -R`` to an sshd of our own."""
    bind, ports = free_port(), [free_port() for _ in services]
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / key)], check=True
        )
    shutil.copy(state / "user.pub", state / "authorized_keys")
    (state / "authorized_keys").chmod(0o600)
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    assert sshd is not None
    first = children.start(
        sshd, "-D", "-f", "/dev/null", "-p", str(bind), "-h", str(state / "host"),
        "-o", f"ListenAddress={place.address}", "-o", f"AuthorizedKeysFile={state}/authorized_keys",
        "-o", "StrictModes=no", "-o", f"PidFile={state}/sshd.pid", "-o", "UsePAM=no",
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(bind, place.address)
    remotes = [
        part
        for port, to in zip(ports, services, strict=True)
        for part in ("-R", f"127.0.0.1:{port}:127.0.0.1:{to}")
    ]
    with place.far():
        second = children.start(
            "ssh", "-N", "-p", str(bind), "-i", str(state / "user"), "-F", "/dev/null",
            "-o", f"UserKnownHostsFile={state}/known", "-o", "StrictHostKeyChecking=accept-new",
            "-o", "ExitOnForwardFailure=yes", *remotes, f"{getpass.getuser()}@{place.address}",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return _ready(ports, [first, second])


def _ready(ports: list[int], programs: list[subprocess.Popen[bytes]]) -> Running:
    for port in ports:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        else:
            raise RuntimeError(f"The tunnel {programs[0].args} does not serve port {port}.")
    return Running(ports, programs)


TUNNELS = [
    Tunnel("mux", "Underpass, mux", underpass(carrier="mux")),
    Tunnel("dedicated", "Underpass, dedicated", underpass(carrier="dedicated")),
    Tunnel("auto", "Underpass, auto", underpass(carrier="auto")),
    Tunnel("rathole", "rathole", rathole, ("rathole",)),
    Tunnel("bore", "bore", bore, ("bore",)),
    Tunnel("frp", "frp, plain", frp(tls=False), ("frps", "frpc")),
    Tunnel("tls", "Underpass, TLS", underpass(carrier="auto", tls=True), encrypted=True),
    Tunnel("frp-tls", "frp, TLS", frp(tls=True), ("frps", "frpc"), encrypted=True),
    Tunnel("chisel", "chisel", chisel, ("chisel",), encrypted=True),
    Tunnel("ssh", "ssh -R", ssh, ("ssh", "ssh-keygen"), encrypted=True),
]
