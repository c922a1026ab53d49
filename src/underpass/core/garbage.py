"""The garbage collector of a process that serves for a long time."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["relax", "settle"]

_YOUNG: Final = 20_000
"""Objects made and not yet freed before the collector looks for cycles among them. Python's 700 are
a dozen connections: it looked through all that are open again and again, for an eighth of the
processor's time, and found next to nothing, since what we make for a connection is freed by
counting."""


def relax() -> None:
    """Call before the large imports: what they make stays, and looking through it again and again
    is a tenth of a gateway's start."""
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG, middle, old)


def settle() -> None:
    """Call once, when everything is made that lives as long as the process."""
    gc.collect()
    gc.freeze()  # no need to look at it again
    relax()
