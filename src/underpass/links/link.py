"""A link: an authenticated connection to a peer over which both ends open streams.

After a handshake over some transport (``links/transports/transport.py`` tells about the seam)::

    link = Link(transport, peer, dialler=True, leftover=inbox.detach())
    link.on_open(handler)
    link.on_control("metrics", answer_metrics)
    link.start()

The link reads nothing before :meth:`Link.start`, so handlers set before it miss nothing; ``open``,
``request``, ``notify`` and ``wait_closed`` start it if nobody has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import Internal, Unavailable, UnderpassError
from underpass.core.ids import new_id
from underpass.core.supervisor import Supervisor
from underpass.links.channel import Channel
from underpass.links.control import ControlDesk, ControlHandler
from underpass.links.mux import LinkEnd, Mux, MuxEvents, MuxLimits, MuxStream
from underpass.links.peer_errors import OpenRefused, error_frame
from underpass.links.splice import PIPES
from underpass.links.stream import Stream, StreamReset
from underpass.links.transports.transport import Carrier, Transport
from underpass.wire.frames import MAX_TARGET, ErrorFrame

__all__ = ["Link", "LinkEnd", "LinkLost", "OpenRefused", "Opening", "Peer"]

_log = structlog.get_logger(__name__)

_TICK: Final = 1.0
_EXACT: Final = 5.0
"""Seconds above which a deadline is looked at every tick."""
_FLUSH: Final = 5.0
"""Seconds a closed link may take to send what it still has."""
_REST: Final = 0.001
"""Seconds between two turns of a calm link whose ends share their processors: what is in the way of
a keystroke there is not bytes on the wire but the programs that handle the bulk beside it."""
_NEAR: Final = 0.1
"""Seconds of the longest round trip (bulk in the way of the pings included) at which a local other
end is believed not to be a proxy for one far away."""

OpenHandler = Callable[["Opening"], Awaitable[None]]


class LinkLost(Unavailable):
    """The link is over, or ended before the answer came."""

    code = "link_lost"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the handshake proved."""

    role: Literal["agent", "client", "node"]
    id: str
    name: str
    address: str | None
    version: str
    features: frozenset[str]


class Opening:
    """A stream the peer asks for: :meth:`accept` or :meth:`refuse` it, once.

    When the handler returns or fails without an answer, the stream is refused.
    """

    __slots__ = ("_channel", "_stream", "answered", "interactive", "link", "meta", "target")

    def __init__(
        self, link: Link, stream: MuxStream, channel: Channel, target: str, meta: dict[str, Any]
    ) -> None:
        self.link = link
        self.target = target
        self.meta = meta
        self.interactive = stream.interactive
        self.answered = False
        self._stream = stream
        self._channel = channel

    def accept(self) -> Stream:
        """Take the stream. If the opener gave up meanwhile, its first use raises StreamReset.

        Raises:
            RuntimeError: when it was answered already.
        """
        if self.answered:
            raise RuntimeError("this opening was answered already")
        self.answered = True
        self._stream.accept()
        return self._channel

    def refuse(self, error: UnderpassError) -> None:
        """Turn the stream down; the peer's ``open`` raises *error* as OpenRefused. Idempotent."""
        if not self.answered:
            self.answered = True
            self._stream.refuse(error_frame(error))


