"""``underpass shell`` in a real pseudo-terminal: as if one sat at the machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import (
    UNDERPASS,
    AgentProgram,
    GatewayProgram,
    environment,
    eventually,
    run,
)
from tests.e2e.test_exec import token_of

STANDING = True


class Person:
    """Sits at a terminal in which a command runs."""

    def __init__(self, arguments: list[str], env: dict[str, str], cols: int, rows: int) -> None:
        self.master, slave = pty.openpty()
        self.size(cols, rows)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            arguments, stdin=slave, stdout=slave, stderr=slave, env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.slave = slave
        self.seen = b""

    def size(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str, timeout: float = 25.0) -> re.Match[bytes]:
        """Read until what came since the last match has *pattern*; what is matched is consumed."""
        deadline = time.monotonic() + timeout
        while True:
            if match := re.search(pattern.encode(), self.seen):
                self.seen = self.seen[match.end() :]
                return match
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            if not ready:
                raise AssertionError(f"never saw {pattern!r}; last: {self.seen[-1500:]!r}")
            with contextlib.suppress(OSError):
                self.seen += os.read(self.master, 65536)

    def end(self, timeout: float = 15.0) -> int:
        """Wait for the command; what it still prints goes to ``seen``."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def person(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, tmp_path: Path
) -> Iterator[Person]:
    env = environment(
        tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin), PS1="unused"
    )
    sitting = Person(
        [*UNDERPASS, "shell", "box", "--", "PS1='re''mote> ' bash --norc --noprofile"], env, 100, 30
    )
    yield sitting
    sitting.close()


def test_size_resize_and_exit_status(person: Person) -> None:
    person.until("remote> ")
    person.type("stty size\r")
    person.until("30 100")
    person.size(91, 27)
    os.kill(person.process.pid, 28)  # SIGWINCH, as the terminal would send it
    person.type("sleep 0.2; stty size\r")
    person.until("27 91")
    person.type("exit 3\r")
    assert person.end() == 3
    assert termios.tcgetattr(person.slave) == person.before


def test_it_comes_back_by_itself_after_a_gateway_restart(
    person: Person, gateway: GatewayProgram, admin: httpx.Client
) -> None:
    person.until("remote> ")
    person.type("echo pid=$$.\r")
    pid = person.until(r"pid=(\d+)\.")[1]
    gateway.kill()
    person.until("connection lost; reconnecting")
    person.type("echo typed-while-away; echo pid=$$.\r")
    gateway.start()
    person.until("reconnected")
    person.until(r"[\r\n]typed-while-away\r")
    assert person.until(r"pid=(\d+)\.")[1] == pid
    person.type("kill -9 $$\r")
    assert person.end() == 137


def test_the_escape_leaves_and_resume_comes_back(
    person: Person, gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path
) -> None:
    person.until("remote> ")
    person.type("marker=kept\r")
    person.until("remote> ")
    person.type("\r~.")
    assert person.end() == 255
    session = re.search(rb"--resume ([0-9a-f-]{36})", person.seen)
    assert session, person.seen
    assert termios.tcgetattr(person.slave) == person.before
    back = Person(
        [*UNDERPASS, "shell", "box", "--resume", session[1].decode()],
        environment(tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin)),
        100, 30,
    )  # fmt: skip
    try:
        back.until("reconnected")
        back.type("echo is-$marker\r")
        back.until("is-kept")
        back.type("exit\r")
        assert back.end() == 0
    finally:
        back.close()


def test_sigterm_gives_the_terminal_back(person: Person) -> None:
    person.until("remote> ")
    person.process.terminate()
    assert person.end() == 143
    assert termios.tcgetattr(person.slave) == person.before


def test_looking_on_and_ending(
    person: Person, gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path
) -> None:
    person.until("remote> ")
    listed = run(gateway, tmp_path / "cli", "--json", "sessions", "list", token=token_of(admin))
    (session,) = json.loads(listed.stdout)
    watcher = Person(
        [*UNDERPASS, "sessions", "watch", session["id"]],
        environment(tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin)),
        100, 30,
    )  # fmt: skip
    try:
        watcher.until("remote> ")
        person.type("echo seen-$((40+2))\r")
        watcher.until("seen-42")
        watcher.type("q")
        assert watcher.end() == 0
    finally:
        watcher.close()
    ended = run(
        gateway, tmp_path / "cli", "sessions", "end", session["id"][:8], token=token_of(admin)
    )
    assert ended.returncode == 0, ended.stderr
    assert person.end() == 255
    assert b"terminated" in person.seen


def test_what_was_on_the_screen_is_listed_found_exported_and_played(
    person: Person, gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path
) -> None:
    person.until("remote> ")
    person.type("echo needle-$((40+2))\r")
    person.until("needle-42")
    person.type("exit\r")
    assert person.end() == 0

    def call(*arguments: str) -> bytes:
        done = run(gateway, tmp_path / "cli", *arguments, token=token_of(admin))
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = call("sessions", "list", "--all", "--machine", "box")
    assert b"closed" in listed
    (recording,) = eventually(
        lambda: [
            item
            for item in json.loads(call("--json", "recordings", "list", "--text", "needle-42"))
            if item["status"] == "finished"
        ],
        what="the recording being finished",
    )
    assert recording["hits"]
    assert b"needle-42" in call("recordings", "list", "--text", "needle-42", "--machine", "box")
    cast = tmp_path / "x.cast"
    call("recordings", "export", recording["id"][:8], "-o", str(cast))
    assert json.loads(cast.read_text().splitlines()[0])["version"] == 2
    exists = run(
        gateway, tmp_path / "cli", "recordings", "export", recording["id"], "-o", str(cast),
        token=token_of(admin),
    )  # fmt: skip
    assert exists.returncode == 2
    assert b"--force" in exists.stderr
    assert call("recordings", "export", recording["id"], "-o", "-") == cast.read_bytes()
    for source in (recording["id"], str(cast)):
        played = call("recordings", "play", source, "--speed", "50", "--idle-limit", "0.1")
        assert b"needle-42" in played


def test_input_that_is_no_terminal(
    gateway: GatewayProgram, admin: httpx.Client, machine: str, agent: AgentProgram, tmp_path: Path
) -> None:
    done = run(
        gateway, tmp_path / "cli", "shell", "box", "--", "bash --norc --noprofile",
        token=token_of(admin), stdin=b"echo $((6*7))\nexit 5\n",
    )  # fmt: skip
    assert b"42" in done.stdout
    assert done.returncode == 5, done.stderr
    assert sys.executable not in done.stderr.decode()
