"""Which QUIC stream each frame of a link travels on, and how frames are got back: pure objects.

A *lane* is a bidirectional QUIC stream that carries the frames of one stream of the link, from its
OPEN to its end. Frames of the link itself, and of streams for which the peer allows no more QUIC
streams, share the *control lane*, a unidirectional one each way. Within a lane bytes stay in order,
so the mux sees the same as over TCP, except that different streams overtake each other.

The mux is fed whole frames only, since frames of several lanes must not be mixed up inside: of a
DATA frame that is here in part, that part is made a smaller DATA frame.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from underpass.wire.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    FrameType,
    ProtocolError,
    pack_header,
)

__all__ = ["LaneReader", "Lanes", "Piece"]

Buffer = bytes | memoryview
_unpack: Final = struct.Struct("!II").unpack_from
_ENDS_BOTH: Final = frozenset({FrameType.RESET, FrameType.REFUSE})
_NOTABLE: Final = _ENDS_BOTH | {FrameType.OPEN, FrameType.EOF}


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for one QUIC stream.

    Attributes:
        lane: the QUIC stream's number; None is the control lane.
        end: nothing follows on it.
    """

    lane: int | None
    data: Buffer
    end: bool = False


class LaneReader:
    """Makes whole frames of the bytes of one lane.

    Args:
        seen: told (kind, stream id) of each OPEN, EOF, RESET and REFUSE, in order.
    """

    __slots__ = ("_head", "_missing", "_seen", "_stream")

    def __init__(self, seen: Callable[[int, int], None]) -> None:
        self._seen = seen
        self._head: bytes = b""  # the front of a header or of a frame that is not DATA
        self._missing = 0  # bytes of the current DATA frame still to come
        self._stream = 0  # whose they are

    def feed(self, data: bytes) -> bytes:
        """The frames in what has come so far, whole ones only.

        Raises:
            ProtocolError: a frame is larger than any may be.
        """
        size = len(data)
        parts: list[Buffer] = []
        offset = 0
        if self._missing:
            offset = min(size, self._missing)
            self._missing -= offset
            parts += (pack_header(self._stream, offset), memoryview(data)[:offset])
        elif self._head:
            joined: bytes = self._head + data
            data = joined
            self._head = b""
            size = len(data)
        start = offset
        while size - offset >= HEADER_SIZE:
            stream_id, rest = _unpack(data, offset)
            kind, length = rest >> 24, rest & 0xFFFFFF
            if length > MAX_PAYLOAD:
                raise ProtocolError(
                    f"A frame of {length} bytes is larger than {MAX_PAYLOAD}.",
                    code="frame_too_large",
                )
            end = offset + HEADER_SIZE + length
            if end > size:
                here = size - offset - HEADER_SIZE
                if kind == FrameType.DATA and here:
                    view = memoryview(data)
                    parts += (view[start:offset], pack_header(stream_id, here), view[-here:])
                    self._missing, self._stream = length - here, stream_id
                    start = offset = size
                break
            if kind in _NOTABLE:
                self._seen(kind, stream_id)
            offset = end
        self._head = data[offset:]
        if not parts:
            return data[:offset]
        parts.append(memoryview(data)[start:offset])
        return b"".join(parts)


@dataclass(slots=True, eq=False)
class _Lane:
    number: int
    stream: int | None = None
    sent_eof: bool = False
    got_eof: bool = False
    ended_here: bool = False


class Lanes:
    """The lanes of one link, seen from one end.

    Args:
        open_lane: gives the number of a new QUIC stream, or None when the peer allows no more.
    """

    def __init__(self, open_lane: Callable[[], int | None]) -> None:
        self._open_lane = open_lane
        self._by_stream: dict[int, _Lane] = {}
        self._by_number: dict[int, _Lane] = {}
        self._readers: dict[int, LaneReader] = {}
        self._finished: list[int] = []

    @property
    def unsettled(self) -> int:
        """How many lanes are not ended both ways."""
        return len(self._by_number)

    def outgoing(self, data: bytes) -> list[Piece]:
        """Where the frames in *data* go: whole frames, as the mux wrote them."""
        pieces: list[Piece] = []
        view = memoryview(data)
        size = len(data)
        offset = start = 0
        current: int | None = None
        lane: _Lane | None = None
        while offset < size:
            stream_id, rest = _unpack(data, offset)
            if stream_id != current:
                if offset > start:
                    pieces.append(self._piece(lane, view[start:offset]))
                start, current = offset, stream_id
                lane = self._by_stream.get(stream_id)
            kind = rest >> 24
            offset += HEADER_SIZE + (rest & 0xFFFFFF)
            if kind in _NOTABLE:
                if kind == FrameType.OPEN:
                    lane = self._opened_here(stream_id)
                elif lane is not None:
                    lane.sent_eof = True
                    lane.got_eof |= kind in _ENDS_BOTH
        if offset > start:
            pieces.append(self._piece(lane, view[start:offset]))
        return pieces

    def _piece(self, lane: _Lane | None, data: Buffer) -> Piece:
        if lane is None or lane.ended_here:
            return Piece(None, data)
        end = lane.sent_eof and lane.got_eof
        if end:
            self._end(lane)
        return Piece(lane.number, data, end)

    def _opened_here(self, stream_id: int) -> _Lane | None:
        number = self._open_lane()
        if number is None:
            return None
        lane = _Lane(number, stream_id)
        self._by_number[number] = self._by_stream[stream_id] = lane
        return lane

    def _end(self, lane: _Lane) -> None:
        lane.ended_here = True
        if lane.stream is not None:
            self._by_stream.pop(lane.stream, None)

    def incoming(self, number: int, data: bytes, end: bool, *, control: bool) -> bytes:
        """The whole frames that *data*, which came on QUIC stream *number*, completes.

        Args:
            end: nothing follows on this QUIC stream.
            control: it is the peer's control lane.

        Raises:
            ProtocolError: it cannot be frames, or two streams share a lane.
        """
        lane: _Lane | None = None
        if not control:
            lane = self._by_number.get(number)
            if lane is None:
                lane = self._by_number[number] = _Lane(number)
        reader = self._readers.get(number)
        if reader is None:
            reader = self._readers[number] = LaneReader(
                lambda kind, stream_id: self._noted(lane, kind, stream_id)
            )
        frames = reader.feed(data)
        if end:
            del self._readers[number]
            if lane is not None:
                # The peer has ended its half: the stream is over, or the link is about to be.
                if not lane.ended_here:
                    self._end(lane)
                    self._finished.append(number)
                del self._by_number[number]
        elif lane is not None and lane.sent_eof and lane.got_eof and not lane.ended_here:
            self._end(lane)
            self._finished.append(number)
        return frames

    def _noted(self, own: _Lane | None, kind: int, stream_id: int) -> None:
        if kind == FrameType.OPEN:
            if own is not None:
                if own.stream is not None or stream_id in self._by_stream:
                    raise ProtocolError("Two streams were opened on one lane.", code="wrong_stream")
                own.stream = stream_id
                self._by_stream[stream_id] = own
            return
        lane = self._by_stream.get(stream_id)
        if lane is not None and lane is own:
            lane.got_eof = True
            lane.sent_eof |= kind in _ENDS_BOTH

    def take_finished(self) -> list[int]:
        """Lanes whose half here has to be ended because the stream is over; each once."""
        finished, self._finished = self._finished, []
        return finished

    def end_all(self) -> list[int]:
        """The link is closing: the lanes whose half here has to be ended."""
        lanes = [lane for lane in self._by_number.values() if not lane.ended_here]
        for lane in lanes:
            self._end(lane)
        return [lane.number for lane in lanes]
