"""``underpass forward``: connections go on when links are cut and the gateway is killed.

``UNDERPASS_TEST_FORWARD_BYTES`` sets how much each way carries (64 MiB without it).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cable import Cable
from tests.e2e.programs import AgentProgram, GatewayProgram, Program, eventually, run
from tests.e2e.test_exec import token_of

SIZE = int(os.environ.get("UNDERPASS_TEST_FORWARD_BYTES", 64 << 20))
BLOCK = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(8192))
"""256 KiB in which no part is like another."""
pytestmark = pytest.mark.timeout(300 + SIZE // (2 << 20))


def expected(size: int) -> str:
    digest = hashlib.sha256()
    for at in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - at])
    return digest.hexdigest()


class Service:
    """What is forwarded to: sends *size* bytes after ``get``, hashes what comes after ``put``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            verb = peer.recv(3, socket.MSG_WAITALL)
            if verb == b"get":
                send(peer, SIZE)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)
            elif verb == b"put":
                digest = hashlib.sha256()
                while data := peer.recv(1 << 20):
                    digest.update(data)
                peer.sendall(digest.hexdigest().encode())

    def close(self) -> None:
        self._listener.close()


def send(peer: socket.socket, size: int, sent: Callable[[int], None] = lambda _: None) -> None:
    for at in range(0, size, len(BLOCK)):
        peer.sendall(BLOCK[: size - at])
        sent(at)


class Forward(Program):
    """``underpass forward`` through a cable."""

    def __init__(
        self, directory: Path, port: int, token: str, *arguments: str, command: str = "forward"
    ) -> None:
        super().__init__(command, directory)
        self._arguments = ["--server", f"http://127.0.0.1:{port}", command, *arguments]
        self.env = {"UNDERPASS_TOKEN": token, "UNDERPASS_LOG_LEVEL": "info"}

    def start(self) -> Forward:
        self.spawn(self._arguments, **self.env)
        return self

    def ports(self, count: int = 1) -> list[int]:
        def probe() -> list[int]:
            assert self.alive, self.text()
            found = re.findall(r"^listening on .*:(\d+)$", self.text(), re.MULTILINE)
            return [int(port) for port in found] if len(found) == count else []

        return eventually(probe, 20, f"{self.name} listening")


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.fixture
def cables(gateway: GatewayProgram) -> Iterator[tuple[Cable, Cable]]:
    """The client's and the agent's way to the gateway."""
    made = Cable(gateway.port), Cable(gateway.port)
    yield made
    for cable in made:
        cable.close()


@pytest.fixture
def wired(
    gateway: GatewayProgram, admin: httpx.Client, cables: tuple[Cable, Cable], tmp_path: Path
) -> Iterator[AgentProgram]:
    """An agent ``wired`` behind the second cable."""
    agent = AgentProgram(tmp_path, gateway, "wired", token=gateway.join_token(admin))
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://127.0.0.1:{cables[1].port}"
    agent.start()
    try:
        gateway.machine(admin, "wired")
        yield agent
    finally:
        if agent.alive:
            agent.stop()


@pytest.fixture
def forward(
    wired: AgentProgram,
    admin: httpx.Client,
    cables: tuple[Cable, Cable],
    service: Service,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Forward]:
    program = Forward(
        tmp_path / "client", cables[0].port, token_of(admin), "wired",
        f"0:127.0.0.1:{service.port}", *getattr(request, "param", ()),
    ).start()  # fmt: skip
    try:
        yield program
        assert program.stop() == 0
    finally:
        if program.alive:
            program.kill()


