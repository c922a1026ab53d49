"""What a hub decides: which bytes go to whom, how much the agent may send. No I/O, no time.

One byte log holds the session's output under absolute offsets. Everybody who watches is a cursor
into it, the trunk writes at its end, and credit for the agent follows the owner, or the recorder
when nobody is attached::

    agent --trunk--> [ log ] --> owner (gated by the credit the browser grants)
                        |------> second writers, observers (skipped ahead when too slow)
                        '------> recorder (only its position matters here)

The promise tested in tests/gateway/terminals/test_hub_core.py: whatever trunks and sockets do, the
owner gets every output byte once and in order, or a :class:`Skip` that says how many are missing;
the agent gets every accepted input byte once and in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from underpass.core.errors import InvalidRequest
from underpass.wire.ring import ByteRing
from underpass.wire.terminal import INITIAL_CREDIT, MAX_CREDIT, MAX_FRAME

__all__ = ["INPUT_CAP", "RING", "Cursor", "Gap", "HubCore", "Role", "Skip"]

RING = 2 * 1024 * 1024
"""Bytes of output kept for those who come back or watch."""
INPUT_CAP = 64 * 1024
"""Input bytes the agent has not acknowledged; beyond this no more is read from browsers."""
REPLAY = 128 * 1024
"""Output an observer is shown of what came before it."""
_AHEAD = RING // 2  # how far past the owner's cursor the agent may ever be, so nothing falls out
_GRANT = 16 * 1024  # smaller credits wait for more, unless the agent is about to stop

Role = Literal["owner", "writer", "observer"]


@dataclass(frozen=True, slots=True)
class Skip:
    """The next output byte is the one at *offset*; those between are not coming."""

    offset: int


@dataclass(frozen=True, slots=True)
class Gap:
    """*count* output bytes were lost between the last trunk and this one."""

    count: int


class Cursor:
    """One who watches.

    Attributes:
        offset: absolute offset of the next byte to send.
        limit: absolute offset up to which the client will take bytes; None = plain back-pressure.
    """

    __slots__ = ("limit", "offset", "role")

    def __init__(self, role: Role, offset: int, credit: bool) -> None:
        self.role: Role = role
        self.offset = offset
        self.limit: int | None = offset + INITIAL_CREDIT if credit else None

    def grant(self, count: int) -> None:
        """The client takes *count* bytes more; absurd amounts count as :data:`MAX_CREDIT`."""
        if self.limit is not None and count > 0:
            self.limit = min(self.limit + min(count, MAX_CREDIT), self.offset + MAX_CREDIT)

    def jump(self, offset: int) -> None:
        """Go on at *offset*; the client never counted what lies between, so neither do we."""
        if self.limit is not None:
            self.limit += offset - self.offset
        self.offset = offset


class HubCore:
    """The deciding half of a hub.

    Args:
        start: offset of the first output byte expected: 0 for a new session; for one taken over
            after a restart some way before the end of its recording, since a browser may have
            less than was recorded.
        ring: bytes of output to keep.
        recorded: where the recording stopped, when that is after *start*.
    """

    def __init__(self, start: int = 0, ring: int = RING, *, recorded: int = 0) -> None:
        self._record_from = max(start, recorded)
        self.log = ByteRing(ring, start=start)
        self._ahead = min(_AHEAD, max(ring // 2, 1))
        self.cursors: set[Cursor] = set()
        self.owner: Cursor | None = None
        self.recorded: int | None = self._record_from
        """How far the recorder is; None when there is none (any more)."""
        self.known_end = self._record_from
        """No output byte beyond this is known to exist; a client that claims more is mistaken."""
        self.exit_offset: int | None = None
        self.attached = False
        self._trunk_offset = start
        self._trunk_limit = start
        self._input = bytearray()
        self._input_base = 0  # offset of the first byte of _input: what the agent acknowledged
        self._input_sent = 0

    # -- the trunk --------------------------------------------------------------------------------

    def trunk_attached(self, offset: int, input_offset: int) -> Gap | None:
        """A trunk begins: its output starts at *offset*, the agent has taken *input_offset* bytes.

        Returns:
            The gap in the recording, when the agent no longer has what should come next.
        """
        missing = offset - max(self.log.end, self._record_from)
        gap = Gap(missing) if missing > 0 else None
        if offset > self.log.end:
            # The log must stay one run of bytes: what is older than the gap is let go.
            self.log = ByteRing(self.log.capacity, start=offset)
        self.attached = True
        self._trunk_offset = offset
        self._trunk_limit = offset + INITIAL_CREDIT
        self.known_end = max(self.known_end, self.log.end)
        if input_offset >= self.input_end:
            # Ahead of us: a gateway before us passed that on. Nothing of ours is left to send.
            self._input.clear()
            self._input_base = input_offset
        elif input_offset > self._input_base:
            del self._input[: input_offset - self._input_base]
            self._input_base = input_offset
        self._input_sent = self._input_base
        return gap

    def trunk_lost(self) -> None:
        """The trunk is gone; what was under way will come again over the next."""
        self.attached = False

    def output(self, data: bytes) -> bytes:
        """*data* came over the trunk; returns the part of it that is not recorded yet."""
        offset = self._trunk_offset
        self._trunk_offset += len(data)
        known = self.log.end - offset
        if known > 0:
            data = data[known:]
        if not data:
            return data
        self.log.append(data)
        self.known_end = max(self.known_end, self.log.end)
        unrecorded = self.log.end - self._record_from
        return data[-unrecorded:] if 0 < unrecorded < len(data) else data if unrecorded > 0 else b""

    def credit_due(self) -> int:
        """Output bytes the agent may now be allowed on top of what it was; 0 = say nothing."""
        if not self.attached:
            return 0
        if self.owner is not None:
            # As far as the browser takes it, so that no more is under way end to end than the
            # browser asked for; and never so far that the log would drop what it has not got.
            ahead = self.owner.offset + self._ahead
            wanted = self.owner.offset + INITIAL_CREDIT
            if self.owner.limit is not None:
                wanted = self.owner.limit
            wanted = min(wanted, ahead)
        else:
            wanted = (self.log.end if self.recorded is None else self.recorded) + INITIAL_CREDIT
        due = wanted - self._trunk_limit
        if due <= 0:
            return 0
        if due < _GRANT and self._trunk_limit - self._trunk_offset > _GRANT:
            return 0
        self._trunk_limit = wanted
        return due

    # -- input ------------------------------------------------------------------------------------

    def begin_input(self, offset: int) -> None:
        """Before any input: the agent has taken *offset* bytes already, from a gateway before."""
        if not self._input:
            self._input_base = self._input_sent = offset

    @property
    def input_end(self) -> int:
        """Input bytes accepted since the session began."""
        return self._input_base + len(self._input)

    @property
    def input_acked(self) -> int:
        """Input bytes the agent has taken."""
        return self._input_base

    @property
    def input_full(self) -> bool:
        """Whether no browser should be read until the agent has taken some."""
        return len(self._input) >= INPUT_CAP

    def input(self, data: bytes) -> None:
        """Accept input. May overshoot the cap by one message; see :attr:`input_full`.

        Raises:
            InvalidRequest: the message is larger than 64 KiB; it is dropped whole.
        """
        if len(data) > MAX_FRAME:
            raise InvalidRequest(
                "An input message may hold 64 KiB at most; this one was dropped.",
                code="input_too_large",
            )
        self._input += data

    def take_input(self, limit: int = 16 * 1024) -> bytes:
        """The next input for the trunk (kept until acknowledged); empty when there is none."""
        if not self.attached:
            return b""
        position = self._input_sent - self._input_base
        data = bytes(self._input[position : position + limit])
        self._input_sent += len(data)
        return data

    def acknowledged(self, offset: int) -> bool:
        """The agent has taken *offset* bytes of input; whether that is news."""
        # An agent can't have taken what it was not sent.
        offset = min(offset, self._input_sent)
        if offset <= self._input_base:
            return False
        del self._input[: offset - self._input_base]
        self._input_base = offset
        return True

    # -- cursors ----------------------------------------------------------------------------------

    def add(self, role: Role, offset: int | None, *, credit: bool) -> tuple[Cursor, int]:
        """Someone begins to watch.

        Args:
            role: a new owner takes the place of the one before.
            offset: output bytes they have already; None = an owner gets all there is, others a
                piece of the recent past.
            credit: whether they grant credit.

        Returns:
            The cursor, and the offset its output begins at.
        """
        if offset is None:
            start = 0 if role == "owner" else max(0, self.log.end - REPLAY)
        else:
            start = offset
        # After a restart the log may still have to be filled up to where the client is.
        start = min(max(start, self.log.start), max(self.known_end, self.log.end))
        cursor = Cursor(role, start, credit)
        if role == "owner":
            if self.owner is not None:
                self.cursors.discard(self.owner)
            self.owner = cursor
        self.cursors.add(cursor)
        return cursor, start

    def remove(self, cursor: Cursor) -> None:
        """They are gone."""
        self.cursors.discard(cursor)
        if self.owner is cursor:
            self.owner = None

    def take(self, cursor: Cursor, limit: int = MAX_FRAME) -> bytes | Skip | None:
        """What *cursor* gets next: bytes, a :class:`Skip`, or None (nothing, or no credit)."""
        if cursor.offset < self.log.start:
            # The owner misses as little as can be; others go straight to the present, because
            # they would only fall behind again.
            cursor.jump(self.log.start if cursor.role == "owner" else self.log.end)
            return Skip(cursor.offset)
        room = limit if cursor.limit is None else min(limit, cursor.limit - cursor.offset)
        if cursor.offset >= self.log.end or room <= 0:
            return None
        data = self.log.read(cursor.offset, room)
        cursor.offset += len(data)
        return data

    def finished(self, cursor: Cursor) -> bool:
        """Whether *cursor* has all output there will ever be."""
        return self.exit_offset is not None and cursor.offset >= min(self.exit_offset, self.log.end)

    def exited(self, offset: int | None) -> None:
        """The program ended after *offset* bytes of output; no more will come."""
        self.exit_offset = self.log.end if offset is None else max(offset, self.log.end)
        self.known_end = self.log.end
