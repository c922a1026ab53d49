"""Tickets: what lets a socket become a terminal. Single use, short-lived, bound to one purpose."""

from __future__ import annotations

from typing import Literal

import msgspec

from underpass.control.subject import Subject
from underpass.core.errors import Forbidden, Unauthenticated
from underpass.core.ids import hash_secret, new_secret
from underpass.store.kv.store import KeyValueStore

__all__ = ["TICKET_SECONDS", "Ticket", "TicketRefused", "Tickets"]

TICKET_SECONDS = 300
_PREFIX = "upx_"
_MAX_TOKEN = 200


class TicketRefused(Unauthenticated):
    """The token is unknown, used, expired, or for something else; it is dead either way."""

    code = "bad_ticket"


class Ticket(msgspec.Struct, frozen=True):
    """What a token stands for; kept under the token's hash, never handed out.

    Attributes:
        session_id: the session to come back to, when the ticket was made for that.
        cols, rows: the size asked for; an old client may give another in the socket's address.
    """

    user_id: str
    username: str
    role: Literal["admin", "auditor", "user"]
    agent_id: str
    command: str | None
    login: str | None
    cols: int
    rows: int
    token_hash: str
    ip: str | None = None
    session_id: str | None = None


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Ticket] = msgspec.json.Decoder(Ticket)


class Tickets:
    """Makes and burns tickets.

    Args:
        kv: holds ``ticket:<hash>`` for 300 s.
    """

    def __init__(self, kv: KeyValueStore) -> None:
        self._kv = kv

    async def issue(
        self,
        subject: Subject,
        agent_id: str,
        *,
        command: str | None,
        login: str | None,
        cols: int,
        rows: int,
        session_id: str | None = None,
    ) -> tuple[str, Ticket]:
        """A new token and what it stands for. The token itself is kept nowhere.

        Raises:
            Forbidden: to a guest; :func:`underpass.control.access.authorise` says so before.
        """
        if subject.role == "guest":
            raise Forbidden("Guests open no terminals.")
        token = new_secret(_PREFIX)
        ticket = Ticket(
            user_id=subject.user_id,
            username=subject.username,
            role=subject.role,
            agent_id=agent_id,
            command=command,
            login=login,
            cols=cols,
            rows=rows,
            token_hash=hash_secret(token),
            ip=subject.ip,
            session_id=session_id,
        )
        await self._kv.set(_key(ticket.token_hash), _encoder.encode(ticket), TICKET_SECONDS)
        return token, ticket

    async def redeem(self, token: str, *, presented_by: str | None = None) -> Ticket:
        """Burn *token* and give what it stood for.

        It is burned before anything is checked, so a wrong use costs it too.

        Args:
            token: as the client sent it.
            presented_by: id of the user the connection is signed in as, if it is; somebody else's
                ticket is then refused.

        Raises:
            TicketRefused: unknown, used, expired, or another person's.
        """
        if not token.startswith(_PREFIX) or len(token) > _MAX_TOKEN:
            raise _refused()
        value = await self._kv.take(_key(hash_secret(token)))
        if value is None:
            raise _refused()
        ticket = _decoder.decode(value)
        if presented_by is not None and presented_by != ticket.user_id:
            raise _refused()
        return ticket


def _key(token_hash: str) -> str:
    return f"ticket:{token_hash}"


def _refused() -> TicketRefused:
    return TicketRefused(
        "The terminal token is not valid: it is unknown, expired, or was used before.",
        hint="Ask for a new one with tty/authorize; a token works once, for 5 minutes.",
    )
