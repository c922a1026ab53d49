"""The agent's end of dedicated carriers: dials spares when asked, opens streams on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog

from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.carriers.pool import WANT
from underpass.links.carriers.preface import (
    ANSWER_BYTES,
    TICKET_BYTES,
    BadSpare,
    hello,
    is_answer,
)
from underpass.links.carriers.spare import Spare
from underpass.links.link import Link, Opening
from underpass.links.stream import Stream

__all__ = ["CARRIER", "CarrierLost", "Carriers"]

_log = structlog.get_logger(__name__)

CARRIER: Final = "carrier"
"""The key of an opening's ``meta`` that names the spare its bytes go over."""
DIAL_TIMEOUT: Final = 10.0
IDLE: Final = 90.0
"""Seconds a spare is held; longer than the node does, which usually ends it."""
_ANSWER_WAIT: Final = 3.0
"""Seconds an opening waits for a spare the node holds already and we do not know it yet."""
MOST: Final = 16
"""Spares of one link, whatever the node asks for."""

OpenHandler = Callable[[Opening], Awaitable[None]]


class CarrierLost(UnderpassError):
    """The spare an opening names is gone: the node opens the stream another way."""

    code, status = "carrier_lost", 503


class Carriers:
    """An agent's spares, for all its links; ``async with`` ends them.

    Args:
        idle: seconds an unused spare is held.
        dial_timeout: seconds for a spare until the node holds it.
    """

    def __init__(self, *, idle: float = IDLE, dial_timeout: float = DIAL_TIMEOUT) -> None:
        self._idle = idle
        self._dial_timeout = dial_timeout
        self._supervisor = Supervisor("carriers")

    async def __aenter__(self) -> Carriers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.close()

    def serve(self, link: Link, key: bytes, opener: OpenHandler) -> OpenHandler:
        """Dial spares for *link* as the node wants them, until the link is over.

        Args:
            link: not started yet.
            key: see :func:`underpass.links.carriers.preface.carrier_key`.
            opener: opens what the node asks for.

        Returns:
            *opener* for streams on spares as well as for those in the link.
        """
        held = _Held(link, key, self._supervisor, self._idle, self._dial_timeout)
        link.on_control(WANT, held.wanted)

        async def open_carried(opening: Opening) -> None:
            ticket = opening.meta.get(CARRIER)
            if ticket is None:
                await opener(opening)
                return
            carried = _CarriedOpening(opening, await held.take(ticket))
            try:
                await opener(carried)
            finally:
                carried.over()

        return open_carried


class _Held:
    """The spares of one link."""

    def __init__(
        self, link: Link, key: bytes, supervisor: Supervisor, idle: float, dial_timeout: float
    ) -> None:
        self._link = link
        self._key = key
        self._supervisor = supervisor
        self._idle = idle
        self._dial_timeout = dial_timeout
        self._spares: dict[bytes, asyncio.Future[Spare]] = {}
        self._watched = False

    async def wanted(self, link: Link, body: dict[str, Any]) -> None:
        """The node's notice: dial a spare for each ticket."""
        if link.carrier != "tcp":
            return  # we are behind TLS that ends before the node: nothing may go around it
        if not self._watched:
            self._watched = True
            self._supervisor.start(self._watch(), "watch")
        tickets = body.get("tickets")
        for ticket in cast("list[object]", tickets) if isinstance(tickets, list) else []:
            if not isinstance(ticket, bytes) or len(ticket) != TICKET_BYTES:
                continue
            if len(self._spares) >= MOST:
                return
            if ticket not in self._spares:
                self._spares[ticket] = asyncio.get_running_loop().create_future()
                self._supervisor.start(self._keep(ticket, self._spares[ticket]), "spare")

    async def take(self, ticket: object) -> Spare:
        """The spare of *ticket*; it is spent.

        Raises:
            CarrierLost: there is none.
        """
        coming = self._spares.pop(ticket, None) if isinstance(ticket, bytes) else None
        spare = None
        if coming is not None:
            await asyncio.wait({coming}, timeout=_ANSWER_WAIT)
            spare = coming.result() if coming.done() and not coming.cancelled() else None
        if spare is None or not spare.alive:
            raise CarrierLost("The spare connection is not here (any more).")
        return spare

    async def _watch(self) -> None:
        await self._link.wait_closed()
        for coming in tuple(self._spares.values()):
            if coming.done() and not coming.cancelled():
                coming.result().drop()

    async def _keep(self, ticket: bytes, coming: asyncio.Future[Spare]) -> None:
        """Dial a spare, hold it until it is claimed, gone, or was not used for long."""
        spare: Spare | None = None
        try:
            async with asyncio.timeout(self._dial_timeout):
                spare = await self._call(ticket)
            coming.set_result(spare)
            if not self._link.closed:
                await asyncio.wait({spare.over}, timeout=self._idle)
        except (OSError, TimeoutError, BadSpare) as error:
            _log.debug("spare_failed", error=str(error) or type(error).__name__)
        finally:
            if self._spares.get(ticket) is coming:
                del self._spares[ticket]
            coming.cancel()
            if spare is not None:
                spare.drop()

    async def _call(self, ticket: bytes) -> Spare:
        host, _, port = (self._link.peer.address or "").rpartition(":")
        loop = asyncio.get_running_loop()
        # To the very address the link goes to: a name may stand for other nodes as well.
        _, call = await loop.create_connection(
            lambda: _Call(hello(self._key, ticket)), host.strip("[]"), int(port)
        )
        try:
            said = await call.said
            if not is_answer(self._key, ticket, said):
                raise BadSpare("What answered a spare connection is not the node.")
            return Spare(call.transport, ticket)
        except BaseException:
            call.transport.abort()
            raise


class _Call(asyncio.Protocol):
    """Says the hello and waits for the node's answer."""

    def __init__(self, hello: bytes) -> None:
        self.said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._hello = hello
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if self.said.done():  # spoke unasked before there was a spare to see it
            self.transport.abort()
            return
        self._seen += data[: ANSWER_BYTES + 1]
        if len(self._seen) >= ANSWER_BYTES:
            self.said.set_result(self._seen)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.said.done():
            self.said.set_exception(BadSpare("The node did not take the spare connection."))
        self.transport.close()


class _CarriedOpening(Opening):
    """An opening whose stream is a spare connection, with the opening's own as its leash."""

    __slots__ = ("_inner", "_spare")

    def __init__(self, inner: Opening, spare: Spare) -> None:
        self.link = inner.link
        self.target = inner.target
        self.meta = inner.meta
        self.interactive = inner.interactive
        self.answered = False
        self._inner = inner
        self._spare = spare

    def accept(self) -> Stream:
        leash = self._inner.accept()
        self.answered = True
        if not self._spare.alive:
            leash.abort(CarrierLost.code, "The spare connection broke.")
            return leash
        stream = self._spare.claim()
        stream.hold(leash)
        return stream

    def refuse(self, error: UnderpassError) -> None:
        self.answered = True
        self._inner.refuse(error)

    def over(self) -> None:
        """The opener is done."""
        self._spare.drop()
