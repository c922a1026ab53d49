"""A local port whose connections a command carries to a machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from underpass.core.errors import Conflict, InvalidRequest, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.sockets import SocketStream

__all__ = ["LocalListener", "authority"]

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 1024
"""Connections of one local port at a time; more are closed at once."""
_BACKLOG: Final = 128

Carry = Callable[[SocketStream], Awaitable[None]]
"""Serves one accepted connection to its end; what it raises ends only that one."""


def authority(host: str, port: int) -> str:
    """``HOST:PORT``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class LocalListener:
    """One local port.

    Args:
        carry: serves each connection, which is closed after.
        failed: told why a connection could not be served.
        max_connections: at a time at most.
    """

    def __init__(
        self,
        carry: Carry,
        failed: Callable[[str | None, UnderpassError], None],
        *,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._carry = carry
        self._failed = failed
        self._max_connections = max_connections
        self._supervisor = Supervisor("local connections")
        self._server: asyncio.Server | None = None
        self.host = ""
        self.port = 0

    def __len__(self) -> int:
        """How many connections there are (a gauge that must return to zero)."""
        return len(self._supervisor)

    async def open(self, host: str, port: int) -> None:
        """Listen on *host* and *port*; 0 takes a free one, and ``port`` says which.

        Raises:
            Conflict: code ``port_in_use``.
            InvalidRequest: code ``bad_bind``: one can't listen there.
        """
        loop = asyncio.get_running_loop()
        where = authority(host, port)
        try:
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = found[0]  # one address, so that one port can be told
            listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, PermissionError):
                raise InvalidRequest(
                    f"Listening on {where} is not permitted: {reason}.", code="bad_bind",
                    hint="Ports below 1024 are the administrator's; take a higher one.",
                ) from None  # fmt: skip
            if error.errno is not None and "in use" in reason:
                raise Conflict(
                    f"{where} is taken by another program.", code="port_in_use",
                    hint="Choose another local port, or 0 for any.",
                ) from None  # fmt: skip
            raise InvalidRequest(f"Can't listen on {where}: {reason}.", code="bad_bind") from None
        self._server = await loop.create_server(
            lambda: SocketStream(self._accepted), sock=listening, backlog=_BACKLOG
        )
        self.host, self.port = listening.getsockname()[:2]

    async def close(self) -> None:
        """Listen no more and end every connection. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._supervisor.close()

    def _accepted(self, stream: SocketStream) -> None:
        if self._server is None or len(self._supervisor) >= self._max_connections:
            _log.warning("connection_refused", open=len(self._supervisor))
            stream.abort("too_many_connections")
            return
        self._supervisor.start(self._serve(stream), "connection")

    async def _serve(self, stream: SocketStream) -> None:
        peer = stream.peer_address
        try:
            await self._carry(stream)
        except UnderpassError as error:
            self._failed(authority(*peer) if peer else None, error)
            stream.abort(error.code, error.message)
        except BaseException:
            stream.abort()  # nobody else would
            raise
        else:
            await stream.close()
