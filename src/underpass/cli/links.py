"""The client's link: dialled once for a command, with the gateway's key pinned."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from underpass.cli.lean_imports import absent
from underpass.cli.options import Connection
from underpass.core.errors import NotFound, UnderpassError

with absent("rich"):
    from underpass.core.logging import configure_logging
    from underpass.links.dial import DialTransport, dial
    from underpass.links.link import Link
    from underpass.links.stream import Stream
    from underpass.wire.handshake import ClientIdentity, Established

__all__ = ["client_link", "node_key", "opened"]

OPEN_TIMEOUT = 30.0
"""Seconds for gateway and machine to accept a stream."""


@asynccontextmanager
async def client_link(
    connection: Connection,
    *,
    transport: DialTransport | None = None,
    timeout: float = 10.0,
    established: list[Established] | None = None,
) -> AsyncIterator[Link]:
    """A link to the gateway as the signed-in person; closed at the end.

    Args:
        transport: how; default: as the person said.
        established: what the handshake found is appended to it.

    Raises:
        UnderpassError: not signed in, refused, or not reached.
    """
    # Before anything is logged: unconfigured, structlog prints on stdout, where others' bytes go.
    level = os.environ.get("UNDERPASS_LOG_LEVEL", "")
    configure_logging(level if level in ("debug", "info", "warning") else "error")
    link = await dial(
        connection.server,
        ClientIdentity(connection.required_token, name="cli"),
        transport=transport or connection.transport,
        fingerprint=connection.fingerprint,
        pinned_key=connection.gateway_key,
        timeout=timeout,
        on_established=None if established is None else established.append,
    )
    try:
        yield link
    finally:
        await link.close()


async def node_key(connection: Connection) -> bytes:
    """The raw Ed25519 key the gateway proves it has."""
    found: list[Established] = []
    async with client_link(connection, established=found):
        return found[0].node_key


@asynccontextmanager
async def opened(
    connection: Connection, target: str, *, agent: str, interactive: bool = False, **meta: Any
) -> AsyncIterator[Stream]:
    """One stream to *target* on a machine over a link of its own; both are gone at the end.

    Args:
        agent: the machine's name or id.
        meta: more for the machine's opener; what is None is left out.

    Raises:
        UnderpassError: refused, with the machine's name in the text when that is what is wrong.
    """
    given = {key: value for key, value in meta.items() if value is not None}
    async with client_link(connection) as link:
        try:
            stream = await link.open(
                target, {"agent": agent, **given}, interactive=interactive, timeout=OPEN_TIMEOUT
            )
        except UnderpassError as error:
            if error.status == NotFound.status:
                raise NotFound(
                    f"There is no machine called {agent!r} that you may see.",
                    code="no_such_machine",
                    hint="See: underpass machines",
                ) from None
            raise
        try:
            yield stream
        finally:
            await stream.close()
