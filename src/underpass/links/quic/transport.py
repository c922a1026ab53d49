"""A QUIC connection as a link's transport: what the link writes and reads, and how it ends.

The handshake runs on the first QUIC stream, as bytes in order. From :meth:`QuicTransport.framed` on
the link writes frames, and ``lanes.py`` says on which QUIC stream each of them goes. ``engine.py``
keeps the connection going.

The end, in an orderly way: the closing end ends every lane, waits until the peer has ended its
halves (so everything has arrived), then sends the rest and the end of its control lane; the peer
answers that with CONNECTION_CLOSE. Each step has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from qh3.quic import events
from qh3.quic.connection import QuicConnection

from underpass.core.errors import TooLarge, Unavailable, UnderpassError
from underpass.links.quic.endings import FAILED, ending
from underpass.links.quic.engine import QuicEngine
from underpass.links.quic.lanes import Lanes, Piece
from underpass.links.quic.udp import Address, Datagram
from underpass.links.transports.transport import (
    WRITE_HIGH,
    WRITE_LOW,
    BaseTransport,
    Buffer,
    WriteBatch,
)
from underpass.wire.frames import ProtocolError

__all__ = ["QuicTransport"]

_log = structlog.get_logger(__name__)

HANDSHAKE_LANE: Final = 0
_CLIENT_CONTROL: Final = 2
_SERVER_CONTROL: Final = 3
MAX_HELD: Final = 1 << 20
"""Bytes kept for a link that has not started."""
MAX_UNDECIDED: Final = 256 << 10
"""Bytes a peer may send before the handshake is over, headers and repetitions included."""
SETTLE: Final = 1.0
"""Seconds a closing end waits for the peer to have everything."""
FINISH: Final = 2.0
"""Seconds it then waits for the peer to close."""


class QuicTransport(BaseTransport):
    """A link's bytes on a QUIC connection.

    Args:
        quic: the library's connection, to which nothing has been fed.
        send: sends datagrams; must not block.
        dialled: whether this end is the client.
        over: called once when nothing more will be sent or taken.
        linger: keep answering a peer that has not heard of the end (the accepting side).
    """

    ordered = False

    def __init__(
        self,
        quic: QuicConnection,
        send: Callable[[Sequence[Datagram]], None],
        *,
        dialled: bool,
        over: Callable[[], None] = lambda: None,
        linger: bool = False,
    ) -> None:
        super().__init__("quic")
        self.quic = quic
        self.first_bytes: Callable[[], None] | None = None
        """Called when the peer has begun to speak (the accepting side waits for that)."""
        self.settled: Callable[[], None] | None = None
        """Called when the QUIC handshake is done: the peer receives where it says."""
        self.trusted = False
        """The link's handshake has succeeded."""
        self.on_trusted: Callable[[], None] | None = None
        """Called when it has."""
        self.on_connection_id: Callable[[bytes, bool], None] | None = None
        """Told (id, whether it is new) when the ids this end is addressed by change."""
        self._engine = QuicEngine(
            quic,
            send,
            dialled=dialled,
            drained=self._drain,
            failed=self.give_up,
            sent=self._left,
        )
        self._over: Callable[[], None] | None = over
        self._linger = linger
        self._loop = asyncio.get_running_loop()
        own, peers = (_CLIENT_CONTROL, _SERVER_CONTROL)[:: 1 if dialled else -1]
        self._control, self._peer_control = own, peers
        self._lanes = Lanes(self._open_lane)
        self._next_lane = 4 if dialled else 1  # RFC 9000, 2.1; number 0 is the handshake's
        self._framed = False
        self._early: deque[bytes] = deque()  # frames that came before the link was made
        self._early_size = 0
        self._undecided = 0
        self._batch = WriteBatch(self._send_bytes)
        self._tail: list[Buffer] = []  # what the control lane ends with
        self._finishing: asyncio.TimerHandle | None = None
        self._tail_sent = False
        self._ended = False  # no more use of the connection but for saying goodbye
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def connected(self) -> None:
        """Wait until the QUIC handshake is done. Put a deadline around it.

        Raises:
            CertificateRejected: the certificate is not believed.
            Unavailable: code ``unreachable``, ``connection_lost`` or ``not_a_link``.
        """
        await asyncio.shield(self._connected)

    @property
    def version(self) -> int:
        """QUIC's version number (RFC 9000, 15)."""
        core = getattr(self.quic, "_core", None)
        return 0 if core is None else int(core.version)

    @property
    def rtt(self) -> float | None:
        """Seconds to the peer and back, smoothed."""
        return self._engine.rtt

    def unreachable(self, error: OSError) -> None:
        """The network says that nobody is there; counts only before there is a connection."""
        if not self._connected.done():
            text = f"It cannot be reached: {error.strerror or error}."
            self._end(Unavailable(text, code="unreachable"))

    async def ended(self) -> None:
        """Wait until what was written before :meth:`close` has arrived, three seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE + FINISH):
                await asyncio.shield(self._done)

    # -- datagrams in -----------------------------------------------------------------------------

    def received(self, data: bytes, size: int, address: Address) -> None:
        """Take datagrams of *size* bytes each (0: a single one) from *address*."""
        if not self._framed:
            self._undecided += len(data)
            if self._undecided > MAX_UNDECIDED:
                self.give_up(TooLarge("The peer sent too much before it was asked to."))
                return
        self._engine.received(data, size, address)

    def _drain(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                self._on_lane(event.stream_id, event.data, event.end_stream)
            elif isinstance(event, events.DatagramFrameReceived):
                self._engine.word(event.data)
            elif isinstance(event, events.HandshakeCompleted):
                self._engine.settled = True
                if self.settled is not None:
                    self.settled()
                if not self._connected.done():
                    self._connected.set_result(None)
            elif isinstance(event, events.ConnectionIdIssued):
                if self.on_connection_id is not None:
                    self.on_connection_id(event.connection_id, True)
            elif isinstance(event, events.ConnectionIdRetired):
                if self.on_connection_id is not None:
                    self.on_connection_id(event.connection_id, False)
            elif isinstance(event, events.ConnectionTerminated):
                self._terminated(event.error_code, event.reason_phrase)
                self._finally_over()
            elif isinstance(event, events.StreamReset | events.StopSendingReceived):
                raise ProtocolError("A lane was broken off.", code="wrong_state")
        if not self._ended:
            # The library tells of an end only after it has lingered; it knows at once.
            closed = getattr(self.quic, "_close_event", None)
            if isinstance(closed, events.ConnectionTerminated):
                self._terminated(closed.error_code, closed.reason_phrase)

    def _on_lane(self, number: int, data: bytes, end: bool) -> None:
        if self._ended:
            return
        if number == HANDSHAKE_LANE:
            if data and self._framed:
                raise ProtocolError("The handshake goes on after its end.", code="wrong_state")
            if data:
                self._arrived_held(data)
            if self.first_bytes is not None:
                first, self.first_bytes = self.first_bytes, None
                first()
            if end:
                self._peer_done()
            return
        control = number == self._peer_control
        frames = self._lanes.incoming(number, data, end, control=control)
        if frames:
            if self._framed:
                self._arrived_held(frames)
            else:
                self._early.append(frames)
                self._early_size += len(frames)
                if self._early_size > MAX_HELD:
                    raise ProtocolError("The link was sent too much.", code="flow_control")
        for lane in self._lanes.take_finished():
            self._put(Piece(lane, b"", end=True))
        if self._finishing is not None and not self._tail_sent and not self._lanes.unsettled:
            self._send_tail()
        if end and control:
            self._peer_done()

    def _arrived_held(self, data: bytes) -> None:
        self._arrived(data)
        if self._held and sum(map(len, self._held)) > MAX_HELD:
            raise ProtocolError("The link was sent too much.", code="flow_control")

    def _set_reading(self, reading: bool) -> None:
        """QUIC can't be told to stop; what comes is held, up to MAX_HELD."""

    # -- datagrams out ----------------------------------------------------------------------------

    def connect(self, address: Address) -> None:
        """Begin the QUIC handshake (the dialling end)."""
        self._engine.connect(address)

    def _left(self) -> None:
        if self.writing_paused and not self._ended and self._engine.unsent <= WRITE_LOW:
            self._resume_sink()

    # -- what the link writes ---------------------------------------------------------------------

    def framed(self) -> None:
        """The handshake is over: frames from now on."""
        if self._framed:
            return
        self._batch.end(flush=True)
        self._framed = self.trusted = True
        if self.on_trusted is not None:
            self.on_trusted()
        self._batch = WriteBatch(self._send_frames)
        early, self._early = self._early, deque()
        for frames in early:
            self._arrived(frames)

    def write(self, data: Buffer) -> None:
        self._batch.add(data)

    def writelines(self, parts: Sequence[Buffer]) -> None:
        self._batch.extend(parts)

    def _send_bytes(self, data: bytes) -> None:
        self._put(Piece(HANDSHAKE_LANE, data))
        self._pushed()

    def _send_frames(self, data: bytes) -> None:
        for piece in self._lanes.outgoing(data):
            if piece.lane is None and self.closing:
                self._tail.append(piece.data)
            else:
                self._put(piece)
        self._pushed()

    def _pushed(self) -> None:
        if not self._engine.about_to_send:
            self._engine.transmit()
        if not self.writing_paused and not self.closing and self._engine.unsent > WRITE_HIGH:
            self._pause_sink()

    def _put(self, piece: Piece) -> None:
        lane = self._control if piece.lane is None else piece.lane
        self._engine.put(lane, piece.data, piece.end)

    def _open_lane(self) -> int | None:
        number = self._next_lane
        if number // 4 >= self.quic.max_concurrent_bidi_streams:
            return None
        self._next_lane += 4
        return number

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        if self.closing:
            return
        self.closing = True
        self._batch.end(flush=True)
        if self._framed:
            for lane in self._lanes.end_all():
                self._put(Piece(lane, b"", end=True))
        self._finishing = self._loop.call_later(SETTLE, self._send_tail)
        if not self._lanes.unsettled:
            self._send_tail()
        else:
            self._engine.transmit()

    def _send_tail(self) -> None:
        if self._tail_sent:
            return
        self._tail_sent = True
        if self._finishing is not None:
            self._finishing.cancel()
        tail = b"".join(self._tail)
        self._tail.clear()
        self._put(Piece(None if self._framed else HANDSHAKE_LANE, tail, end=True))
        self._finishing = self._loop.call_later(FINISH, self._hang_up)
        self._engine.transmit()

    def _peer_done(self) -> None:
        """The peer has said its last word, and everything before it has come."""
        self._hang_up()

    def _hang_up(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self.closing = True
        self._batch.end(flush=False)
        if not self._ended:
            self._loop.call_soon(self._end, None)

    def give_up(self, error: UnderpassError) -> None:
        """End with *error*, and tell the peer its code."""
        self._end(error)

    def _terminated(self, code: int, reason: str) -> None:
        self._end(ending(code, reason, connected=self._connected.done()))

    def _end(self, error: UnderpassError | None) -> None:
        """Nothing is expected of the peer any more: say so to it and to the sink."""
        if self._ended:
            return
        self._ended = self.closing = True
        self._batch.end(flush=False)
        self._tail.clear()
        if self._finishing is not None:
            self._finishing.cancel()
        if not self._connected.done():
            self._connected.set_exception(
                error or Unavailable("The connection was given up.", code="connection_lost")
            )
            self._connected.exception()  # whoever waits hears of it; perhaps nobody does
        if not self._done.done():
            self._done.set_result(None)
        reason = "" if error is None else error.code
        if error is not None:
            _log.debug("quic_failed", peer=self.peer_address, code=reason, reason=error.message)
        self._engine.close(FAILED if error is not None else 0, reason)
        if not self._linger:
            self._finally_over()
        self._gone(error)

    def _finally_over(self) -> None:
        over, self._over = self._over, None
        self._engine.stop()
        if over is not None:
            over()
