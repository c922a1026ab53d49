"""Many streams over one ordered byte pipe: the mux, a pure object without an event loop.

``feed`` it what the peer sent, ``tick`` it every second, and it calls back: its *events* (a stream
is offered, a control message came, the link is over), each stream's *sink* (bytes, end, reset) and
the *write* functions of the transport below. It is itself the sink of that transport.

What goes out, and in which order, is ``outbox.py``'s; what comes in is handed on at once, without
buffering: the sink says ``consumed``, and that turns into credit for the peer
(``underpass.wire.flow``). A peer that breaks a rule loses the link, with a code that says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from underpass.core.errors import (
    InvalidRequest,
    TooLarge,
    TooManyRequests,
    Unavailable,
    UnderpassError,
)
from underpass.links.habit import SMALL
from underpass.links.mux_events import LinkEnd, MuxEvents, MuxLimits
from underpass.links.mux_stream import MuxStream, StreamSink
from underpass.links.outbox import Buffer, Outbox
from underpass.links.pulse import Pulse
from underpass.wire.flow import EARLY_WINDOW, WindowBudget
from underpass.wire.frames import (
    MAX_CONTROL,
    MAX_PAYLOAD,
    AcceptFrame,
    AnswerMessage,
    EndFrame,
    ErrorFrame,
    FailureMessage,
    FrameDecoder,
    FrameType,
    NotifyMessage,
    OpenFrame,
    ProtocolError,
    RequestMessage,
    decode_payload,
    encode_frame,
    encode_payload,
)

__all__ = ["LinkEnd", "Mux", "MuxEvents", "MuxLimits", "MuxStream", "StreamSink"]

_MAX_ID: Final = (1 << 32) - 1
_MAX_CREDIT: Final = (1 << 31) - 1
_OPEN: Final = int(FrameType.OPEN)
_ACCEPT: Final = int(FrameType.ACCEPT)
_WINDOW: Final = int(FrameType.WINDOW)
_EOF: Final = int(FrameType.EOF)
_RESET: Final = int(FrameType.RESET)
Message = RequestMessage | AnswerMessage | FailureMessage | NotifyMessage


class Mux:
    """The mux of one link.

    Args:
        dialler: whether this end dialled (it numbers its streams odd, the other end even).
        write: sends bytes; must not block.
        writelines: sends several buffers in order; must not block.
        events: told what happens.
        monotonic: a clock in seconds.
        limits: caps and deadlines.
        flush: hands over what was written so far, without waiting for more.
        calmed: told when somebody begins to type, and when they have stopped.
        beside: whether bulk goes by beside the link.
        ordered: whether frames of different streams arrive in the order they were sent; then the
            numbers of new streams have to rise.
    """

    def __init__(
        self,
        *,
        dialler: bool,
        write: Callable[[Buffer], None],
        writelines: Callable[[Sequence[Buffer]], None],
        events: MuxEvents,
        monotonic: Callable[[], float],
        limits: MuxLimits | None = None,
        ordered: bool = True,
        flush: Callable[[], None] = lambda: None,
        calmed: Callable[[bool], None] = lambda _calm: None,
        beside: Callable[[], bool] = lambda: False,
    ) -> None:
        self.limits = limits or MuxLimits()
        self.streams: dict[int, MuxStream] = {}
        self.pending = 0
        """Offers of the peer not answered yet."""
        self.end: LinkEnd | None = None
        self.going_away = False
        """We take no new streams."""
        self.peer_going_away: LinkEnd | None = None
        self.budget = WindowBudget(self.limits.link_window)
        self.outbox = Outbox(
            write, writelines, events.turn_over, self._overdrawn, monotonic,
            flush=flush, calmed=calmed, beside=beside,
        )  # fmt: skip
        self.pulse = Pulse(
            monotonic,
            lambda payload: self.outbox.control(encode_frame(0, FrameType.PING, payload)),
            self.limits.ping_every,
            self.limits.dead_after,
        )
        self._write = write
        self._events = events
        self._decoder = FrameDecoder(self._on_data, self._on_frame)
        self._next_id = 1 if dialler else 2
        self._peer_parity = 0 if dialler else 1
        self._peer_last: int | None = None
        self._ordered = ordered
        self._lingering: set[MuxStream] = set()
        self._front = bytearray()

    # -- the transport's sink ---------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take *data* from the peer. What cannot be understood ends the link."""
        if self.end is None:
            self.pulse.heard = True
            try:
                self._decoder.feed(data)
            except ProtocolError as error:
                self.close(error.code, error.message)

    def pause_writing(self) -> None:
        """The transport takes no more for now."""
        self.outbox.block()

    def resume_writing(self) -> None:
        """The transport takes bytes again."""
        self.outbox.unblock()

    def next_turn(self) -> None:
        """A new turn of the event loop has begun."""
        self.outbox.next_turn()

    def lost(self, error: Exception | None) -> None:
        """The transport is gone; None when the peer closed it in an orderly way."""
        text = f"The connection was lost: {error}." if error else "The peer closed the connection."
        self.ended(LinkEnd("connection_lost", text))
        self._events.disconnected()

    # -- what the peer sent -----------------------------------------------------------------------

    def _on_data(self, stream_id: int, chunk: Buffer) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._stray(stream_id)
            return
        window = stream.window
        window.left = left = window.left - len(chunk)
        if left < 0:
            raise ProtocolError("A stream was sent more than it granted.", code="flow_control")
        if stream.eof_received or stream.opening:
            raise ProtocolError("A stream was sent data out of turn.", code="wrong_state")
        if stream.interactive:
            self.outbox.calm_down()
        else:
            size = len(chunk)
            traffic = self.outbox.traffic
            if size > SMALL:
                traffic.large(size)
            if traffic.heavy:
                stream.noticed(size)
        stream.sink.data(chunk)

    def _on_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        if self.end is not None:
            return
        if stream_id == 0:
            self._on_link_frame(kind, payload)
        elif kind == _OPEN:
            self._on_open(stream_id, payload)
        elif (stream := self.streams.get(stream_id)) is None:
            self._stray(stream_id)
        else:
            self._on_stream_frame(stream, kind, payload)

    def _on_stream_frame(self, stream: MuxStream, kind: int, payload: bytes) -> None:
        sink = stream.sink
        if kind == _WINDOW:
            if len(payload) != 4:
                raise ProtocolError("A window grant carries 4 bytes.", code="bad_payload")
            self._credited(stream, int.from_bytes(payload, "big"))
        elif kind == _EOF:
            if stream.eof_received or stream.opening or payload:
                raise ProtocolError("A stream was ended out of turn.", code="wrong_state")
            stream.eof_received = True
            if stream.eof_sent:
                self.drop(stream)
            sink.eof()
        elif kind == _RESET:
            end = decode_payload(EndFrame, payload)
            self.drop(stream)
            sink.reset(end.code, end.message)
        elif not stream.opening:  # ACCEPT and REFUSE answer our OPEN, once
            raise ProtocolError("A stream was answered twice.", code="wrong_state")
        elif kind == _ACCEPT:
            window = decode_payload(AcceptFrame, payload).window
            stream.opening = False
            sink.accepted()
            self._credited(stream, max(0, window - EARLY_WINDOW))
        else:
            error = decode_payload(ErrorFrame, payload)
            self.drop(stream)
            sink.refused(error)

    def _on_link_frame(self, kind: int, payload: bytes) -> None:
        if kind == FrameType.PING:
            if len(payload) != 8:
                raise ProtocolError("A ping carries 8 bytes.", code="bad_payload")
            self.outbox.pong(payload)
        elif kind == FrameType.PONG:
            self.pulse.pong(payload)
        elif kind == FrameType.PART:
            if len(self._front) + len(payload) > MAX_CONTROL:
                raise ProtocolError("A control message is too large.", code="control_too_large")
            self._front += payload
        elif kind == FrameType.GO_AWAY:
            end = decode_payload(EndFrame, payload)
            self.peer_going_away = LinkEnd(end.code, end.message)
            self._events.gone_away(self.peer_going_away)
        elif kind == FrameType.CLOSE:
            end = decode_payload(EndFrame, payload)
            self.ended(LinkEnd(end.code, end.message))
        else:
            if self._front:
                payload = bytes(self._front) + payload
                self._front.clear()
            self._on_message(kind, payload)

    def _on_message(self, kind: int, payload: bytes) -> None:
        events = self._events
        if kind == FrameType.REQUEST:
            events.requested(decode_payload(RequestMessage, payload))
        elif kind == FrameType.ANSWER:
            events.answered(decode_payload(AnswerMessage, payload))
        elif kind == FrameType.FAILURE:
            events.failed(decode_payload(FailureMessage, payload))
        else:
            events.notified(decode_payload(NotifyMessage, payload))

    def _on_open(self, stream_id: int, payload: bytes) -> None:
        last = self._peer_last
        # Serial numbers (RFC 1982): ids may wrap around after two thousand million streams.
        new = last is None or 0 < ((stream_id - last) & _MAX_ID) <= _MAX_CREDIT
        fresh = (new or not self._ordered) and stream_id not in self.streams
        if stream_id & 1 != self._peer_parity or not fresh:
            raise ProtocolError("A stream was opened under a wrong number.", code="wrong_stream")
        if new:
            self._peer_last = stream_id
        message = decode_payload(OpenFrame, payload)
        refusal: ErrorFrame | None = None
        if self.going_away:
            refusal = ErrorFrame("going_away", "This end takes no new streams.", 503)
        elif len(self.streams) >= self.limits.streams:
            text = f"The link already has {len(self.streams)} streams."
            refusal = ErrorFrame("too_many_streams", text, 429)
        elif self.pending >= self.limits.opens_pending:
            text = f"{self.pending} streams are still being opened."
            refusal = ErrorFrame("too_many_opens", text, 429)
        if refusal is not None:
            self.outbox.control(encode_frame(stream_id, FrameType.REFUSE, encode_payload(refusal)))
            return
        stream = MuxStream(self, stream_id, interactive=message.interactive, credit=message.window)
        stream.offered = True
        self.pending += 1
        self._add(stream)
        self._events.offered(stream, message.target, message.meta)

    def _credited(self, stream: MuxStream, credit: int) -> None:
        stream.credit += credit
        if stream.credit > _MAX_CREDIT:
            raise ProtocolError("A stream was granted too much.", code="flow_control")
        if stream.queued and stream.credit > 0:
            self.outbox.schedule(stream)

    def _stray(self, stream_id: int) -> None:
        """A frame for a stream we do not know: late for one that is over, else a violation."""
        if self.end is not None:
            return
        if stream_id & 1 == self._peer_parity:
            last = self._peer_last
            known = last is not None and ((last - stream_id) & _MAX_ID) <= _MAX_CREDIT
        else:
            known = 0 < ((self._next_id - stream_id) & _MAX_ID) <= _MAX_CREDIT
        if not known:
            raise ProtocolError("A frame came for a stream nobody opened.", code="unknown_stream")

    # -- streams ----------------------------------------------------------------------------------

    def open(
        self, target: str, meta: Mapping[str, Any], sink: StreamSink, *, interactive: bool = False
    ) -> MuxStream:
        """Ask the peer for a stream to *target*; *sink* hears the answer.

        Up to EARLY_WINDOW bytes may be sent before it comes.

        Raises:
            Unavailable: the link is over or going away (codes ``link_lost``, ``going_away``).
            TooManyRequests: the link is full.
            TooLarge: *meta* does not fit into a frame.
            InvalidRequest: *target* or *meta* cannot be said in msgpack.
        """
        if self.end is not None:
            raise Unavailable("The link is over.", code="link_lost")
        if self.going_away or self.peer_going_away is not None:
            raise Unavailable("The link takes no new streams.", code="going_away")
        if len(self.streams) >= self.limits.streams:
            raise TooManyRequests(
                f"The link already has {len(self.streams)} streams.", code="too_many_streams"
            )
        stream_id = self._next_id
        while stream_id in self.streams or stream_id == 0:
            stream_id = (stream_id + 2) & _MAX_ID
        stream = MuxStream(self, stream_id, interactive=interactive, credit=EARLY_WINDOW)
        stream.window.widen()
        try:
            payload = encode_payload(OpenFrame(target, dict(meta), stream.window.size, interactive))
            if len(payload) > MAX_PAYLOAD:
                raise TooLarge(f"What is said about a stream may have {MAX_PAYLOAD} bytes.")
        except (TypeError, ValueError, OverflowError, UnderpassError) as error:
            stream.window.release()
            if isinstance(error, UnderpassError):
                raise
            raise InvalidRequest(
                "What is said about a stream cannot be sent.", code="invalid_target"
            ) from None
        self._next_id = (stream_id + 2) & _MAX_ID
        stream.sink = sink
        stream.opening = True
        self._add(stream)
        self.outbox.control(encode_frame(stream_id, FrameType.OPEN, payload))
        return stream

    def _add(self, stream: MuxStream) -> None:
        self.streams[stream.id] = stream
        if stream.interactive:
            self.outbox.calm_down()

    def drop(self, stream: MuxStream) -> None:
        """Forget *stream*: it is over."""
        if self.streams.pop(stream.id, None) is None:
            return
        if stream.offered:
            stream.offered = False
            self.pending -= 1
        self.outbox.forget(stream)
        self._lingering.discard(stream)
        stream.clear()

    def linger(self, stream: MuxStream) -> None:
        """Give *stream*, closed here, ``limits.linger`` seconds to end."""
        if not stream.gone:
            stream.linger_until = self.pulse.monotonic() + self.limits.linger
            self._lingering.add(stream)

    # -- control messages, time, the end ----------------------------------------------------------

    def send_message(self, kind: FrameType, message: Message) -> None:
        """Send a control message, in several frames if it is large.

        Raises:
            TooLarge: above MAX_CONTROL bytes.
        """
        payload = encode_payload(message)
        if len(payload) > MAX_CONTROL:
            raise TooLarge(f"A control message may have {MAX_CONTROL} bytes, not {len(payload)}.")
        while len(payload) > MAX_PAYLOAD:
            self.outbox.control(encode_frame(0, FrameType.PART, payload[:MAX_PAYLOAD]))
            payload = payload[MAX_PAYLOAD:]
        self.outbox.control(encode_frame(0, kind, payload))

    def tick(self) -> None:
        """Do what time demands; call it every second."""
        if self.end is not None:
            return
        if not self.pulse.tick():
            text = f"Nothing came for {self.limits.dead_after:g} seconds."
            self.ended(LinkEnd("peer_silent", text))
            return
        self.outbox.tick()
        now = self.pulse.monotonic()
        for stream in [stream for stream in self._lingering if stream.linger_until <= now]:
            stream.reset("lingered", "The stream was closed and its end did not come.")

    def go_away(self, code: str, message: str = "") -> None:
        """Take no new streams; existing ones finish. Idempotent."""
        if not self.going_away:
            self.going_away = True
            why = encode_payload(EndFrame(code, message[:1024]))
            self.outbox.control(encode_frame(0, FrameType.GO_AWAY, why))

    def close(self, code: str, message: str = "") -> None:
        """Tell the peer that the link is over, and end it. Idempotent."""
        if self.end is None:
            why = encode_payload(EndFrame(code, message[:1024]))
            self._write(encode_frame(0, FrameType.CLOSE, why))
            self.ended(LinkEnd(code, message))

    def _overdrawn(self) -> None:
        self.ended(LinkEnd("not_reading", "The peer asks but does not read the answers."))

    def ended(self, end: LinkEnd) -> None:
        """The link is over, whoever said so. Idempotent."""
        if self.end is not None:
            return
        self.end = end
        self.outbox.shut()
        sinks = [stream.sink for stream in self.streams.values()]
        for stream in list(self.streams.values()):
            self.drop(stream)
        for sink in sinks:
            sink.reset("link_lost", f"The link is over: {end.message or end.code}")
        self._events.ended(end)
