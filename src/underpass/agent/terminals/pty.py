"""A pseudo-terminal with the program that runs in it: spawn, size, bytes, end.

Start of a program: the pty is opened and given its size, its device is handed to the login,
``subprocess.Popen`` starts ``child.py`` (see there why not ``os.fork``) as the leader of a new OS
session, and that becomes the program. The end is learned in :mod:`.processes`.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from underpass.agent.terminals.descriptor import Descriptor
from underpass.agent.terminals.login import Login, tty_group
from underpass.agent.terminals.processes import Program
from underpass.core.errors import Internal, Unavailable

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Pty", "pty_supported", "spawn"]

_CHILD = str(Path(__file__).with_name("child.py"))
_START_TIMEOUT = 10.0


def pty_supported() -> bool:
    """Whether this system has ptys (Windows' ConPTY is not supported)."""
    return sys.platform != "win32"


class Pty:
    """The master side of a terminal and its program.

    Args:
        master: descriptor of the master side; owned from now on.
        program: the program; owned from now on.
    """

    def __init__(self, master: int, program: Program, cols: int, rows: int) -> None:
        self.master = Descriptor(master)
        self.program = program
        self.size = (cols, rows)

    def resize(self, cols: int, rows: int) -> bool:
        """Set the window size; False, and no SIGWINCH, when it already is that."""
        if self.size == (cols, rows) or self.master.closed:
            return False
        self.size = (cols, rows)
        _set_size(self.master.fileno(), cols, rows)
        return True

    async def close(self) -> None:
        """End every process of the session, give the pty back. Idempotent; ≤ 5 s."""
        # The master stays open while they end: output they print on SIGHUP must not fail, and
        # closing it would send its own SIGHUP to the foreground group only.
        try:
            await self.program.end()
        finally:
            self.master.close()


def _set_size(fd: int, cols: int, rows: int) -> None:
    # struct winsize: rows, columns, then two pixel sizes nobody uses.
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


async def spawn(
    login: Login,
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    cols: int,
    rows: int,
) -> Pty:
    """Start *program* in a new terminal of its final size.

    Args:
        login: whom to run as, and where.
        program: absolute path.
        arguments: argv, its first word included (``-bash`` makes a login shell).
        environment: all of its environment.
        cols: columns, 1 to 1000.
        rows: rows, 1 to 1000.

    Raises:
        Unavailable: ``pty_unsupported``, or ``pty_exhausted`` when the system has no more ptys,
            processes or descriptors.
        Internal: ``spawn_failed``: the program could not be started; the reason is in the text.
    """
    if not pty_supported():
        raise Unavailable(
            "This machine runs Windows, where the agent has no terminals yet.",
            code="pty_unsupported",
        )
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise _exhausted(error) from error
    try:
        _set_size(slave, cols, rows)
        if login.drop is not None:
            # As sshd does: the terminal belongs to its user, others may only write through `tty`.
            group = tty_group()
            os.fchown(slave, login.uid, login.gid if group is None else group)
            os.fchmod(slave, 0o620 if group is not None else 0o600)
        process = await _start(login, program, arguments, environment, slave)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return Pty(master, process, cols, rows)


async def _start(
    login: Login,
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    slave: int,
) -> Program:
    status_read, status_write = os.pipe()
    drop = login.drop
    identity = (
        ["-", "-", "-"]
        if drop is None
        else [str(drop.uid), str(drop.gid), ",".join(map(str, drop.groups))]
    )
    command = [
        sys.executable, "-I", "-S", _CHILD, str(status_write), *identity,
        "-" if "LC_CTYPE" in environment else "LC_CTYPE", login.directory, program, *arguments,
    ]  # fmt: skip
    try:
        # Blocks for a vfork and an exec, 1 to 3 ms; in a thread, a cancelled task could lose it.
        process = subprocess.Popen(  # noqa: ASYNC220
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
            pass_fds=(status_write,),
        )
    except OSError as error:
        os.close(status_read)
        raise _exhausted(error) from error
    finally:
        os.close(status_write)
    # From here to the `Program` nothing may wait: a cancelled task must not lose a process.
    running = Program(process)
    status = Descriptor(status_read)
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            failure = await status.read(512)
    except TimeoutError:
        await running.end()
        raise Internal(
            "The program did not start in time; the machine is overloaded.", code="spawn_failed"
        ) from None
    except BaseException:
        # Cancelled: the session nobody got is ended before we go.
        await asyncio.shield(running.end())
        raise
    finally:
        status.close()
    if failure:
        await running.end()
        reason = failure.decode(errors="replace")
        raise Internal(f"The program {program!r} did not start ({reason}).", code="spawn_failed")
    return running


def _exhausted(error: OSError) -> Unavailable:
    return Unavailable(
        f"This machine cannot start another program: {error.strerror}.", code="pty_exhausted"
    )
