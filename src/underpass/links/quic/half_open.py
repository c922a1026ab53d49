"""How many connections may be half open, and when whoever dials has to prove an address first.

A connection is half open until its peer has begun a link's handshake. Until its QUIC handshake is
done, nobody knows that the peer receives where it says (*unproved*). A few of these are taken as
they come. Beyond that whoever dials is answered with a Retry, for which nothing is kept, and takes
a place only with the token from it: so forged addresses fill the few places and no others, and what
an address may have is taken by those who have it. A pure object.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

__all__ = ["HalfOpen"]

UNPROVED: Final = 32
"""Half-open connections whose address is not proved, before Retry."""
UNPROVED_PER_ADDRESS: Final = 4


class HalfOpen:
    """The half-open connections of one port.

    Args:
        most: how many there may be, in all.
        most_per_address: the same of one address (the caller's key for it).
        unproved: how many of them may be unproved.
        unproved_per_address: the same of one address.
    """

    def __init__(
        self,
        *,
        most: int,
        most_per_address: int,
        unproved: int = UNPROVED,
        unproved_per_address: int = UNPROVED_PER_ADDRESS,
    ) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._most_unproved = unproved
        self._most_unproved_per_address = unproved_per_address
        self._proved: Counter[str] = Counter()
        self._unproved: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._proved.total() + self._unproved.total()

    def verdict(self, address: str, *, proved: bool) -> Literal["take", "retry", "drop"]:
        """What to do with one more from *address*.

        Args:
            proved: it came with a token for that address.
        """
        if (
            self.count >= self._most
            or self._proved.total() >= max(1, self._most - self._most_unproved)
            or self._proved[address] >= self._most_per_address
        ):
            return "drop"
        if proved:
            return "take"
        if (
            self._unproved.total() >= self._most_unproved
            or self._unproved[address] >= self._most_unproved_per_address
        ):
            return "retry"
        return "take"

    def add(self, address: str, *, proved: bool) -> None:
        """One more is taken."""
        (self._proved if proved else self._unproved)[address] += 1

    def prove(self, address: str) -> None:
        """The QUIC handshake of an unproved one is done."""
        self.remove(address, proved=False)
        self._proved[address] += 1

    def remove(self, address: str, *, proved: bool) -> None:
        """One has begun a link's handshake, or is gone."""
        counts = self._proved if proved else self._unproved
        counts[address] -= 1
        if not counts[address]:
            del counts[address]
