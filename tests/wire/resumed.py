"""Two ends of a resumable stream over a path that a test moves by hand, and may cut anywhere."""

from __future__ import annotations

from underpass.wire.resume_records import Ended, Reset
from underpass.wire.resumption import Resumption

__all__ = ["Cable", "Side"]


class Side:
    """One end, what was written to it, what it received, and what is on its way to it."""

    def __init__(self, window: int) -> None:
        self.core = Resumption(window=window)
        self.written = bytearray()
        self.got = bytearray()
        self.at_eof = False
        self.unread = 0
        self.inbox = bytearray()

    def write(self, data: bytes) -> None:
        if not self.core.finished:
            self.written += data
            self.core.push(data)

    def outgoing(self, limit: int = 1000) -> bytes:
        records: list[bytes] = []
        while len(records) < limit and (record := self.core.next_record()):
            records.append(record)
        return b"".join(records)

    def take(self, data: bytes) -> None:
        for event in self.core.feed(data):
            if isinstance(event, Ended):
                assert not self.at_eof
                self.at_eof = True
            else:
                assert not isinstance(event, Reset)
                assert not self.at_eof
                self.got += event
                self.unread += len(event)

    def read(self, count: int) -> None:
        count = min(count, self.unread)
        self.unread -= count
        self.core.consume(count)


class Cable:
    """The two ends and the path between them; ``client`` dials, ``agent`` accepts."""

    def __init__(self, window: int = 600) -> None:
        self.client = Side(window)
        self.agent = Side(window)
        self.up = False

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.client, self.agent

    def other(self, side: Side) -> Side:
        return self.agent if side is self.client else self.client

    def cut(self, *, agent_notices: bool = True) -> None:
        """Lose the path and what was on it; an agent may notice only when the next comes."""
        self.up = False
        for side in self.sides:
            side.inbox.clear()
        self.client.core.detach()
        if agent_notices:
            self.agent.core.detach()

    def dial(self) -> None:
        """Put a new path in its place."""
        self.cut(agent_notices=False)
        self.up = True
        received = self.client.core.received
        self.client.core.dialled()
        self.client.inbox += self.agent.core.accepted(received)

    def send(self, side: Side, limit: int = 1000) -> None:
        """Hand what *side* may send to the path."""
        if self.up:
            data = side.outgoing(limit)
            self.other(side).inbox += data

    def acknowledge(self, side: Side) -> None:
        if self.up and side.core.owes:
            self.other(side).inbox += side.core.acknowledge()

    def deliver(self, side: Side, count: int) -> None:
        """Bring at most *count* bytes to *side*."""
        data = bytes(side.inbox[:count])
        del side.inbox[:count]
        if data:
            side.take(data)

    def settle(self) -> None:
        """Move everything until nothing moves."""
        for _ in range(10_000):
            moved = False
            for side in self.sides:
                side.read(1 << 30)
                moved = moved or bool(side.inbox) or side.core.owes
                self.deliver(side, 1 << 30)
                side.read(1 << 30)
                self.acknowledge(side)
                before = side.core.sent
                self.send(side)
                moved = moved or side.core.sent != before
            if not moved:
                return
        raise AssertionError("they never came to rest")

    def check(self) -> None:
        """What must hold at any time."""
        for side in self.sides:
            other = self.other(side)
            assert side.got == other.written[: len(side.got)]
            assert not side.at_eof or side.got == other.written
            assert side.core.received == len(side.got) + side.at_eof
            assert side.unread <= side.core.window
            assert side.core.acked <= other.core.received
            assert side.core.sent - other.core.received <= other.core.window + 1
            assert not side.core.complete or (side.at_eof and other.at_eof)
