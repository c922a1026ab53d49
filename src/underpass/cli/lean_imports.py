"""Leaves out of large libraries what no command uses: three quarters of a short command's time.

httpx carries a command line of its own and structlog pretty tracebacks; both pull in rich and
pygments. Each does without when they are not there, so for the moment of its import they are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["absent"]


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let imports of *names* fail within the block, unless they were imported before."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] - what import takes for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
