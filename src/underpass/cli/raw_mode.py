"""The person's own terminal, given over to a remote program and always taken back."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["leave_modes", "raw_terminal", "terminal_size"]

_LEAVE = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l"  # mouse reports
    b"\x1b[?2004l\x1b[?1l\x1b>"  # bracketed paste, application keys
    b"\x1b[?25h\x1b[0m"  # cursor shown, plain text
)
_ALTERNATE_SCREEN_OFF = b"\x1b[?1049l"


def terminal_size(fd: int) -> tuple[int, int]:
    """Columns and rows of the terminal at *fd*; 80 × 24 when it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return (size.columns or 80, size.lines or 24)


def leave_modes(on_alternate_screen: bool) -> bytes:
    """What undoes the modes a full-screen program may have left behind when it was cut off."""
    return (_ALTERNATE_SCREEN_OFF if on_alternate_screen else b"") + _LEAVE


@contextmanager
def raw_terminal(fd: int) -> Iterator[Callable[[], None]]:
    """Raw mode on the terminal at *fd* for the block; restored on every way out.

    Gives a function that sets raw mode again (after the process was stopped and continued, the
    shell may have changed it). When *fd* is no terminal, nothing happens.
    """
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield lambda: None
        return

    def set_raw() -> None:
        tty.setraw(fd, termios.TCSADRAIN)

    set_raw()
    try:
        yield set_raw
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stderr.flush()
