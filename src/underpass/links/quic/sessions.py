"""TLS sessions that are resumed: what a gateway gave out, and what whoever dials has kept.

Both live in memory, and each is used once. So a first flight that somebody repeats finds no session
at the gateway: it becomes an ordinary handshake, and its early data is thrown away (RFC 8446, 8.1).
What may be early data at all: docs/adr/0009-quic-resumption.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qh3.tls import SessionTicket

__all__ = ["LIFETIME", "GivenSessions", "KeptSession", "KeptSessions", "SessionKey"]

LIFETIME: Final = 3600.0
"""Seconds a session may be resumed: as long as a certificate may go unproved."""
MAX_GIVEN: Final = 8192
"""Sessions a gateway remembers; the oldest go first. About a kilobyte each."""
MAX_KEPT: Final = 64
"""Gateways whose session is kept."""

SessionKey = tuple[str, int, str | None, bool]
"""Host, port, fingerprint, whether authorities were asked: what was believed, and of whom."""


class GivenSessions:
    """The sessions a gateway has given out.

    Args:
        now: seconds; only differences count.
        most: how many are remembered.
    """

    def __init__(self, now: Callable[[], float], *, most: int = MAX_GIVEN) -> None:
        self._now = now
        self._most = most
        self._given: OrderedDict[bytes, tuple[float, SessionTicket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._given)

    def add(self, ticket: SessionTicket) -> None:
        """Remember *ticket*, which a client has been sent."""
        self._given[ticket.ticket] = (self._now(), ticket)
        while len(self._given) > self._most:
            self._given.popitem(last=False)

    def take(self, label: bytes) -> SessionTicket | None:
        """The session a client wants to resume, once; None when it is unknown, used or too old."""
        found = self._given.pop(label, None)
        if found is None or self._now() - found[0] > LIFETIME:
            return None
        return found[1]


@dataclass(frozen=True, slots=True)
class KeptSession:
    """What is needed to resume a session.

    Attributes:
        binding: of the certificate that was proved when it was made; see ``trust.binding_of``.
        address: where the gateway was, and the family of that.
    """

    ticket: SessionTicket
    binding: bytes
    address: tuple[str | int, ...]
    family: int


class KeptSessions:
    """The sessions of whoever dials, the newest of each gateway.

    Args:
        now: seconds; only differences count.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: OrderedDict[SessionKey, tuple[float, KeptSession]] = OrderedDict()

    def keep(self, key: SessionKey, session: KeptSession) -> None:
        """Keep *session* instead of an older one."""
        self._kept.pop(key, None)
        self._kept[key] = (self._now(), session)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def take(self, key: SessionKey) -> KeptSession | None:
        """The session to resume, once; None when there is none that may be."""
        found = self._kept.pop(key, None)
        if found is None or self._now() - found[0] > LIFETIME:
            return None
        return found[1]
