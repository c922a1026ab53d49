"""Keeps the library's QUIC connection going: datagrams in and out, its timer, the peer's moves.

What the connection finds is told by one call (``drained``); what it means is ``transport.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from qh3.quic.connection import QuicConnection, QuicConnectionError

from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.packet_info import parted
from underpass.links.quic.paths import QUESTION, PeerPath, answer_to, question_in
from underpass.links.quic.udp import Address, Datagram
from underpass.wire.frames import ProtocolError

__all__ = ["QuicEngine"]

_log = structlog.get_logger(__name__)
logging.getLogger("quic").setLevel(logging.ERROR)  # the library warns of every closed connection


class QuicEngine:
    """One QUIC connection between a socket and a transport.

    Args:
        quic: the library's connection, to which nothing has been fed.
        send: sends datagrams; must not block.
        dialled: whether this end is the client.
        drained: called when there may be events; raises ProtocolError when a rule was broken.
        failed: given what ends the connection.
        sent: called when datagrams have left.
    """

    def __init__(
        self,
        quic: QuicConnection,
        send: Callable[[Sequence[Datagram]], None],
        *,
        dialled: bool,
        drained: Callable[[], None],
        failed: Callable[[UnderpassError], None],
        sent: Callable[[], None],
    ) -> None:
        self.quic = quic
        self.path: PeerPath | None = None
        """Where the peer is; None until something came, and for a gateway, which never moves."""
        self.settled = False
        """The QUIC handshake is done; before that nobody may move (RFC 9000, 9)."""
        self.stopped = False
        self._send = send
        self._dialled = dialled
        self._drained = drained
        self._failed = failed
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self._home: Address = ()  # what the library is told to be the peer's address, for ever
        self._source: Address = ()  # where the packet that is looked at came from
        self._transmitting = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    # -- in ---------------------------------------------------------------------------------------

    def received(self, data: bytes, size: int, source: Address) -> None:
        """Take datagrams of *size* bytes each (0: a single one) from *source*."""
        path = self.path
        if not self._home:
            self._home = parted(source)[0]
            path = self.path = PeerPath(source)
        elif path is None:
            if source[:2] != self._home[:2]:
                return  # a gateway does not move, and nobody else has anything to say
            data = self._without_question(data, size)
            if not data:
                return
        elif source != path.current and not self.settled:
            return
        elif source != path.current or path.trial is not None:
            self._received_on_trial(data, size or len(data), source, path)
            return
        self._source = source
        try:
            if size:
                self.quic.receive_gro_buffer(data, size, self._home, self._loop.time())
            else:
                self.quic.receive_datagram(data, self._home, self._loop.time())
            self._drained()
        except Exception as error:  # noqa: BLE001 - a datagram's harm ends with its connection
            self._broken(error)
        self.transmit_soon()

    def _without_question(self, data: bytes, size: int) -> bytes:
        """*data* without the question at its end, if there is one; that is answered."""
        last = (len(data) % size or size) if size else len(data)
        if last != QUESTION:
            return data
        secret = question_in(data[-QUESTION:])
        if secret is None:
            return data
        with contextlib.suppress(QuicConnectionError):  # the connection is ending
            self.quic.send_datagram_frame(answer_to(secret))
        self.transmit_soon()
        return data[:-QUESTION]

    def _received_on_trial(self, data: bytes, size: int, source: Address, path: PeerPath) -> None:
        """Take datagrams, and tell the path of each that is the peer's."""
        quic: Any = self.quic
        self._source = source
        try:
            for start in range(0, len(data), size):
                datagram = data[start : start + size]
                # As the library's receive_datagram, which does not tell whether it was anything.
                now = self._loop.time()
                report = quic._core.receive_datagram(datagram, self._home, now, len(datagram))
                quic._drain_core()
                # What has come before, first from elsewhere, shows who copies: the peer is here.
                if report[2] or (report[3] and source == path.current):
                    path.heard(source, len(datagram), now)
            self._drained()
        except Exception as error:  # noqa: BLE001 - as above
            self._broken(error)
        self.transmit_soon()

    def _broken(self, error: Exception) -> None:
        if not isinstance(error, ProtocolError):
            _log.debug("quic_datagram_failed", exc_info=error)
            error = Unavailable("A datagram could not be taken.", code="connection_lost")
        self._failed(error)

    def word(self, word: bytes) -> None:
        """A DATAGRAM frame came: the peer says that it is where it was asked."""
        if self.path is not None:
            before = self.path.current
            if self.path.answered(self._source, word):
                _log.debug("quic_peer_moved", before=before[:2], now=self._source[:2])

    # -- out --------------------------------------------------------------------------------------

    def connect(self, address: Address) -> None:
        """Begin the QUIC handshake (the dialling end); what is written in this turn goes along."""
        self._home = address
        self.quic.connect(address, self._loop.time())
        self.transmit_soon()

    def transmit_soon(self) -> None:
        """Send when this turn of the event loop ends."""
        if not self._transmitting:
            self._transmitting = True
            self._loop.call_soon(self.transmit)

    @property
    def about_to_send(self) -> bool:
        """What is put now leaves when this turn of the event loop ends."""
        return self._transmitting

    def transmit(self) -> None:
        """Send whatever the connection has to send now."""
        self._transmitting = False
        if self.stopped:
            return
        now = self._loop.time()
        try:
            question = None if self.path is None else self.path.question(now)
            datagrams = self._addressed(self.quic.datagrams_to_send(now), now)
        except QuicConnectionError as error:
            self._failed(
                Unavailable(f"QUIC failed: {error.reason_phrase}.", code="connection_lost")
            )
            return
        self._send([question, *datagrams] if question is not None else datagrams)
        self._sent()
        self._arm()

    def _addressed(self, datagrams: list[Datagram], now: float) -> list[Datagram]:
        path = self.path
        if path is None:
            return datagrams
        if path.trial is not None:
            return [(data, path.to(len(data), now)) for data, _ in datagrams]
        if path.current == self._home:
            return datagrams
        return [(data, path.current) for data, _ in datagrams]

    def _arm(self) -> None:
        at = self.quic.get_timer()
        asks_at = None if self.path is None else self.path.asks_at
        if asks_at is not None and asks_at > self._loop.time():
            at = asks_at if at is None else min(at, asks_at)
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._timed)
        self._timer_at = at

    def _timed(self) -> None:
        at, self._timer, self._timer_at = self._timer_at, None, None
        due = self.quic.get_timer()
        try:
            if due is not None and due <= max(at or 0.0, self._loop.time()):
                self.quic.handle_timer(max(at or 0.0, self._loop.time()))
                self._drained()
        except (QuicConnectionError, ProtocolError) as error:
            _log.debug("quic_timer_failed", error=str(error))
            self._failed(Unavailable("QUIC failed.", code="connection_lost"))
        self.transmit()

    def put(self, stream: int, data: bytes | memoryview, end: bool) -> None:
        """Queue *data* on a QUIC stream; dropped when the connection has ended."""
        # It may have ended without the event that says so having been looked at.
        with contextlib.suppress(QuicConnectionError):
            self.quic.send_stream_data(stream, data, end)

    @property
    def unsent(self) -> int:
        """Bytes that have not been sent once."""
        return self.quic.get_send_buffer_size()

    @property
    def rtt(self) -> float | None:
        """Seconds to the peer and back, smoothed; None before there was an answer."""
        core: Any = getattr(self.quic, "_core", None)
        found = None if core is None else core.smoothed_rtt
        return None if found is None else float(found)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye to the peer."""
        with contextlib.suppress(QuicConnectionError):
            self.quic.close(code, None, reason)
        self.transmit()

    def stop(self) -> None:
        """Send and take nothing more. Idempotent."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
