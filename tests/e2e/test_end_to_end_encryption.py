"""``--e2e`` through the real programs: what passes the gateway is ciphertext, and nobody lies.

Both ways to the gateway go through cables that see every byte over plain TCP.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.cable import Cable
from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, killing, run
from tests.e2e.test_exec import token_of
from tests.e2e.test_forward_survives import Forward
from tests.e2e.tunnelled import connect, make, read_all, tcp_server, udp_server
from underpass.wire.applications import key_fingerprint
from underpass.wire.socks5 import ClientHandshake, Socks5Error, build_udp, parse_udp

WINDOW = 16
QUESTION, ANSWER = os.urandom(100_000), os.urandom(100_000)
LONG = os.urandom(3 << 20)


@dataclass
class Wired:
    """A gateway, an agent ``box``, and what lies between it and everybody."""

    gateway: GatewayProgram
    agent: AgentProgram
    token: str
    directory: Path
    near: Cable
    """Between client and gateway."""
    far: Cable
    """Between gateway and agent."""
    _started: list[Forward] = field(default_factory=list[Forward])

    def forward(self, port: int, *arguments: str) -> Forward:
        return self._start("forward", f"0:127.0.0.1:{port}", *arguments)

    def socks(self, *arguments: str) -> Forward:
        return self._start("socks", "--port", "0", *arguments)

    def _start(self, command: str, *arguments: str) -> Forward:
        directory = self.directory / f"client-{len(self._started)}"
        directory.mkdir()
        if (keys := self.keys).exists():  # one person, who keeps what a machine proved
            (copy := self._keys_in(directory)).parent.mkdir(parents=True)
            shutil.copy(keys, copy)
        program = Forward(
            directory, self.near.port, self.token, "box", *arguments, command=command
        ).start()
        self._started.append(program)
        return program

    @property
    def keys(self) -> Path:
        """The keys that the last client kept."""
        return self._keys_in(self._started[-1].directory if self._started else self.directory)

    @staticmethod
    def _keys_in(directory: Path) -> Path:
        return directory / "home" / ".config" / "underpass" / "known_machines.json"

    def close(self) -> None:
        for program in self._started:
            if program.alive:
                program.kill()
        self.near.close()
        self.far.close()


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    directory = tmp_path_factory.mktemp("wired")
    gateway = GatewayProgram(directory).start()
    with contextlib.closing(gateway):
        admin = gateway.login()
        near, far = Cable(gateway.port), Cable(gateway.port)
        agent = _agent(gateway, admin, directory, far)
        world = Wired(gateway, agent, token_of(admin), directory, near, far)
        with killing(agent), contextlib.closing(world):
            agent.start()
            gateway.machine(admin, "box")
            yield world


def _agent(
    gateway: GatewayProgram, admin: httpx.Client, directory: Path, cable: Cable
) -> AgentProgram:
    agent = AgentProgram(directory, gateway, "box", token=gateway.join_token(admin))
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://127.0.0.1:{cable.port}"
    return agent


class Capture:
    """What passes a cable, each way."""

    def __init__(self, cable: Cable) -> None:
        self.outward, self.inward = bytearray(), bytearray()
        cable.passing = self._note

    def _note(self, data: bytes, outward: bool) -> bytes:
        (self.outward if outward else self.inward).extend(data)
        return data


def windows(data: bytes) -> set[bytes]:
    return {data[at : at + WINDOW] for at in range(len(data) - WINDOW + 1)}


def seen(capture: bytearray, wanted: set[bytes]) -> int:
    """How many places of *capture* hold a piece of what *wanted* was made of."""
    held = bytes(capture)
    return sum(held[at : at + WINDOW] in wanted for at in range(len(held) - WINDOW + 1))


def conversation(sock: socket.socket) -> None:
    got = sock.recv(len(QUESTION), socket.MSG_WAITALL)
    assert got == QUESTION
    sock.sendall(ANSWER)


@pytest.mark.parametrize("carrier", ["mux", "dedicated"])
def test_neither_side_of_the_gateway_carries_a_piece_of_the_bytes(
    wired: Wired, carrier: str
) -> None:
    question, answer = windows(QUESTION), windows(ANSWER)
    found: dict[bool, list[int]] = {}
    with tcp_server(conversation) as target:
        for e2e in (False, True):
            captures = Capture(wired.near), Capture(wired.far)
            program = wired.forward(target, "--carrier", carrier, *(["--e2e"] if e2e else []))
            with connect(program.ports()[0], timeout=30) as sock:
                sock.sendall(QUESTION)
                assert read_all(sock) == ANSWER
            assert program.stop() == 0
            near, far = captures
            # The client dials, and so does the agent: what one says outward the other hears inward.
            found[e2e] = [
                seen(near.outward, question), seen(far.inward, question),
                seen(far.outward, answer), seen(near.inward, answer),
            ]  # fmt: skip
            passed = min(len(near.outward), len(far.inward), len(far.outward), len(near.inward))
            assert passed > 100_000, "the cables did not see it pass"
    # Without it all but what lies across two frames is there, each way on both sides.
    assert min(found[False]) > 90_000, found
    assert found[True] == [0, 0, 0, 0], found


def test_the_gateway_itself_never_holds_a_piece_of_the_bytes(wired: Wired) -> None:
    """All of its memory is looked through while megabytes are on their way through it."""
    found: dict[bool, int] = {}
    over = threading.Event()
    with tcp_server(lambda _sock: over.wait(90)) as target:  # nobody reads: all of it stays
        for e2e in (True, False):
            secret = os.urandom(1 << 16)
            pieces = [secret[at : at + WINDOW] for at in range(0, len(secret), 1 << 11)]
            program = wired.forward(target, "--carrier", "mux", *(["--e2e"] if e2e else []))
            with connect(program.ports()[0], timeout=2) as sock:
                with pytest.raises(TimeoutError):
                    for _ in range(1024):  # 64 MiB: more than there are buffers and windows for
                        sock.sendall(secret)
                memory = b"".join(_memory(wired.gateway.pid))
            found[e2e] = sum(piece in memory for piece in pieces)
            assert program.stop() == 0
        over.set()
    assert found == {True: 0, False: 32}


def _memory(pid: int) -> Iterator[bytes]:
    """What a program of ours has written to its memory, region by region (proc(5))."""
    with (
        Path(f"/proc/{pid}/maps").open(encoding="utf-8") as maps,
        Path(f"/proc/{pid}/mem").open("rb", 0) as memory,
    ):
        for line in maps:
            where, rights, *_ = line.split()
            first, last = (int(end, 16) for end in where.split("-"))
            if rights.startswith("rw"):
                with contextlib.suppress(OSError):  # a device's, or gone since
                    memory.seek(first)
                    yield memory.read(last - first)


def test_what_goes_out_by_socks_is_as_tight(wired: Wired, tmp_path: Path) -> None:
    datagram, reply = os.urandom(1000), os.urandom(1000)
    captures = Capture(wired.near), Capture(wired.far)
    with (
        tcp_server(conversation) as target,
        udp_server(lambda data: reply if data == datagram else b"?") as service,
        contextlib.ExitStack() as stack,
    ):
        program = Forward(
            tmp_path / "socks", wired.near.port, wired.token, "box", "--port", "0", "--e2e",
            command="socks",
        ).start()  # fmt: skip
        stack.enter_context(killing(program))
        port = program.ports()[0]
        control, _ = _requested(port, ClientHandshake("127.0.0.1", target))
        with control:
            control.sendall(QUESTION)
            assert read_all(control) == ANSWER
        control, where = _requested(port, ClientHandshake("0.0.0.0", 0, command="udp_associate"))
        with control, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(build_udp("127.0.0.1", service, datagram), ("127.0.0.1", where))
            assert parse_udp(sock.recv(2000))[2] == reply
        assert program.stop() == 0
    wanted = windows(QUESTION) | windows(ANSWER) | windows(datagram) | windows(reply)
    for capture in captures:
        assert min(len(capture.outward), len(capture.inward)) > 100_000
        assert seen(capture.outward, wanted) == seen(capture.inward, wanted) == 0


def _requested(port: int, handshake: ClientHandshake) -> tuple[socket.socket, int]:
    """A connection that has got what it asked a SOCKS proxy for, and the port it was told."""
    sock = connect(port, timeout=30)
    while True:
        sock.sendall(handshake.data_to_send())
        if done := handshake.feed(sock.recv(1024)):
            return sock, done[0].port


class Flip:
    """Changes one bit inside a stream's bytes, well behind a frame's header, the first time that
    a large frame passes in the given direction."""

    _HEADER = re.compile(rb"\0\0\0[\1-\x40]\0(?=[\0\1])...", re.DOTALL)
    """Of a DATA frame (wire/frames.py): stream id, type 0, 24-bit length."""

    def __init__(
        self, cable: Cable, *, outward: bool, framed: bool = True, after: int = 1_000_000
    ) -> None:
        self.done = False
        self._outward = outward
        self._framed = framed
        self._left = after
        cable.passing = self._pass

    def _pass(self, data: bytes, outward: bool) -> bytes:
        if self.done or outward is not self._outward:
            return data
        self._left -= len(data)
        place = self._place(data) if self._left < 0 else None
        if place is None:
            return data
        self.done = True
        changed = bytearray(data)
        changed[place] ^= 0x20
        return bytes(changed)

    def _place(self, data: bytes) -> int | None:
        if not self._framed:
            return len(data) // 2
        found = self._HEADER.search(data)
        if found is None or found.end() + 1000 > len(data) or found[0][5:] < b"\0\x08\0":
            return None
        return found.end() + 500


def outcome(sock: socket.socket) -> tuple[bytes, bool]:
    """What comes, and whether it ends in an orderly way."""
    got = bytearray()
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionError:
        return bytes(got), False
    return bytes(got), True


@pytest.mark.parametrize(
    ("carrier", "more"),
    [("mux", []), ("mux", ["--no-resume"]), ("dedicated", ["--no-resume"])],
    ids=["resumable", "plain", "dedicated"],
)
def test_a_flipped_bit_ends_a_download_with_an_error(
    wired: Wired, carrier: str, more: list[str]
) -> None:
    with tcp_server(lambda sock: sock.sendall(LONG)) as target:

        def download(*arguments: str) -> tuple[bytes, bool]:
            program = wired.forward(target, "--carrier", carrier, *more, *arguments)
            port = program.ports()[0]
            flip = Flip(wired.far, outward=True, framed=carrier == "mux")
            with connect(port, timeout=30) as sock:
                found = outcome(sock)
            assert flip.done
            if arguments:
                eventually(lambda: "changed on its way" in program.text(), 10, "saying why")
            assert program.stop() == 0
            assert "Traceback" not in program.text() + wired.agent.text()
            return found

        got, orderly = download()  # without it nobody notices
        assert orderly
        assert len(got) == len(LONG)
        assert sum(a != b for a, b in zip(got, LONG, strict=True)) == 1
        got, orderly = download("--e2e")
        assert not orderly
        assert 0 < len(got) < len(LONG)
        assert LONG.startswith(got)


def test_a_flipped_bit_ends_an_upload_with_an_error_at_both_ends(wired: Wired) -> None:
    heard: list[tuple[bytes, bool]] = []

    def sink(sock: socket.socket) -> None:
        heard.append(outcome(sock))

    with tcp_server(sink) as target:
        program = wired.forward(target, "--carrier", "mux", "--e2e")
        with connect(program.ports()[0], timeout=30) as sock:
            flip = Flip(wired.far, outward=False)

            def send() -> None:
                with contextlib.suppress(OSError):
                    sock.sendall(LONG)
                    sock.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            data, orderly = outcome(sock)
            sender.join(30)
        assert flip.done
        assert (data, orderly) == (b"", False)
        got, orderly = eventually(lambda: heard, 10, "the target's end")[0]
        assert not orderly
        assert 0 < len(got) < len(LONG)
        assert LONG.startswith(got)
        eventually(lambda: "underpass: " in program.text(), 10, "saying why")
        assert program.stop() == 0


def test_from_machine_to_machine(wired: Wired, tmp_path: Path) -> None:
    """A mapping whose source is another machine: both agents are ends."""
    admin = wired.gateway.login()
    near = Cable(wired.gateway.port)
    laptop = AgentProgram(tmp_path, wired.gateway, "laptop", token=wired.gateway.join_token(admin))
    laptop.arguments[laptop.arguments.index("--server") + 1] = f"http://127.0.0.1:{near.port}"
    own, aside = wired.agent.state / "private_key.pem", tmp_path / "private_key.pem"
    wanted = windows(QUESTION) | windows(ANSWER)
    with contextlib.closing(near), tcp_server(conversation) as target, killing(laptop):
        laptop.start()
        source = {"client_id": wired.gateway.machine(admin, "laptop")["id"], "port": 0}
        box = wired.gateway.machine(admin, "box")["id"]
        for compression in ("none", "zstd"):
            captures = Capture(near), Capture(wired.far)
            options = {"e2e": True, "compression": compression}
            made = make(admin, box, target_port=target, source=source, options=options)
            with connect(made["source"]["port"], timeout=30) as sock:
                sock.sendall(QUESTION)
                assert read_all(sock) == ANSWER
            for capture in captures:
                assert min(len(capture.outward), len(capture.inward)) > 100_000
                assert seen(capture.outward, wanted) == seen(capture.inward, wanted) == 0
        plain = make(admin, box, target_port=target, source=source)
        captures = Capture(near), Capture(wired.far)
        with connect(plain["source"]["port"], timeout=30) as sock:
            sock.sendall(QUESTION)
            assert read_all(sock) == ANSWER
        assert all(seen(one.outward + one.inward, wanted) > 90_000 for one in captures)

        # Another key is refused, and what was sent arrives nowhere.
        wired.agent.stop()
        shutil.copy(own, aside)
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        own.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            wired.agent.start()
            eventually(lambda: _answers(plain["source"]["port"]), 20, "the machine being back")
            with connect(made["source"]["port"], timeout=30) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(QUESTION)
                assert outcome(sock)[0] == b""
            eventually(lambda: "machine_key_refused" in laptop.text(), 10, "saying why")
            assert key_fingerprint(other.public_key()) in laptop.text()
        finally:
            wired.agent.stop()
            shutil.copy(aside, own)
            wired.agent.start()
        eventually(lambda: _answers(made["source"]["port"]), 20, "the right key")
        assert "Traceback" not in laptop.text() + wired.agent.text()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), connect(port, timeout=30) as sock:
        sock.sendall(QUESTION)
        return read_all(sock) == ANSWER
    return False


def test_a_key_swapped_meanwhile_ends_the_commands(wired: Wired, tmp_path: Path) -> None:
    """They were right when they began; then somebody has the agent's secret and another key."""
    heard: list[bytes] = []
    own, aside = wired.agent.state / "private_key.pem", tmp_path / "private_key.pem"
    with tcp_server(lambda sock: heard.append(read_all(sock))) as target:
        programs = [wired.forward(target, "--e2e"), wired.socks("--e2e")]
        forward, socks = (program.ports()[0] for program in programs)

        def ask_both() -> list[bytes]:
            """What comes back; nothing is said before a key was proved."""
            found: list[bytes] = []
            with connect(forward, timeout=30) as sock:
                sock.sendall(b"for box alone")
                sock.shutdown(socket.SHUT_WR)
                found.append(outcome(sock)[0])
            with contextlib.suppress(Socks5Error):
                control, _ = _requested(socks, ClientHandshake("127.0.0.1", target))
                with control:
                    control.sendall(b"for box alone")
                    control.shutdown(socket.SHUT_WR)
                    found.append(outcome(control)[0])
            return found

        ask_both()
        eventually(lambda: heard == [b"for box alone"] * 2, what="the bytes arriving")
        wired.agent.stop()
        shutil.copy(own, aside)
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        own.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            wired.agent.start()
            assert not any(ask_both())
            for program in programs:
                eventually(lambda program=program: not program.alive, 10, "the end")
                assert program.stop() == 4
                told = [line for line in program.text().splitlines() if "underpass: " in line]
                assert len(told) == 1, program.text()
                assert told[0].startswith("underpass: The key of box is not the one known here")
                assert f"it now proves {key_fingerprint(other.public_key())}" in told[0]
                assert "Traceback" not in program.text()
        finally:
            wired.agent.stop()
            shutil.copy(aside, own)
            wired.agent.start()
        assert heard == [b"for box alone"] * 2
        with connect(wired.forward(target, "--e2e").ports()[0], timeout=30) as sock:
            sock.sendall(b"itself again")
        eventually(lambda: heard[-1:] == [b"itself again"], what="the bytes arriving")


