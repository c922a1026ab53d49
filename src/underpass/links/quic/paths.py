"""Where the peer of a QUIC connection is, however often its address changes: a pure object.

The library follows three moves of a connection, never one back to an address it has seen, and never
forgets an address. So it is shown one address for ever, and the real ones are kept here.

As RFC 9000, 9.3 has it: when an authentic packet comes from another address, that one is *tried*.
What is sent goes there, up to three times what came from there, and the rest to the address in use;
the first packet that comes from the address in use ends the trial. The address tried is taken when
the peer, from there, says a secret that was sent nowhere else (as in 8.2).

The secret travels in a datagram of its own (:func:`question_in`), which is no QUIC packet, so that
nothing the connection has to send can hold it up or take it elsewhere: after a move everything that
was under way is lost, and the congestion window is full of it. It need not be hidden. It proves
that somebody receives there; who, is proved by the answer, a DATAGRAM frame (RFC 9221) with
``!`` and the secret in an authentic packet.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Final

from underpass.links.packet_info import Address

__all__ = ["MAX_WORD", "QUESTION", "PeerPath", "answer_to", "question_in"]

_SECRET: Final = 16
_MARK: Final = b"\x1funderpass?"
"""Without the bit all QUIC packets have (RFC 9000, 17.2 and 17.3; RFC 9443 for the others)."""
QUESTION: Final = len(_MARK) + _SECRET
"""Bytes of a question."""
MAX_WORD: Final = 32
"""Bytes of the largest DATAGRAM frame anybody needs to take."""
_FACTOR: Final = 3
"""RFC 9000, 8.1."""
_ASK_AGAIN: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds from one question to the next; then only when something comes from there again."""
_RESERVE: Final = QUESTION
"""Bytes of what may be sent that are left for the next question."""
_FORGET: Final = 6.0
"""Seconds after the last packet from an address at which its trial is over."""


def question_in(datagram: bytes) -> bytes | None:
    """The secret a datagram asks for; None when it is something else."""
    if len(datagram) == QUESTION and datagram.startswith(_MARK):
        return datagram[len(_MARK) :]
    return None


def answer_to(secret: bytes) -> bytes:
    """The content of the DATAGRAM frame that answers."""
    return b"!" + secret


class PeerPath:
    """The address a peer is spoken to at.

    Args:
        home: where its handshake came from.
        secret: makes 16 bytes nobody can guess.

    Attributes:
        current: the address in use; proved.
        trial: the address that is tried, if any.
        moves: how often the address in use has changed.
    """

    __slots__ = (
        "_asked", "_heard_at", "_next_ask", "_received", "_secret", "_sent", "_tried", "_word",
        "current", "moves", "trial",
    )  # fmt: skip

    def __init__(
        self, home: Address, *, secret: Callable[[], bytes] = lambda: secrets.token_bytes(_SECRET)
    ) -> None:
        self.current = home
        self.trial: Address | None = None
        self.moves = 0
        self._secret = secret
        self._tried: Address | None = None  # the last one on trial, of which the rest tells
        self._word = b""
        self._received = self._sent = 0
        self._asked = 0
        self._next_ask = self._heard_at = 0.0

    def heard(self, source: Address, size: int, now: float) -> None:
        """An authentic datagram of *size* bytes came from *source*.

        One that has come before counts only from the address in use: a copy was quicker.
        """
        if source == self.current:
            self.trial = None
            return
        if source != self._tried:
            self._tried = source
            self._word = self._secret()
            self._received = self._sent = self._asked = 0
            self._next_ask = now
        self.trial = source
        self._asked = min(self._asked, len(_ASK_AGAIN))  # it is still there: worth one more
        self._received += size
        self._heard_at = now

    def to(self, size: int, now: float) -> Address:
        """Where to send a datagram of *size* bytes; counts it."""
        if self.trial is None or not self._on_trial(now):
            return self.current
        if self._sent + size + _RESERVE > _FACTOR * self._received:
            return self.current
        self._sent += size
        return self.trial

    @property
    def asks_at(self) -> float | None:
        """When the address on trial is to be asked (again)."""
        return self._next_ask if self.trial and self._asked <= len(_ASK_AGAIN) else None

    def question(self, now: float) -> tuple[bytes, Address] | None:
        """The datagram that asks the address on trial, and that address; None: nothing is due."""
        at = self.asks_at
        if at is None or now < at or self.trial is None or not self._on_trial(now):
            return None
        self._next_ask = now + _ASK_AGAIN[min(self._asked, len(_ASK_AGAIN) - 1)]
        if self._sent + QUESTION > _FACTOR * self._received:
            return None
        self._sent += QUESTION
        self._asked += 1
        return _MARK + self._word, self.trial

    def answered(self, source: Address, word: bytes) -> bool:
        """A DATAGRAM frame with *word* came from *source*; whether that has become the address."""
        if source != self.trial or not hmac.compare_digest(word, answer_to(self._word)):
            return False
        self.current, self.trial, self._tried = source, None, None
        self.moves += 1
        return True

    def _on_trial(self, now: float) -> bool:
        if now - self._heard_at <= _FORGET:
            return True
        self.trial = None
        return False