class Trouble(threading.Thread):
    """Cuts the cables five times and kills the gateway twice while *progress* grows to *size*."""

    def __init__(self, cables: tuple[Cable, Cable], gateway: GatewayProgram) -> None:
        super().__init__(daemon=True)
        self.progress = 0
        self.done: list[str] = []
        self.failure: BaseException | None = None
        client, agent = cables
        self._plan: list[tuple[str, Callable[[], object]]] = [
            ("client cut", client.cut),
            ("agent cut", agent.cut),
            ("gateway killed", lambda: (gateway.kill(), gateway.start())),
            ("client cut", client.cut),
            ("both cut", lambda: (client.cut(), agent.cut())),
            ("gateway killed", lambda: (gateway.kill(), time.sleep(1), gateway.start())),
            ("agent cut", agent.cut),
        ]

    def run(self) -> None:
        try:
            for number, (name, act) in enumerate(self._plan, 1):
                while self.progress < SIZE * number // (len(self._plan) + 1):
                    time.sleep(0.005)
                act()
                self.done.append(f"{name} at {self.progress}")
        except BaseException as error:
            self.failure = error


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 90)


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param((), marks=pytest.mark.long, id="bare"),
        pytest.param(("--e2e", "--compression", "adaptive"), id="layered"),
    ],
    indirect=True,
)
def test_a_download_survives_cuts_and_killed_gateways(
    gateway: GatewayProgram, cables: tuple[Cable, Cable], service: Service, forward: Forward
) -> None:
    (port,) = forward.ports()
    trouble = Trouble(cables, gateway)
    digest = hashlib.sha256()
    with connect(port) as peer:
        peer.sendall(b"get")
        trouble.start()
        while data := peer.recv(1 << 20):
            digest.update(data)
            trouble.progress += len(data)
    trouble.join(60)
    assert trouble.failure is None
    assert len(trouble.done) == 7, trouble.done
    assert trouble.progress == SIZE
    assert digest.hexdigest() == expected(SIZE)
    assert service.connections == 1


