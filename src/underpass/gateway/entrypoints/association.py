"""One UDP association of SOCKS5 (RFC 1928 §7): a flow whose datagrams name their addresses.

It belongs to a control connection and dies with it. Only datagrams from that connection's host are
taken; the first of them says from which port the client sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.admission import plain_host
from underpass.gateway.entrypoints.flow import Drop, Flow
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.gateway.entrypoints.shape import Shape
from underpass.links.datagram_socket import Address
from underpass.links.stream import Stream
from underpass.wire.datagrams import MAX_ADDRESSED
from underpass.wire.socks5 import Socks5Error, parse_udp

__all__ = ["Association"]

_HEAD = b"\0\0\0"
"""RSV and FRAG; what follows, address and data, travels as it is."""


class Association(Flow):
    """See the module.

    Args:
        control: where the control connection comes from; a balancer stands between us and the
            client, it is the balancer's.
        announced_port: from which the client says it will send; often 0.

    Attributes:
        address: where the client sends from; None until it does.
    """

    def __init__(
        self,
        passage: Passage,
        control: tuple[str, int] | None,
        announced_port: int,
        *,
        shape: Shape,
        dropped: Callable[[Drop], None],
    ) -> None:
        super().__init__(passage, shape=shape, dropped=dropped, limit=MAX_ADDRESSED)
        self._host = plain_host(control[0]) if control is not None else ""
        self.announced_port = announced_port

    def waits_for(self, host: str) -> bool:
        """Whether *host* is the client's and has not sent anything yet."""
        return self.address is None and host == self._host

    def bind(self, address: Address, sock: Answering) -> None:
        """The client sends from *address*; answers go there from *sock*."""
        self.address, self.reply = address, sock

    async def serve(self, remote: Stream, control: Stream) -> None:
        """Pass datagrams on until either stream is over. Closes *remote*."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self.run(remote))
            watch = group.create_task(_end_of(control))
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            watch.cancel()

    def take(self, data: bytes) -> None:
        try:
            parse_udp(data)
        except Socks5Error:
            self._dropped("unknown")
        else:
            super().take(data[len(_HEAD) :])

    def answer(self, data: bytes) -> None:
        super().answer(_HEAD + data)


async def _end_of(control: Stream) -> None:
    """Wait for the end of *control*; what the client still says there means nothing."""
    try:
        while await control.read():
            pass
    except UnderpassError:
        return
