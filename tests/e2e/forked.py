"""Our programs, forked from a process that has imported everything already.

Importing is most of what a program's start costs, and tests/e2e starts hundreds. With
``UNDERPASS_E2E=forked`` each test process keeps one parent (this module run as a program), which
forks a child for every program: a process of its own with its own arguments, environment, working
directory, files and process group, which then runs the same ``main()`` as ``underpass`` does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Forked", "fork"]

_LARGEST = 1024 * 1024
"""Bytes of one request: arguments and environment."""


class Forked:
    """A running child, with what tests use of :class:`subprocess.Popen`."""

    def __init__(self, pid: int, ended: socket.socket, args: list[str]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
                self.returncode = int(self._ended.recv(64) or b"-9")
                self._ended.close()
            return self.returncode


def fork(
    arguments: list[str], *, env: dict[str, str], cwd: Path, files: tuple[int, int, int]
) -> Forked:
    """Run ``underpass`` *arguments* with *files* as its input, output and error output."""
    ended, theirs = socket.socketpair()
    request = {"arguments": arguments, "env": env, "cwd": str(cwd)}
    with _turn:
        parent = _parent()
        with theirs:
            socket.send_fds(parent, [json.dumps(request).encode()], [*files, theirs.fileno()])
        pid = int(parent.recv(64) or b"0")
    assert pid, "the parent of forked programs is gone"
    return Forked(pid, ended, ["underpass", *arguments])


_turn = threading.Lock()


@functools.cache
def _parent() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for side in (ours, theirs):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()  # which it notices
        process.wait(10)

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork until the test process is gone; returns in each child, ready to run."""
    children: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        readable, _, _ = select.select([requests, woken], [], [])
        if woken in readable:
            woken.recv(4096)
            _reap(children)
        if requests not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 4)
        if not message:
            sys.exit(0)
        ended = socket.socket(fileno=descriptors.pop())
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for open_end in (requests, woken, wake, ended, *children.values()):
                open_end.close()
            _become(json.loads(message), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        children[pid] = ended
        requests.send(str(pid).encode())


def _reap(children: dict[int, socket.socket]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with children.pop(pid) as ended, contextlib.suppress(OSError):
                ended.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, Any], files: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    time.tzset()
    import underpass.cli.main

    sys.argv = [underpass.cli.main.__file__, *request["arguments"]]
    sys.path[0] = request["cwd"]  # as `python -m` has it


def _import_everything() -> None:
    import gc
    import importlib

    from underpass.cli.main import COMMANDS

    gc.disable()
    for module in {name for name, _ in COMMANDS.values()}:
        importlib.import_module(f"underpass.cli.{module}")
    for module in ("agent.app", "agent.settings", "cli.api", "core.logging", "gateway.serve"):
        importlib.import_module(f"underpass.{module}")
    importlib.import_module("uvloop")
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    _import_everything()
    assert threading.active_count() == 1, "only a process of one thread can be forked"
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from underpass.cli.main import main

    main()