@pytest.mark.long
def test_a_download_survives_black_holes_for_forty_seconds_each(
    cables: tuple[Cable, Cable], service: Service, forward: Forward
) -> None:
    """Nothing is closed and nothing arrives, first on the client's way, then on the machine's."""
    (port,) = forward.ports()
    digest = hashlib.sha256()
    holes = [(SIZE // 3, cables[0]), (SIZE * 2 // 3, cables[1])]
    pauses: list[float] = []
    got, last, longest = 0, time.monotonic(), 0.0
    with connect(port) as peer:
        peer.sendall(b"get")
        while data := peer.recv(1 << 20):
            digest.update(data)
            got += len(data)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            if holes and got >= holes[0][0]:
                pauses.append(longest)
                longest = 0.0
                assert holes.pop(0)[1].freeze() >= 1
    pauses.append(longest)
    print(f"the longest pauses before and after each: {pauses}")
    assert got == SIZE
    assert digest.hexdigest() == expected(SIZE)
    assert service.connections == 1
    assert min(pauses[1:]) > 5, "what was on its way did not outlast the black hole"
    assert max(pauses) < 40


@pytest.mark.long
def test_an_upload_survives_cuts_and_killed_gateways(
    gateway: GatewayProgram,
    cables: tuple[Cable, Cable],
    service: Service,
    forward: Forward,
    wired: AgentProgram,
) -> None:
    (port,) = forward.ports()
    before = wired.descriptors()
    trouble = Trouble(cables, gateway)
    with connect(port) as peer:
        peer.sendall(b"put")
        trouble.start()
        send(peer, SIZE, lambda at: setattr(trouble, "progress", at))
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(64, socket.MSG_WAITALL)
        assert peer.recv(1) == b""
    trouble.join(60)
    assert trouble.failure is None
    assert len(trouble.done) == 7, trouble.done
    assert answer.decode() == expected(SIZE)
    assert service.connections == 1
    admin = gateway.login()
    gateway.machine(admin, "wired")

    def clean() -> bool:
        open_streams = [
            line for line in admin.get("/metrics").text.splitlines()
            if line.startswith("underpass_streams{") and not line.endswith(" 0.0")
        ]  # fmt: skip
        return not open_streams and wired.descriptors() <= before + 2

    eventually(clean, 20, "every stream and descriptor being given back")


@pytest.mark.long
def test_many_idle_connections_come_back(
    gateway: GatewayProgram, cables: tuple[Cable, Cable], service: Service, forward: Forward
) -> None:
    (port,) = forward.ports()
    peers = [connect(port) for _ in range(50)]
    for peer in peers:
        peer.sendall(b"put")
    eventually(lambda: service.connections == 50, 20, "fifty connections")
    gateway.kill()
    for number, peer in enumerate(peers):  # while there is no gateway at all
        peer.sendall(b"number %d" % number)
    gateway.start()
    for number, peer in enumerate(peers):
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(64, socket.MSG_WAITALL).decode()
        assert answer == hashlib.sha256(b"number %d" % number).hexdigest()
        peer.close()
    assert service.connections == 50


def test_without_resume_a_cut_ends_it(
    gateway: GatewayProgram,
    admin: httpx.Client,
    wired: AgentProgram,
    cables: tuple[Cable, Cable],
    service: Service,
    tmp_path: Path,
) -> None:
    program = Forward(
        tmp_path / "client", cables[0].port, token_of(admin),
        "--no-resume", "wired", f"0:localhost:{service.port}", "0:127.0.0.1:1",
    ).start()  # fmt: skip
    try:
        port, dead = program.ports(2)
        with connect(port) as peer:
            peer.sendall(b"put")
            eventually(lambda: service.connections == 1, 10, "the connection")
            cables[0].cut()
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
        with connect(port) as peer:  # the next one has the next link
            peer.sendall(b"put")
            peer.shutdown(socket.SHUT_WR)
            assert len(peer.recv(64, socket.MSG_WAITALL)) == 64
        with connect(dead) as peer, contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        eventually(lambda: "refused the connection" in program.text(), 10, "saying why")
        assert "Traceback" not in program.text()
        assert program.stop() == 0
    finally:
        if program.alive:
            program.kill()


def test_the_machines_key_is_kept_and_another_is_refused(
    gateway: GatewayProgram,
    admin: httpx.Client,
    agent: AgentProgram,
    machine: str,
    service: Service,
    tmp_path: Path,
) -> None:
    recorded = admin.get(f"/api/v1/assets/{machine}").json()["data"]["key_fingerprint"]

    def answer(*options: str, ends_with: int = 0) -> tuple[bytes, str]:
        program = Forward(
            tmp_path / "client", gateway.port, token_of(admin),
            "box", f"0:127.0.0.1:{service.port}", "--e2e", *options,
        )  # fmt: skip
        program.log.unlink(missing_ok=True)
        program.start()
        try:
            with connect(program.ports()[0]) as peer, contextlib.suppress(ConnectionResetError):
                peer.sendall(b"put")
                peer.shutdown(socket.SHUT_WR)
                return peer.recv(64, socket.MSG_WAITALL), program.text()
            return b"", program.text()
        finally:
            if ends_with and program.process is not None:
                program.process.wait(15)  # by itself
            assert program.stop() == ends_with

    hashed = hashlib.sha256(b"").hexdigest().encode()
    assert answer()[0] == hashed
    kept = tmp_path / "client" / "home" / ".config" / "underpass" / "known_machines.json"
    assert list(json.loads(kept.read_text()).values()) == [
        {machine: recorded, "name:box": recorded}
    ]
    assert answer("--agent-key", recorded)[0] == hashed
    # It ends by itself at the first connection, with what `forward` says of a wrong key.
    assert answer("--agent-key", "sha256:" + "0" * 64, ends_with=4)[0] == b""
    kept.write_text(kept.read_text().replace(recorded, "sha256:" + "1" * 64))
    done = run(
        gateway, kept.parents[2], "--server", f"http://127.0.0.1:{gateway.port}", "forward", "box",
        "0:localhost:1", "--e2e", token=token_of(admin),
    )  # fmt: skip
    assert done.returncode == 4
    assert b"sha256:1111" in done.stderr
    assert service.connections >= 2


def test_what_cannot_start_says_why(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, tmp_path: Path
) -> None:
    token = token_of(admin)

    def call(*arguments: str) -> tuple[int, str]:
        done = run(gateway, tmp_path / "cli", *arguments, token=token, timeout=30)
        assert b"Traceback" not in done.stderr
        return done.returncode, done.stderr.decode()

    status, text = call("forward", "nobody", "80")
    assert (status, "no machine called" in text) == (5, True), text
    status, text = call("forward", "box", "80:90:100")
    assert (status, "no forward" in text) == (2, True), text
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, text = call("forward", "box", f"{taken.getsockname()[1]}:80")
        assert (status, "taken by another program" in text) == (6, True), text


def test_json_tells_where(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, tmp_path: Path
) -> None:
    program = Forward(
        tmp_path / "client", gateway.port, token_of(admin),
        "box", "0:127.0.0.1:1", "127.0.0.1:0:unix:/run/x", "--json",
    ).start()  # fmt: skip
    try:
        told = json.loads(eventually(lambda: re.search(r"(?s)^{.*^}$", program.text(), re.M))[0])
        first, second = told["forwards"]
        assert (first["host"], first["target"]) == ("127.0.0.1", "tcp:127.0.0.1:1")
        assert first["listening"] == f"127.0.0.1:{first['port']}"
        assert second["target"] == "unix:/run/x"
        assert program.stop() == 0
    finally:
        if program.alive:
            program.kill()
