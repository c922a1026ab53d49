"""Which processes a test started, among those its worker has anyway (databases of other tests)."""

from __future__ import annotations

import psutil

__all__ = ["mark", "started"]

_before: set[int] = set()


def mark() -> None:
    """From now on only new children count."""
    _before.clear()
    _before.update(child.pid for child in psutil.Process().children(recursive=True))


def started(*, recursive: bool = False) -> list[psutil.Process]:
    """This process's children that were not there at :func:`mark`."""
    children = psutil.Process().children(recursive=recursive)
    return [child for child in children if child.pid not in _before]
