"""What is on its way through an entry point: found, seen to stand still, and cut."""

from __future__ import annotations

import asyncio
from typing import Protocol

from underpass.control.access import Action
from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.traffic import Counted
from underpass.links.datagram_socket import Address
from underpass.links.stream import Stream

__all__ = ["Answering", "Passage"]


class Answering(Protocol):
    """Where a datagram came to, and its answers leave from (``DatagramSocket``)."""

    @property
    def address(self) -> Address: ...

    def send(self, data: bytes, address: Address | None = None) -> bool:
        """Send an answer; False when it was dropped."""
        ...


class Passage:
    """One connection, flow or association on its way through, so that it can be found and cut."""

    __slots__ = (
        "action", "counted", "moved", "near", "peer", "preamble", "source", "task", "when",
    )  # fmt: skip

    def __init__(self, source: tuple[str, int], now: float) -> None:
        self.peer = source  # whose connection it is
        self.source = source  # for whom, when a balancer says so
        self.action: Action = "forward"
        self.task: asyncio.Task[None] | None = None
        self.counted: Counted | None = None
        self.near: Stream | None = None  # the user's end, while bytes are relayed
        self.preamble = 0  # bytes of the user's that were for us
        self.moved = 0
        self.when = now  # monotonic; when it was last seen to move

    def touch(self) -> None:
        """It moved, even if no byte was in it."""
        self.moved = -1

    def cut(self) -> None:
        """End it at once."""
        if self.task is not None:
            self.task.cancel()

    def end(self, error: UnderpassError) -> None:
        """The same, and both ends are told why where there is a way to say so."""
        if self.near is not None:
            self.near.abort(error.code, str(error))
        else:
            self.cut()

    def idle(self, now: float) -> float:
        """Seconds since it was first seen to stand still."""
        counted = self.counted
        moved = 0 if counted is None else counted.bytes_in + counted.bytes_out
        if moved != self.moved:
            self.moved, self.when = moved, now
        return now - self.when
