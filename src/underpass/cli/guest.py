"""Coming in as a guest: where nobody is signed in and the gateway allows guests, for codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from underpass.cli.options import Connection, Options, options_of
from underpass.core.errors import Forbidden, NotFound, Unauthenticated, UnderpassError

__all__ = ["Server", "as_somebody", "with_server"]

ROUTE = "/api/v1/guests"

Server = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The gateway, as before the command.")
]


def with_server(ctx: Any, server: str | None) -> Options:
    """The options *ctx* was called with; *server*, given behind the command, wins."""
    options = options_of(ctx)
    if server is not None:
        options = ctx.find_root().obj = replace(options, server=server)
    return options


def as_somebody(connection: Connection, *, offering: bool = False) -> Connection:
    """*connection* if somebody is signed in, else the same as a new guest.

    Args:
        offering: to make codes, not only to use them.

    Raises:
        Unauthenticated: nobody is signed in, and guests may not (code ``not_signed_in``).
        UnderpassError: the gateway is not reached, or lets in no more guests right now.
    """
    from underpass.cli.api import Api

    if connection.token:
        return connection
    try:
        with Api(connection) as api:
            guest = api.post(ROUTE)
    except (Forbidden, NotFound) as error:
        raise _not_signed_in(connection, "and it allows no guests") from error
    except UnderpassError as error:
        if error.status != 405:  # a gateway that has never heard of guests
            raise
        raise _not_signed_in(connection, "and it allows no guests") from error
    if offering and not guest["may_offer"]:
        raise _not_signed_in(connection, "and its guests may use codes, not make them")
    return replace(connection, token=str(guest["access_token"]))


def _not_signed_in(connection: Connection, why: str) -> Unauthenticated:
    return Unauthenticated(
        f"You are not signed in to {connection.server}, {why}.",
        code="not_signed_in",
        hint=f"Run: underpass login {connection.server}",
    )
