"""The link of a command that stays: made once, made again when it is lost, its gateway pinned."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

from underpass.cli.lean_imports import absent
from underpass.cli.options import Connection

with absent("rich"):
    from underpass.core.logging import configure_logging
    from underpass.links.client_keeper import ClientKeeper
    from underpass.links.dial import DialTransport, dial
    from underpass.links.link import Link, Opening
    from underpass.wire.handshake import ClientIdentity, Established

__all__ = ["kept_link"]


@asynccontextmanager
async def kept_link(
    connection: Connection,
    transport: str | None = None,
    on_open: Callable[[Opening], Awaitable[None]] | None = None,
) -> AsyncIterator[ClientKeeper]:
    """A kept link to the gateway, up at first; closed at the end.

    The gateway's key is pinned from the first link on, if not before: whoever answers at its
    address after a restart has to be the same.

    Args:
        transport: how; default: as *connection* says.
        on_open: answers what the gateway opens over it.

    Raises:
        UnderpassError: not signed in, refused, or not reached.
    """
    level = os.environ.get("UNDERPASS_LOG_LEVEL", "")
    configure_logging(level if level in ("debug", "info", "warning") else "error")
    pinned = connection.gateway_key

    def established(found: Established) -> None:
        nonlocal pinned
        pinned = found.node_key

    async def dialled() -> Link:
        link = await dial(
            connection.server,
            ClientIdentity(connection.required_token, name="cli"),
            transport=cast("DialTransport", transport or connection.transport),
            fingerprint=connection.fingerprint,
            pinned_key=pinned,
            on_established=established,
        )
        if on_open is not None:
            link.on_open(on_open)
        return link

    keeper = ClientKeeper(dialled)
    try:
        await keeper.start()
        yield keeper
    finally:
        await keeper.close()
