"""How a spare connection begins: preface, ticket, proof; and the node's answer. Pure functions.

The node issues a *ticket* (random, for one use) over the link. Whoever dials proves with an HMAC
under a key that both ends of the link derive and that never travels, so that reading a plain link
is not enough to take a stream that belongs to it. The node's answer proves the node likewise.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from underpass.core.errors import InvalidRequest

__all__ = [
    "ANSWER_BYTES",
    "HELLO_BYTES",
    "SPARE_PREFACE",
    "TICKET_BYTES",
    "BadSpare",
    "Hello",
    "HelloReader",
    "answer",
    "carrier_key",
    "hello",
    "is_answer",
]

SPARE_PREFACE: Final = b"UNDSPAR1"
"""First bytes of every spare; as long as a link's, and different from the fourth byte on."""
TICKET_BYTES: Final = 16
ANSWER_BYTES: Final = 32
HELLO_BYTES: Final = len(SPARE_PREFACE) + TICKET_BYTES + 32
_KEY_INFO: Final = b"underpass carrier 1 key\0"
_HELLO_LABEL: Final = b"underpass carrier 1 hello\0"
_ANSWER_LABEL: Final = b"underpass carrier 1 held\0"


class BadSpare(InvalidRequest):
    """What was said on a spare connection is not what must be said there."""

    code = "bad_spare"


def carrier_key(secret: bytes, link_id: str) -> bytes:
    """The key of one link's spares, from the secret agent and gateway share since enrolment."""
    kdf = HKDF(SHA256(), 32, salt=None, info=_KEY_INFO + link_id.encode())
    return kdf.derive(secret)


def hello(key: bytes, ticket: bytes) -> bytes:
    """What the dialling end says first."""
    return SPARE_PREFACE + ticket + _mac(key, _HELLO_LABEL, ticket)


def answer(key: bytes, ticket: bytes) -> bytes:
    """What the node says when it holds the connection."""
    return _mac(key, _ANSWER_LABEL, ticket)


def is_answer(key: bytes, ticket: bytes, said: bytes) -> bool:
    """Whether *said* is the node's answer; takes the same time wherever it differs."""
    return hmac.compare_digest(answer(key, ticket), said)


@dataclass(frozen=True, slots=True)
class Hello:
    """A whole hello, not yet believed."""

    ticket: bytes
    proof: bytes

    def proves(self, key: bytes) -> bool:
        """Whether it was made with *key*; takes the same time wherever it differs."""
        return hmac.compare_digest(_mac(key, _HELLO_LABEL, self.ticket), self.proof)


class HelloReader:
    """Reads a hello in whatever pieces it comes; keeps no more than :data:`HELLO_BYTES`."""

    def __init__(self) -> None:
        self._seen = b""

    def feed(self, data: bytes) -> Hello | None:
        """Take *data*; the hello once it is whole.

        Raises:
            BadSpare: it is none, or more came than may before the answer.
        """
        if len(self._seen) + len(data) > HELLO_BYTES:
            raise BadSpare("A spare connection said more than its hello.")
        self._seen += data
        head = len(SPARE_PREFACE)
        if self._seen[:head] != SPARE_PREFACE[: len(self._seen)]:
            raise BadSpare("This is no spare connection.")
        if len(self._seen) < HELLO_BYTES:
            return None
        return Hello(self._seen[head : head + TICKET_BYTES], self._seen[head + TICKET_BYTES :])


def _mac(key: bytes, label: bytes, ticket: bytes) -> bytes:
    return hmac.digest(key, label + ticket, "sha256")
