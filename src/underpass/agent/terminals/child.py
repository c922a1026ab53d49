"""What runs in the child between spawn and exec of a terminal's program: a script of its own.

A pty's program needs a controlling terminal, which ``subprocess`` can only give through code that
runs between fork and exec. Forking a Python process that has threads and running Python there can
deadlock on any lock another thread holds, so the agent never does: ``subprocess.Popen`` (vfork and
exec in C) starts *this file* in a fresh interpreter, ``python -I -S child.py …``, which does what
is left with one thread and nobody's locks, and then becomes the program. That costs 10 to 12 ms,
measured, of the 300 ms a prompt may take.

Arguments: status descriptor, uid, gid, groups (comma separated) or ``-`` three times to stay who
we are, a variable to unset (or ``-``), directory, program, argv0, further arguments. The terminal
is descriptor 0, 1 and 2. A failure is written to the status descriptor as ``step: reason``; a
successful exec closes it.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios

try:
    # The public module spends as long on building its enums as all the rest of this file takes.
    import _signal as signals  # pyright: ignore[reportMissingImports]
except ImportError:  # another Python implementation
    import signal as signals

__all__ = ["become"]


def become(arguments: list[str]) -> None:
    """Turn this process into the program; returns only by exiting with 127."""
    status = int(arguments[0])
    step = "signals"
    try:
        os.set_inheritable(status, False)
        # The interpreter ignores SIGPIPE, and whoever started the agent may have ignored or
        # blocked others (nohup, a service manager); programs expect the defaults.
        for number in range(1, signals.NSIG):
            try:
                signals.signal(number, signals.SIG_DFL)
            except (OSError, ValueError):
                continue  # SIGKILL, SIGSTOP and the C library's own
        signals.pthread_sigmask(signals.SIG_SETMASK, [])
        step = "controlling terminal"
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        step = "login"
        uid, gid, groups = arguments[1:4]
        if uid != "-":
            # Groups first: afterwards the right to change them is gone.
            os.setgroups([int(group) for group in groups.split(",") if group])
            os.setgid(int(gid))
            os.setuid(int(uid))
            if os.getuid() != int(uid) or os.geteuid() != int(uid) or os.getegid() != int(gid):
                raise PermissionError("privileges were not dropped")
        os.umask(0o022)
        step = "directory"
        try:
            os.chdir(arguments[5])
        except OSError:
            os.chdir("/")
        step = "program"
        # The interpreter set LC_CTYPE for itself if it was started in the C locale (PEP 538).
        os.environ.pop(arguments[4], None)
        os.execve(arguments[6], arguments[7:], os.environ)  # noqa: S606 - that is its job
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        os.write(status, f"{step}: {reason}".encode()[:512])
    os._exit(127)


if __name__ == "__main__":
    become(sys.argv[1:])
