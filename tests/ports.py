"""Ports for servers that tests start in other processes, which have to be told a number.

A port the system picks for us and we close again is anybody's: another test process may be given
the same one before our server has opened it, or an outgoing connection may take it. So each
process of a run counts through ports of its own, below those the systems hand out by themselves
(from 32,768 on) and below those that mappings take (from 20,000 on).
"""

from __future__ import annotations

import itertools
import os
import socket
from typing import Final

__all__ = ["free_port"]

_FIRST: Final = 10_000
_EACH: Final = 1_000
_PROCESSES: Final = 10

_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
# Begun at different places, so that two runs on one machine seldom try the same.
_turns = itertools.count(os.getpid() * 61)


def free_port() -> int:
    """A port of this process's own that nobody listens on, neither TCP nor UDP."""
    for turn in itertools.islice(_turns, _EACH):
        port = _FIRST + _WORKER * _EACH + turn % _EACH
        if _is_free(port):
            return port
    raise RuntimeError("all ports of this test process are taken")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