class Link:
    """One link.

    Args:
        transport: carries the bytes; the link owns it from now on.
        peer: who is at the other end.
        dialler: whether this end dialled; exactly one of the two ends did.
        id: the link's id, agreed in the handshake; a new one if omitted.
        leftover: bytes of the peer that were read behind the handshake.
        clock: where the time comes from.
        limits: caps and deadlines.
    """

    def __init__(
        self,
        transport: Transport,
        peer: Peer,
        *,
        dialler: bool,
        id: str | None = None,  # noqa: A002 - the attribute's name
        leftover: bytes = b"",
        clock: Clock | None = None,
        limits: MuxLimits | None = None,
    ) -> None:
        self.id = id or new_id()
        self.peer = peer
        self._transport = transport
        self._leftover = leftover
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor(f"link {peer.role} {peer.name or peer.id}")
        self._desk = ControlDesk(self, self._spawn)
        transport.framed()
        self._mux = Mux(
            dialler=dialler,
            write=transport.write,
            writelines=transport.writelines,
            flush=transport.flush,
            calmed=PIPES.calmed,
            beside=lambda: PIPES.splices > 0,
            events=MuxEvents(
                offered=self._offered,
                requested=self._desk.requested,
                answered=self._desk.answered,
                failed=self._desk.failed,
                notified=self._desk.notified,
                gone_away=self._gone_away,
                ended=self._ended,
                disconnected=self._disconnected,
                turn_over=self._turn_over,
            ),
            monotonic=(clock or SystemClock()).monotonic,
            limits=limits,
            ordered=transport.ordered,
        )
        self._answers: dict[asyncio.Future[None], float] = {}  # and when each will be late
        self._desk.bind(self._mux)
        self._open_handler: OpenHandler | None = None
        self._gone_away_callbacks: list[Callable[[LinkEnd], None]] = []
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[LinkEnd] = self._loop.create_future()

    def _turn_over(self) -> None:
        mux = self._mux
        if mux.outbox.calm and self._transport.local and (mux.pulse.rtt_low or 0.0) < _NEAR:
            self._loop.call_later(_REST, mux.next_turn)
        else:
            self._loop.call_soon(mux.next_turn)

    # -- state ------------------------------------------------------------------------------------

    @property
    def carrier(self) -> Carrier:
        """What carries it."""
        return self._transport.carrier

    @property
    def rtt(self) -> float | None:
        """The last measured round trip in seconds; None before the first."""
        return self._mux.pulse.rtt

    @property
    def streams(self) -> int:
        """How many streams are open or being opened."""
        return len(self._mux.streams)

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._mux.end is not None

    @property
    def going_away(self) -> bool:
        """Whether either end said that it takes no new streams."""
        return self._mux.going_away or self._mux.peer_going_away is not None

    # -- handlers ---------------------------------------------------------------------------------

    def on_open(self, handler: OpenHandler) -> None:
        """Let *handler* answer the peer's openings; each runs as a task the link owns."""
        self._open_handler = handler

    def on_control(self, kind: str, handler: ControlHandler) -> None:
        """Let *handler* answer requests and take notices of *kind*.

        What it returns is the answer ({} for None); an UnderpassError it raises reaches the peer.
        """
        self._desk.handle(kind, handler)

    def on_gone_away(self, callback: Callable[[LinkEnd], None]) -> None:
        """Call *callback* when the peer says that it takes no new streams."""
        self._gone_away_callbacks.append(callback)

    def start(self) -> None:
        """Begin to read. Idempotent."""
        if self._started:
            return
        self._started = True
        if self.closed:
            return
        self._timer = self._loop.call_later(_TICK, self._tick)
        leftover, self._leftover = self._leftover, b""
        self._mux.pulse.ping()
        if leftover:
            self._mux.feed(leftover)
        self._transport.set_sink(self._mux)
        if not self.closed:
            self._transport.resume_reading()

    def _tick(self) -> None:
        if not self.closed:
            self._timer = self._loop.call_later(_TICK, self._tick)
            now = self._loop.time()
            for answer in [answer for answer, late in self._answers.items() if late <= now]:
                _expire(answer)
            self._mux.tick()

    # -- streams ----------------------------------------------------------------------------------

    async def open(
        self,
        target: str,
        meta: Mapping[str, Any] | None = None,
        *,
        interactive: bool = False,
        timeout: float = 10.0,
    ) -> Stream:
        """Open a stream to *target* and wait until the peer has accepted it.

        Args:
            meta: what the peer's opener should know; must be sayable in msgpack.
            interactive: its bytes go before those of other streams.
            timeout: seconds until it gives up; from five on, up to one more.

        Raises:
            OpenRefused: the peer said no; ``code``, ``message`` and ``status`` are the peer's.
            LinkLost: the link is over, going away, or ended meanwhile.
            Unavailable: code ``open_timeout``.
            TooManyRequests: the link is full.
            TooLarge: *meta* is above 64 KiB.
        """
        if len(target) > MAX_TARGET:
            raise OpenRefused("The target is too long.", code="invalid_target")
        self.start()
        answer: asyncio.Future[None] = self._loop.create_future()
        channel = Channel(answer)
        try:
            stream = self._mux.open(target, meta or {}, channel, interactive=interactive)
        except Unavailable as error:
            raise LinkLost(error.message, code=error.code) from None
        channel.bind(stream)
        timer = None
        if timeout < _EXACT:
            timer = self._loop.call_later(timeout, _expire, answer)
        else:  # a timer for each costs more than the answer
            self._answers[answer] = self._loop.time() + timeout
        try:
            await answer
        except TimeoutError:
            stream.reset("open_timeout")
            raise Unavailable(
                f"The peer did not open {target!r} within {timeout:g} seconds.", code="open_timeout"
            ) from None
        except asyncio.CancelledError:
            stream.reset("cancelled")
            raise
        except StreamReset as error:
            raise LinkLost(error.message, code=error.code) from None
        finally:
            if timer is not None:
                timer.cancel()
            self._answers.pop(answer, None)
        return channel

    def _offered(self, stream: MuxStream, target: str, meta: dict[str, Any]) -> None:
        if self._open_handler is None:
            stream.refuse(ErrorFrame("no_opener", "This end opens no streams.", 501))
            return
        channel = Channel(None)
        channel.bind(stream)
        stream.sink = channel
        opening = Opening(self, stream, channel, target, meta)
        self._spawn(self._run_opening(self._open_handler, opening), "open")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._supervisor.start(coroutine, name)

    async def _run_opening(self, handler: OpenHandler, opening: Opening) -> None:
        try:
            await handler(opening)
        except UnderpassError as error:
            if opening.answered:
                _log.info("stream_failed", target=opening.target, code=error.code, error=str(error))
            opening.refuse(error)
        except Exception:  # noqa: BLE001 - whatever an opener does wrong, the peer gets an answer
            _log.exception("opener_failed", target=opening.target)
            opening.refuse(Internal("The opener failed; the log over there says why."))
        finally:
            opening.refuse(Internal("The opener gave no answer."))

    # -- control ----------------------------------------------------------------------------------

    async def request(
        self, kind: str, body: Mapping[str, Any], timeout: float = 10.0
    ) -> dict[str, Any]:
        """Ask the peer and wait for its answer.

        Raises:
            UnderpassError: what the peer answered with, as the class its status names.
            LinkLost: the link is over.
            Unavailable: code ``request_timeout``.
            TooManyRequests: 256 requests are waiting already.
            TooLarge: *body* is above 1 MiB.
        """
        self.start()
        if self.closed:
            raise LinkLost("The link is over.")
        return await self._desk.ask(kind, body, timeout)

    def notify(self, kind: str, body: Mapping[str, Any]) -> None:
        """Tell the peer something; dropped when the link is over.

        Raises:
            TooLarge: *body* is above 1 MiB.
        """
        self.start()
        self._desk.tell(kind, body)

    # -- the end ----------------------------------------------------------------------------------

    async def go_away(self, reason: str) -> None:
        """Say that this end takes no new streams; existing ones finish."""
        self.start()
        self._mux.go_away("going_away", reason)

    async def close(self, code: str = "closed", message: str = "") -> None:
        """End the link and all its streams, and wait for its tasks. Idempotent."""
        self.start()
        self._mux.close(code, message)
        await self._supervisor.close()
        await self._transport.ended()

    async def wait_closed(self) -> LinkEnd:
        """Wait until the link is over; says why."""
        self.start()
        return await asyncio.shield(self._closed)

    def _ended(self, end: LinkEnd) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._desk.lost(LinkLost(f"The link is over: {end.message or end.code}"))
        if not self._closed.done():
            self._closed.set_result(end)
        self._transport.close()
        self._timer = self._loop.call_later(_FLUSH, self._transport.abort)
        self._supervisor.cancel()

    def _disconnected(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _gone_away(self, end: LinkEnd) -> None:
        for callback in self._gone_away_callbacks:
            callback(end)


def _expire(answer: asyncio.Future[None]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
