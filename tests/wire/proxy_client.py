"""A client of a proxy handshake that sends given pieces, for tests and fuzz targets."""

from __future__ import annotations

from dataclasses import dataclass, field

from underpass.core.errors import InvalidRequest
from underpass.wire.socks5 import (
    MAX_LEFTOVER,
    Authenticating,
    Event,
    ProxyHandshake,
    Reply,
    Requested,
)

__all__ = ["Outcome", "converse", "pieces"]


@dataclass(slots=True)
class Outcome:
    """What came of it: how it *ended* is an error's code, ``closed``, or empty."""

    events: list[Event] = field(default_factory=list)
    sent: bytes = b""
    leftover: bytes = b""
    ended: str = ""


def pieces(wire: bytes, step: int) -> list[bytes]:
    """*wire* in pieces of *step* bytes."""
    return [wire[start : start + step] for start in range(0, len(wire), step)]


def converse(
    server: ProxyHandshake,
    parts: list[bytes],
    *,
    login: bool = True,
    reply: Reply | None = None,
    held: int = MAX_LEFTOVER,
) -> Outcome:
    """Send *parts* to *server* and decide as told.

    Args:
        server: at its beginning.
        parts: what the client sends, piece by piece.
        login: whether a login is accepted.
        reply: how a request is answered, once everything was sent; None for not at all.
        held: bytes the server may keep while there is no request.
    """
    outcome = Outcome()
    try:
        for part in parts:
            new = server.feed(part)
            outcome.events += new
            if new and isinstance(new[0], Authenticating):
                new = server.accept_login(login)
                outcome.events += new
            if not server.leftover:
                assert len(server._buffer) <= held
    except InvalidRequest as error:
        assert type(error) is server.error
        assert server.closed
        outcome.ended = error.code
    if server.closed:
        assert server.leftover == server._buffer == b""
        outcome.ended = outcome.ended or "closed"
    outcome.leftover = server.leftover
    asked = any(isinstance(event, Requested) for event in outcome.events)
    if reply is not None and asked and not outcome.ended:
        server.reply(reply, "10.0.0.1", 1)
    outcome.sent = server.data_to_send()
    return outcome
