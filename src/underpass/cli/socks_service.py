"""One connection to ``underpass socks``: what it asks for is opened at the machine and carried."""

from __future__ import annotations

from typing import Protocol

from underpass.cli.socks_association import SocksAssociation
from underpass.core.errors import UnderpassError
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream
from underpass.links.socks5_server import CheckLogin, Request, negotiate
from underpass.links.stream import Stream

__all__ = ["OpenTarget", "SocksService"]


class OpenTarget(Protocol):
    """Opens a stream at the machine (``cli.path.MachinePath.open``)."""

    async def __call__(self, target: str, *, resume: bool = True) -> Stream: ...


class SocksService:
    """Serves proxy connections.

    Args:
        open_target: the way to the machine.
        check: decides about logins; None demands none.
        host: where UDP ports are taken: where the proxy listens.
    """

    def __init__(self, open_target: OpenTarget, check: CheckLogin | None, host: str) -> None:
        self._open_target = open_target
        self._check = check
        self._host = host

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection to its end.

        Raises:
            UnderpassError: it broke the rules, was refused, or was cut short.
        """
        request = await negotiate(stream, check=self._check)
        if request.command == "connect":
            await self._connect(stream, request)
        else:
            await self._associate(stream, request)

    async def _connect(self, stream: SocketStream, request: Request) -> None:
        try:
            remote = await self._open_target(request.target)
        except UnderpassError as error:
            await request.refuse(error)
            raise
        try:
            remote.write(await request.accept())
        except BaseException:
            remote.abort()
            raise
        result = await relay(stream, remote)
        if result.error is not None:
            raise result.error

    async def _associate(self, stream: SocketStream, request: Request) -> None:
        async def open_stream() -> Stream:
            # Surviving is the association's own: datagrams are not kept for later.
            return await self._open_target("udp", resume=False)

        association = SocksAssociation(stream, open_stream)
        try:
            remote = await open_stream()
        except UnderpassError as error:
            await request.refuse(error)
            raise
        try:
            await request.accept(*association.open(self._host))
            await association.run(remote)
        except UnderpassError as error:
            stream.abort(error.code, error.message)
            raise
        finally:
            association.close()
            remote.abort()
