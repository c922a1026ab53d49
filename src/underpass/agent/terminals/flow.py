"""What a terminal session decides, without a terminal: offsets, credit, input, grace. Sans-I/O.

Output is numbered from the first byte the program ever printed. It is kept in a ring; a trunk that
is attached at byte N is sent everything from N on, as its credit allows. Input is numbered too, by
what the terminal has *taken*: what a lost trunk had brought but the terminal had not taken is
thrown away when the next trunk comes, because that one sends it again. So neither direction loses
or doubles a byte, except output that fell out of the ring, and that is announced.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from underpass.wire.ring import ByteRing
from underpass.wire.terminal import INITIAL_CREDIT, MAX_CREDIT, Exit

__all__ = ["ACK_BYTES", "ACK_SECONDS", "INPUT_LIMIT", "READ_AHEAD", "SessionFlow"]

READ_AHEAD: Final = 65536
"""Output bytes read from the terminal ahead of what the trunk has been given."""
INPUT_LIMIT: Final = 256 * 1024
"""Input bytes kept for a terminal that does not read. A gateway has at most 64 KiB unacknowledged,
so only a faulty one gets here; then the trunk is not read until there is room."""
ACK_BYTES: Final = 4096
ACK_SECONDS: Final = 0.25


class SessionFlow:
    """The state of one session between its terminal and whichever trunk is attached.

    Args:
        grace: seconds it lives on with no trunk.
        now: monotonic seconds.
        ring: where output is kept; 2 MiB by default.
    """

    def __init__(self, *, grace: float, now: float, ring: ByteRing | None = None) -> None:
        self._ring = ByteRing() if ring is None else ring
        self._grace = grace
        self._attached = False
        self._detached_at = now  # a session begins detached; its first trunk is on its way
        self._sent = 0
        self._credit = 0
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._taken = 0
        self._acked = 0
        self._acked_at = now
        self._draining = False
        self._exit: Exit | None = None

    # -- what others may know -------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether a trunk is attached."""
        return self._attached

    @property
    def offset(self) -> int:
        """Output bytes since the session began."""
        return self._ring.end

    @property
    def input_offset(self) -> int:
        """Input bytes the terminal has taken since the session began."""
        return self._taken

    @property
    def exit(self) -> Exit | None:
        """How the program ended, once it has and all of its output is here."""
        return self._exit

    # -- trunk ----------------------------------------------------------------------------------

    def attach(self, offset: int) -> int:
        """A trunk takes over, which has output up to *offset*.

        Returns:
            Where output goes on: *offset*, or more when bytes were dropped (or less when the peer
            claims bytes that never were).
        """
        self._attached = True
        self._sent = self._ring.clamp(offset)
        self._credit = INITIAL_CREDIT
        # The peer goes on at `input_offset`, so what is still waiting comes again.
        self._pending.clear()
        self._pending_bytes = 0
        self._acked = self._taken
        return self._sent

    def detach(self, now: float) -> None:
        """The trunk is gone; the grace time begins."""
        if self._attached:
            self._attached = False
            self._detached_at = now

    def grant(self, count: int) -> None:
        """The peer can take *count* more output bytes."""
        self._credit = min(self._credit + max(count, 0), MAX_CREDIT)

    def overdue(self, now: float) -> bool:
        """Whether nobody has been attached for longer than the grace time."""
        return not self._attached and now - self._detached_at >= self._grace

    # -- output ---------------------------------------------------------------------------------

    def read_budget(self) -> int:
        """How many bytes may be read from the terminal now; 0 = leave it alone.

        Detached, or when the program has ended, reading goes on: nobody waits for the bytes, or
        nothing will make more. Attached, what the trunk was not given yet counts against its
        credit, and is never pushed out of the ring.
        """
        if not self._attached:
            return READ_AHEAD
        unsent = self._ring.end - self._sent
        room = self._ring.capacity - unsent
        if self._draining:
            return max(0, min(READ_AHEAD, room))
        return max(0, min(self._credit - unsent, READ_AHEAD - unsent, room))

    def output(self, data: bytes) -> None:
        """The terminal gave *data*, at most :meth:`read_budget` bytes."""
        self._ring.append(data)

    def next_output(self) -> bytes:
        """What to give the trunk now (at most 64 KiB); counts as given. Empty = nothing."""
        if not self._attached:
            return b""
        data = self._ring.read(self._sent, min(READ_AHEAD, self._credit))
        self._sent += len(data)
        self._credit -= len(data)
        return data

    def drain(self) -> None:
        """The program has ended: read what its terminal still holds, whatever the credit."""
        self._draining = True

    def end(self, code: int | None, signal: str | None) -> None:
        """The program has ended and its terminal has given everything."""
        self._pending.clear()
        self._pending_bytes = 0
        self._exit = Exit(code=code, signal=signal, offset=self._ring.end)

    def due_exit(self) -> Exit | None:
        """The exit message, when the trunk has been given every byte before it."""
        if self._attached and self._exit is not None and self._sent == self._ring.end:
            return self._exit
        return None

    # -- input ----------------------------------------------------------------------------------

    @property
    def input_full(self) -> bool:
        """Whether the trunk should not be read for now."""
        return self._pending_bytes >= INPUT_LIMIT

    def input(self, data: bytes) -> None:
        """The trunk brought *data* for the terminal."""
        if self._exit is not None or not data:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)

    def next_input(self) -> bytes:
        """What the terminal should take next; stays until :meth:`took`. Empty = nothing."""
        return self._pending[0] if self._pending else b""

    def took(self, count: int) -> None:
        """The terminal took the first *count* bytes of :meth:`next_input`."""
        first = self._pending.popleft()
        if count < len(first):
            self._pending.appendleft(first[count:])
        self._pending_bytes -= count
        self._taken += count

    def due_ack(self, now: float) -> int | None:
        """The input offset to acknowledge now, if it is time; counts as acknowledged.

        That is after every 4 KiB, or 250 ms after the last one.
        """
        new = self._taken - self._acked
        if new >= ACK_BYTES or (new and now >= self._acked_at + ACK_SECONDS):
            self._acked = self._taken
            self._acked_at = now
            return self._taken
        return None

    def ack_wait(self, now: float) -> float | None:
        """Seconds until :meth:`due_ack` will have something; None = not before more is taken."""
        if self._taken == self._acked:
            return None
        return max(0.0, self._acked_at + ACK_SECONDS - now)

    def state(self) -> Literal["attached", "detached", "exited"]:
        """For listings."""
        if self._exit is not None:
            return "exited"
        return "attached" if self._attached else "detached"
