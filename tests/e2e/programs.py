"""The real programs, started as users start them: gateways, agents, commands.

Every program runs as a child process with its own state directory, logs to a file that is shown
when a test fails, and is ended by process id.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.e2e.forked import Forked, fork
from tests.ports import free_port

__all__ = ["ADMIN", "PASSWORD", "AgentProgram", "GatewayProgram", "eventually", "free_port", "run"]

ADMIN = "root-admin"
PASSWORD = "correct horse battery"
FORKED = os.environ.get("UNDERPASS_E2E") == "forked"
"""See :mod:`tests.e2e.forked`."""
UNDERPASS = [sys.executable, "-m", "underpass.cli.main"]


def eventually(probe: Callable[[], Any], timeout: float = 15.0, what: str = "it") -> Any:
    """Call *probe* until it gives something true; fail with *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = probe()
            if last:
                return last
        except (httpx.HTTPError, OSError, AssertionError, KeyError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {timeout:g} s; last: {last!r}")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a child: ours, without what would leak the developer's own settings."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("UNDERPASS_", "XDG_"))
        and key not in {"PORT", "SECRET_KEY", "PYTHONDONTWRITEBYTECODE"}
    }
    return kept | {"HOME": str(home), "TERM": "xterm-256color", "SHELL": "/bin/bash"} | extra


class Program:
    """A child process with a log file."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def spawn(self, arguments: list[str], **extra: str) -> None:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        env = environment(home, **extra)
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if FORKED:
                files = (nothing.fileno(), log.fileno(), log.fileno())
                self.process = fork(arguments, env=env, cwd=home, files=files)
                return
            self.process = subprocess.Popen(
                [*UNDERPASS, *arguments],
                stdin=nothing,
                stdout=log,
                stderr=log,
                env=env,
                cwd=home,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM, then wait; the exit status."""
        assert self.process is not None
        if self.alive:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise AssertionError(
                f"{self.name} did not end within {timeout} s of SIGTERM:\n{self.text()[-4000:]}"
            ) from None

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def rss(self) -> int:
        """Resident memory in bytes, of the program alone (not of the shells it started)."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def descriptors(self) -> int:
        return int(psutil.Process(self.pid).num_fds())

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.pid).children(recursive=True))


class GatewayProgram(Program):
    """``underpass serve`` with an admin made through the environment unless told otherwise."""

    def __init__(
        self,
        directory: Path,
        *,
        database: str | None = None,
        local_agent: bool = False,
        admin: bool = True,
        arguments: list[str] | None = None,
        tls: bool = False,
        port: int | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__("gateway", directory)
        self.port = port or free_port()
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.state = directory / "gateway-state"
        self.arguments = [
            "serve", "--listen", f"127.0.0.1:{self.port}", "--state", str(self.state),
            *(["--database", database] if database else []),
            *([] if local_agent else ["--no-local-agent"]),
            *(["--tls", "self"] if tls else []),
            *(arguments or []),
        ]  # fmt: skip
        self.env = dict(env or {})
        if admin:
            self.env |= {"UNDERPASS_ADMIN_USER": ADMIN, "UNDERPASS_ADMIN_PASSWORD": PASSWORD}
        self._clients: list[httpx.Client] = []

    def start(self, timeout: float = 30.0) -> GatewayProgram:
        self.spawn(self.arguments, **self.env)
        with httpx.Client(verify=False) as client:

            def ready() -> bool:
                if not self.alive:
                    raise RuntimeError(f"the gateway ended:\n{self.text()[-4000:]}")
                return client.get(f"{self.url}/ready").status_code == 200

            eventually(ready, timeout, "the gateway being ready")
        return self

    def client(self, token: str | None = None) -> httpx.Client:
        """An HTTP client on the gateway; closed with the program."""
        client = httpx.Client(
            base_url=self.url,
            verify=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=20,
        )
        self._clients.append(client)
        return client

    def login(self, username: str = ADMIN, password: str = PASSWORD) -> httpx.Client:
        """A client signed in with a bearer token."""
        with httpx.Client(base_url=self.url, verify=False, timeout=20) as client:
            answer = client.post(
                "/api/v1/auth/login", json={"username": username, "password": password}
            )
        assert answer.status_code == 200, answer.text
        return self.client(answer.json()["data"]["access_token"])

    def add_user(self, admin: httpx.Client, name: str, role: str = "user") -> httpx.Client:
        """Make a user and sign them in."""
        answer = admin.post(
            "/api/v1/users", json={"username": name, "password": PASSWORD, "role": role}
        )
        assert answer.status_code in (200, 201), answer.text
        return self.login(name)

    def join_token(self, admin: httpx.Client, uses: int = 10, **labels: str) -> str:
        answer = admin.post(
            "/api/v1/join-tokens", json={"uses": uses, "expires_in": 3600, "labels": labels}
        )
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["data"]["token"])

    def machine(self, admin: httpx.Client, name: str, timeout: float = 20.0) -> dict[str, Any]:
        """The machine called *name*, once it is online and linked."""

        def probe() -> dict[str, Any] | None:
            items = admin.get("/api/v1/assets", params={"page_size": 500}).json()["data"]["items"]
            for item in items:
                if item["name"] == name and item["status"] == "online" and item["linked"]:
                    return dict(item)
            return None

        return eventually(probe, timeout, f"machine {name!r} online")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self.process is not None and self.alive:
            with contextlib.suppress(AssertionError):
                self.stop()


class AgentProgram(Program):
    """``underpass agent`` with a state directory of its own."""

    def __init__(
        self,
        directory: Path,
        gateway: GatewayProgram,
        name: str,
        *,
        token: str | None = None,
        arguments: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"agent-{name}", directory / name)
        self.agent_name = name
        self.state = self.directory / "state"
        self.arguments = [
            "agent", "--server", gateway.url, "--state", str(self.state), "--name", name,
            *(["--join", token] if token else []),
            *(arguments or []),
        ]  # fmt: skip
        self.env = dict(env or {})

    def start(self) -> AgentProgram:
        self.spawn(self.arguments, **self.env)
        return self


def run(
    gateway: GatewayProgram,
    home: Path,
    *arguments: str,
    token: str,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run one ``underpass`` command against *gateway* and wait for it."""
    home.mkdir(parents=True, exist_ok=True)
    env = environment(home, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token, **(env or {}))
    if FORKED:
        return _run_forked(list(arguments), env, stdin, timeout)
    return subprocess.run(
        [*UNDERPASS, *arguments],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
        env=env,
    )


def _run_forked(
    arguments: list[str], env: dict[str, str], stdin: bytes, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    (read_in, write_in), (read_out, write_out), (read_err, write_err) = (os.pipe() for _ in "012")
    try:
        process = fork(arguments, env=env, cwd=Path.cwd(), files=(read_in, write_out, write_err))
    finally:
        for end in (read_in, write_out, write_err):
            os.close(end)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(write_in, "wb") as pipe:
            pipe.write(stdin)

    def drain(end: int) -> bytes:
        with open(end, "rb") as pipe:
            return pipe.read()

    with ThreadPoolExecutor(3) as threads:
        out, err = threads.submit(drain, read_out), threads.submit(drain, read_err)
        threads.submit(feed)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, status, out.result(), err.result())


def unique(prefix: str) -> str:
    """A name no other test uses."""
    return f"{prefix}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def killing(*programs: Program) -> Iterator[None]:
    """End *programs* whatever happens, the last started first."""
    try:
        yield
    finally:
        for program in reversed(programs):
            if program.alive:
                with contextlib.suppress(AssertionError):
                    program.stop()
