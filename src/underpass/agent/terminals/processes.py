"""Learning how a program ended, and ending all that belongs to its session.

Nothing here touches SIGCHLD or asyncio's child watcher: a program's end is learned from a pidfd
(or from a waiting thread where there are none), and it is *reaped* only when nothing of its
session is left to signal, so that its number cannot come to mean another process meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from typing import Any

import psutil
import structlog

__all__ = ["Program", "session_members", "signal_name"]

_log = structlog.get_logger(__name__)

_TERM_AFTER = 0.5
_KILL_AFTER = 2.0
_GIVE_UP_AFTER = 4.0


def signal_name(number: int) -> str:
    """``"SIGKILL"`` for 9; real-time and unknown signals as ``"SIG64"``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def session_members(session: int, *, without: int | None = None) -> list[int]:
    """The live processes of the OS session *session* (its leader included unless excluded).

    Zombies don't count: they are over, somebody only has to notice.
    """
    members: list[int] = []
    for pid in psutil.pids():
        if pid in (0, without):
            continue
        try:
            if os.getsid(pid) == session and not _is_zombie(pid):
                members.append(pid)
        except (OSError, psutil.Error):
            continue  # it ended between the two calls
    return members


def _is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


class Program:
    """A started program that leads an OS session of its own.

    Args:
        process: started with ``start_new_session=True``; owned by this object from now on.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._reaped = False
        self._code: int | None = None
        self._signal: str | None = None
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):
            # macOS, or Linux before 5.3. Nothing else waits for this child, so a thread may.
            threading.Thread(
                target=self._wait_in_thread, name=f"wait-{process.pid}", daemon=True
            ).start()
        else:
            self._loop.add_reader(self._pidfd, self._look)

    @property
    def ended(self) -> bool:
        """Whether the program itself is over; others of its session may go on."""
        return self._ended.is_set()

    @property
    def code(self) -> int | None:
        """Exit code, when it ended by exiting."""
        return self._code

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended it."""
        return self._signal

    async def wait(self) -> None:
        """Wait until the program itself is over."""
        await self._ended.wait()

    def _look(self) -> None:
        self._note(os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))

    def _wait_in_thread(self) -> None:
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        try:
            self._loop.call_soon_threadsafe(self._note, result)
        except RuntimeError:
            _log.debug("program_ended_after_loop", pid=self.pid)

    def _note(self, result: Any) -> None:
        if result is None or self._ended.is_set():
            return
        if result.si_code == os.CLD_EXITED:
            self._code = result.si_status
        else:
            self._signal = signal_name(result.si_status)
        self._close_pidfd()
        self._ended.set()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def reap(self) -> None:
        """Let the system forget the ended program. Idempotent; does nothing while it runs."""
        if self._ended.is_set() and not self._reaped:
            self._reaped = True
            self._process.wait()

    def send(self, number: int, *, leader: bool = True) -> int:
        """Signal every process of the session; returns how many there were."""
        if self._reaped:
            return 0
        members = session_members(self.pid, without=None if leader else self.pid)
        for pid in members:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or a set-uid program an unprivileged agent can't reach
        return len(members)

    def send_group(self, number: int) -> None:
        """Signal the program's own process group, as a terminal's key would."""
        if not self._reaped:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    async def end(self) -> None:
        """End the whole session: SIGHUP, SIGTERM after 0.5 s, SIGKILL after 2 s; then reap.

        Takes at most about 4 s; what even SIGKILL does not end (stuck in the kernel) is logged
        and left to the system.
        """
        started = self._loop.time()
        sent: set[int] = set()
        while True:
            passed = self._loop.time() - started
            if passed >= _KILL_AFTER:
                left = self.send(signal.SIGKILL)  # again and again: they may be forking
            elif passed >= _TERM_AFTER and signal.SIGTERM not in sent:
                sent.add(signal.SIGTERM)
                left = self.send(signal.SIGTERM)
            elif signal.SIGHUP not in sent:
                sent.add(signal.SIGHUP)
                left = self.send(signal.SIGHUP)
                self.send(signal.SIGCONT)  # a stopped job can't act on a hang-up
            else:
                left = 0 if self._reaped else len(session_members(self.pid))
            if not left and self.ended:
                break
            if passed >= _GIVE_UP_AFTER:
                _log.error("session_processes_stuck", pid=self.pid, left=left)
                break
            pause = 0.01 if passed < 0.1 else 0.05
            if self.ended:
                await asyncio.sleep(pause)
                continue
            try:
                await asyncio.wait_for(self._ended.wait(), pause)
            except TimeoutError:
                continue
        self.reap()
        if not self._reaped:
            # Stuck in the kernel: a thread that waits is all that is left to prevent a zombie.
            self._close_pidfd()
            threading.Thread(target=self._process.wait, daemon=True).start()
