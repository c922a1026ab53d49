"""Resume: any order of output, credit, cuts and input loses or doubles no byte unannounced.

The input is a program of two-byte steps for a session with a small ring; a model that remembers
everything says what must come out.
"""

from __future__ import annotations

from underpass.agent.terminals.flow import SessionFlow
from underpass.wire.ring import ByteRing
from underpass.wire.terminal import INITIAL_CREDIT

SEEDS: list[bytes] = [
    bytes([0, 200, 1, 0, 3, 9, 3, 9, 2, 0, 0, 255, 0, 255, 1, 0, 3, 0, 6, 1]),
    bytes([1, 0, 4, 10, 5, 3, 2, 0, 1, 0, 5, 99, 4, 20, 7, 0, 8, 0, 3, 0]),
    bytes([0, 255] * 10 + [1, 0, 3, 0, 9, 44, 3, 0]),
    bytes([1, 0, 7, 0, 0, 50, 3, 0, 8, 3, 3, 0, 2, 0, 1, 0, 3, 0]),
]

_CAPACITY = 700


def one_input(data: bytes) -> None:
    """Run *data* as a program against one session."""
    _Run().run(data)


class _Run:
    def __init__(self) -> None:
        self.flow = SessionFlow(grace=60.0, now=0.0, ring=ByteRing(_CAPACITY, block=97))
        self.printed = bytearray()
        self.typed = bytearray()
        self.took = bytearray()
        self.have = 0  # output bytes the gateway has, announced gaps included
        self.credit = 0
        self.attached = False
        self.ended = False
        self.now = 0.0

    def run(self, data: bytes) -> None:
        for step in range(0, len(data) - 1, 2):
            self._step(data[step] % 10, data[step + 1])
            assert self.flow.offset == len(self.printed)
            assert self.flow.input_offset == len(self.took)
            assert self.took == self.typed[: len(self.took)]
            assert self.credit >= 0

    def _step(self, kind: int, value: int) -> None:
        match kind:
            case 0:
                self._print(value)
            case 1 if not self.attached:
                self._attach(self.have)
            case 2:
                self.now += value
                self.flow.detach(self.now)
                self.attached = False
            case 3:
                self._deliver()
            case 4 if self.attached and not self.ended:
                new = bytes((value,)) * (value % 17)
                self.typed += new
                self.flow.input(new)
            case 5:
                new = self.flow.next_input()[: value % 23]
                if new:
                    self.took += new
                    self.flow.took(len(new))
            case 6 if self.attached:
                self.flow.grant(value)
                self.credit += value
            case 7:
                self.flow.drain()
            case 8 if not self.ended:
                self.ended = True
                self.flow.end(value, None)
            case 9:
                # A peer that lies about what it has gets bytes that were, or nothing.
                self.attached = False
                self._attach(value * 5)
            case _:
                assert self.flow.overdue(self.now) in (True, False)
                taken = self.flow.due_ack(self.now)
                assert taken is None or taken <= len(self.took)

    def _print(self, value: int) -> None:
        if self.ended:
            return
        new = bytes((len(self.printed) + n) % 251 for n in range(min(value, self._budget())))
        self.printed += new
        self.flow.output(new)

    def _budget(self) -> int:
        budget = self.flow.read_budget()
        assert budget >= 0
        return budget

    def _attach(self, offset: int) -> None:
        start = self.flow.attach(offset)
        assert start >= len(self.printed) - _CAPACITY
        assert start <= len(self.printed)
        assert start >= min(offset, len(self.printed))
        self.have = start
        self.credit = INITIAL_CREDIT
        self.attached = True
        if not self.ended:
            self.flow.input(bytes(self.typed[self.flow.input_offset :]))

    def _deliver(self) -> None:
        data = self.flow.next_output()
        assert not data or self.attached
        assert data == self.printed[self.have : self.have + len(data)]
        self.have += len(data)
        self.credit -= len(data)
        end = self.flow.due_exit()
        if end is not None:
            assert self.have == len(self.printed) == end.offset