def test_another_key_under_the_same_name_is_refused(wired: Wired, tmp_path: Path) -> None:
    """The last in its module: it takes the machine away."""
    admin = wired.gateway.login()
    heard: list[bytes] = []
    with tcp_server(lambda sock: heard.append(read_all(sock))) as target:
        program = wired.forward(target, "--e2e")
        with connect(program.ports()[0]) as sock:
            sock.sendall(b"for box alone")
        eventually(lambda: heard == [b"for box alone"], what="the bytes arriving")
        assert program.stop() == 0
        before = wired.gateway.machine(admin, "box")

        # Somebody else's machine takes the name: another id, another key.
        wired.agent.stop()
        assert admin.delete(f"/api/v1/assets/{before['id']}").status_code == 200
        shutil.rmtree(wired.agent.state)
        other = _agent(wired.gateway, admin, tmp_path / "other", wired.far)
        with killing(other):
            other.start()
            after = wired.gateway.machine(admin, "box")
            assert after["id"] != before["id"]
            new, old = after["key_fingerprint"], before["key_fingerprint"]
            assert new != old

            def refused() -> str:
                done = run(
                    wired.gateway, wired.keys.parents[2],
                    "--server", f"http://127.0.0.1:{wired.near.port}",
                    "forward", "box", f"0:127.0.0.1:{target}", "--e2e", token=wired.token,
                )  # fmt: skip
                assert done.returncode == 4  # forbidden: docs/reference/exit-codes.md
                assert b"listening" not in done.stdout
                return " ".join(done.stderr.decode().split())

            told = refused()
            assert f"The key of box is not the one known here: it was {old}" in told
            assert f"accept it with --agent-key {new}" in told

            # A gateway that hides it is found out by what the machine proves.
            _record(wired.gateway, after["id"], old)
            program = wired.forward(target, "--e2e")
            with connect(program.ports()[0]) as sock:
                sock.sendall(b"for box alone")
                assert outcome(sock) == (b"", False)
            assert eventually(lambda: not program.alive, 10, "the end")
            assert program.stop() == 4
            assert f"it now proves {new}" in program.text()
            assert [data for data in heard if data] == [b"for box alone"]

            # Whoever has compared the keys says so, once.
            _record(wired.gateway, after["id"], new)
            for more in (["--agent-key", new], []):
                program = wired.forward(target, "--e2e", *more)
                with connect(program.ports()[0]) as sock:
                    sock.sendall(b"accepted")
                eventually(lambda: heard[-1:] == [b"accepted"], what="the bytes arriving")
                heard.clear()
                assert program.stop() == 0


def _record(gateway: GatewayProgram, machine: str, fingerprint: str) -> None:
    """Have the gateway's record say that *machine* has the key *fingerprint*."""
    with contextlib.closing(sqlite3.connect(gateway.state / "underpass.db", timeout=10)) as db:
        db.execute("UPDATE assets SET key_fingerprint = ? WHERE id = ?", (fingerprint, machine))
        db.commit()
        assert db.total_changes == 1
