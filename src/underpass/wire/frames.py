"""The frames a link is made of: an 8-byte header (stream id, type, length) and a payload.

Everything is big-endian::

    stream id  u32    0 for the link itself
    type       u8     one of FrameType
    length     u24    bytes of payload that follow, at most MAX_PAYLOAD

DATA payloads are handed on *as they arrive*, without waiting for the whole frame: a 64 KiB frame
that comes in five pieces gives five chunks and costs no assembly. Every other payload is small and
is handed on whole. Structured payloads are msgpack arrays (msgspec); fields may be appended by a
later version and are then ignored by an older one.

The decoder knows frames, not streams: what a frame *means* is the mux's business
(``underpass.links.mux``).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from underpass.core.errors import UnderpassError

__all__ = [
    "HEADER_SIZE",
    "MAX_CONTROL",
    "MAX_PAYLOAD",
    "MAX_TARGET",
    "AcceptFrame",
    "AnswerMessage",
    "EndFrame",
    "ErrorFrame",
    "FailureMessage",
    "FrameDecoder",
    "FrameType",
    "NotifyMessage",
    "OpenFrame",
    "ProtocolError",
    "RequestMessage",
    "decode_payload",
    "encode_frame",
    "encode_payload",
    "pack_header",
]

HEADER_SIZE: Final = 8
MAX_PAYLOAD: Final = 65536
"""No frame carries more bytes than this."""
MAX_CONTROL: Final = 1 << 20
"""No control message is larger, however many frames it is cut into."""
MAX_TARGET: Final = 1024
"""Characters in a target."""
MAX_TEXT: Final = 2048
"""Characters in a message that travels in a frame."""
_MAX_INT: Final = (1 << 31) - 1

_header = struct.Struct("!II")
pack_header: Final = _header.pack
"""``pack_header(stream_id, type << 24 | length)``: the 8 bytes; a DATA header is (id, length)."""
_unpack_header = _header.unpack_from


class ProtocolError(UnderpassError):
    """The peer broke the protocol; the link cannot go on."""

    code, status, close_code = "protocol_error", 400, 4400


class FrameType(enum.IntEnum):
    """What a frame is. DATA must stay 0: its header is then (id, length)."""

    DATA = 0
    OPEN = 1  # OpenFrame
    ACCEPT = 2  # AcceptFrame
    REFUSE = 3  # ErrorFrame
    WINDOW = 4  # u32: bytes the receiver takes in addition
    EOF = 5  # empty: no more DATA this way
    RESET = 6  # EndFrame: the stream is over both ways
    PING = 7  # 8 opaque bytes, stream 0
    PONG = 8  # the same 8 bytes, stream 0
    GO_AWAY = 9  # EndFrame, stream 0: no new streams, existing ones finish
    CLOSE = 10  # EndFrame, stream 0: the link is over
    REQUEST = 11  # RequestMessage, stream 0
    ANSWER = 12  # AnswerMessage, stream 0
    FAILURE = 13  # FailureMessage, stream 0
    NOTIFY = 14  # NotifyMessage, stream 0
    PART = 15  # bytes, stream 0: the front part of the control message that comes next


_DATA: Final = 0
_LAST_TYPE: Final = max(FrameType)
_LINK_TYPES: Final = frozenset(t for t in FrameType if t >= FrameType.PING)


class OpenFrame(msgspec.Struct, array_like=True, frozen=True):
    """Asks for a stream to *target*; *window* is what the opener takes before it grants more."""

    target: str
    meta: dict[str, Any]
    window: int
    interactive: bool = False


class AcceptFrame(msgspec.Struct, array_like=True, frozen=True):
    """The stream is open; *window* bytes in total may be sent before more is granted."""

    window: int


class ErrorFrame(msgspec.Struct, array_like=True, frozen=True):
    """An UnderpassError on its way to the peer."""

    code: str
    message: str
    status: int = 500
    hint: str | None = None
    retry_after: float | None = None


class EndFrame(msgspec.Struct, array_like=True, frozen=True):
    """Why a stream or a link is over."""

    code: str
    message: str = ""


class RequestMessage(msgspec.Struct, array_like=True, frozen=True):
    """A question; answered by an AnswerMessage or a FailureMessage of the same id."""

    id: int
    kind: str
    body: dict[str, Any]


class AnswerMessage(msgspec.Struct, array_like=True, frozen=True):
    """The answer to the request of this id."""

    id: int
    body: dict[str, Any]


class FailureMessage(msgspec.Struct, array_like=True, frozen=True):
    """The request of this id failed."""

    id: int
    error: ErrorFrame


class NotifyMessage(msgspec.Struct, array_like=True, frozen=True):
    """Something the peer should know; nobody answers."""

    kind: str
    body: dict[str, Any]


_Payload = TypeVar("_Payload", bound=msgspec.Struct)
_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (
        OpenFrame,
        AcceptFrame,
        ErrorFrame,
        EndFrame,
        RequestMessage,
        AnswerMessage,
        FailureMessage,
        NotifyMessage,
    )
}


def encode_payload(payload: msgspec.Struct) -> bytes:
    """The msgpack of *payload*.

    Raises:
        TypeError: when a body holds something msgpack cannot say; a bug of the caller.
    """
    return _encode(payload)


def encode_frame(stream_id: int, kind: FrameType, payload: bytes = b"") -> bytes:
    """One whole frame; *payload* is at most MAX_PAYLOAD bytes."""
    assert len(payload) <= MAX_PAYLOAD
    return pack_header(stream_id, kind << 24 | len(payload)) + payload


def decode_payload(kind: type[_Payload], payload: bytes) -> _Payload:
    """Read a structured payload and check its bounds.

    Raises:
        ProtocolError: when it is not what *kind* says.
    """
    try:
        value: _Payload = _decoders[kind].decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(
            f"A {kind.__name__} could not be read: {error}.", code="bad_payload"
        ) from None
    if isinstance(value, OpenFrame | AcceptFrame) and not 0 <= value.window <= _MAX_INT:
        raise ProtocolError("A stream was offered with an impossible window.", code="bad_payload")
    if isinstance(value, OpenFrame) and len(value.target) > MAX_TARGET:
        raise ProtocolError("A target is too long.", code="bad_payload")
    return value


class FrameDecoder:
    """Cuts a byte stream into frames, however it arrives.

    Args:
        on_data: called with (stream id, chunk) for each piece of DATA. A large chunk is a
            ``memoryview`` into what was fed, a small one ``bytes``.
        on_frame: called with (type, stream id, payload) for every other frame.

    Whatever the callbacks raise goes out through :meth:`feed`; the decoder is then spent.
    """

    __slots__ = ("_head", "_missing", "_on_data", "_on_frame", "_stream")

    def __init__(
        self,
        on_data: Callable[[int, bytes | memoryview], None],
        on_frame: Callable[[int, int, bytes], None],
    ) -> None:
        self._on_data = on_data
        self._on_frame = on_frame
        self._head: bytes = b""  # the front of a header or of a small frame
        self._missing = 0  # bytes of the current DATA payload still to come
        self._stream = 0  # whose payload that is

    @property
    def mid_frame(self) -> bool:
        """Whether the bytes fed so far end inside a frame."""
        return self._missing > 0 or bool(self._head)

    def feed(self, data: bytes) -> None:
        """Take the next *data* from the peer.

        Raises:
            ProtocolError: when it cannot be a frame.
        """
        size = len(data)
        offset = 0
        missing = self._missing
        if missing:
            if size <= missing:
                self._missing = missing - size
                self._on_data(self._stream, data)
                return
            self._missing = 0
            self._on_data(self._stream, memoryview(data)[:missing])
            offset = missing
        if self._head:
            joined: bytes = self._head + data[offset:]
            data = joined
            self._head = b""
            size = len(data)
            offset = 0
        on_data = self._on_data
        view: memoryview | None = None
        while size - offset >= HEADER_SIZE:
            stream_id, rest = _unpack_header(data, offset)
            if rest <= MAX_PAYLOAD:  # DATA is type 0
                offset += HEADER_SIZE
                end = offset + rest
                if end <= size:
                    if rest < 2048:
                        on_data(stream_id, data[offset:end])
                    else:
                        if view is None:
                            view = memoryview(data)
                        on_data(stream_id, view[offset:end])
                    offset = end
                    continue
                self._missing = end - size
                self._stream = stream_id
                if size > offset:
                    on_data(stream_id, memoryview(data)[offset:])
                return
            kind = rest >> 24
            length = rest & 0xFFFFFF
            if length > MAX_PAYLOAD:
                raise ProtocolError(
                    f"A frame of {length} bytes is larger than {MAX_PAYLOAD}.",
                    code="frame_too_large",
                )
            if kind > _LAST_TYPE:
                raise ProtocolError(f"Frame type {kind} is unknown.", code="unknown_frame")
            if (kind in _LINK_TYPES) != (stream_id == 0):
                raise ProtocolError(
                    f"Frame type {kind} came for stream {stream_id}.", code="wrong_stream"
                )
            end = offset + HEADER_SIZE + length
            if end > size:
                break
            self._on_frame(kind, stream_id, data[offset + HEADER_SIZE : end])
            offset = end
        if offset < size:
            self._head = data[offset:]
