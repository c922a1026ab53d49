"""What a terminal trunk carries: bytes and small JSON messages, and how a stream frames them.

A *trunk* joins one session on an agent to the gateway. Over a stream each message is a frame:
type u8, length u24 big-endian, payload. Over the poll mode's WebSocket a binary message is bytes
and a text message is JSON, without framing. The same frames carry ``exec``.
See docs/reference/terminal-protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from underpass.core.errors import InvalidRequest

__all__ = [
    "INITIAL_CREDIT",
    "MAX_CONTROL",
    "MAX_CREDIT",
    "MAX_FRAME",
    "Ack",
    "Attached",
    "Control",
    "Credit",
    "Exit",
    "Failure",
    "FrameDecoder",
    "FrameType",
    "Ping",
    "Pong",
    "Resize",
    "Signal",
    "TerminalFrameError",
    "Terminate",
    "clamp_size",
    "decode_control",
    "encode_control",
    "frame",
    "frames",
]

MAX_FRAME = 65536
"""Largest payload of one frame, in bytes."""
MAX_CONTROL = 4096
"""Largest JSON control message, in bytes."""
INITIAL_CREDIT = 256 * 1024
"""Output bytes a side may send before the first ``credit`` (spec 7, "Terminal socket")."""
MAX_CREDIT = 2**53
"""Most credit that counts at any time. Credit is a number, not memory: a peer may switch its flow
control off by granting a lot, and then the trunk's own back-pressure is what is left."""
_MAX_OFFSET = 2**53  # exact in every JSON reader


class FrameType(IntEnum):
    """The first byte of a frame."""

    BYTES = 0
    """Terminal bytes, either way; ``exec``: stdin to the agent, stdout from it."""
    CONTROL = 1
    """One JSON object."""
    STDERR = 2
    """``exec`` only, from the agent."""
    STDIN_EOF = 3
    """``exec`` only, to the agent: no more stdin. Empty."""


class TerminalFrameError(InvalidRequest):
    """The frames of a trunk make no sense any more; only a new trunk can help."""

    code = "bad_terminal_frame"


def clamp_size(cols: int, rows: int) -> tuple[int, int]:
    """A terminal size within 1 to 1000 each way (spec 1: sizes come from the client)."""
    return min(max(cols, 1), 1000), min(max(rows, 1), 1000)


# --- control messages -------------------------------------------------------------------------

_Offset = Annotated[int, Meta(ge=0, le=_MAX_OFFSET)]
_Id = Annotated[str, Meta(min_length=1, max_length=64)]
_Name = Annotated[str, Meta(max_length=256)]


class _Message(Struct, tag_field="type", frozen=True):
    pass


class Attached(_Message, tag="attached", frozen=True):
    """Agent, first of all: which session this is and where its output goes on."""

    session_id: _Id
    offset: _Offset
    """Absolute offset of the next output byte; larger than asked for = bytes were dropped."""
    input_offset: _Offset
    """Input bytes the agent has taken since the session began; go on from here."""
    pid: int = 0
    command: str = ""
    login: str = ""
    cols: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        cols, rows = clamp_size(self.cols, self.rows)
        force_setattr(self, "cols", cols)
        force_setattr(self, "rows", rows)


class Ack(_Message, tag="ack", frozen=True):
    """Agent: it has taken this many input bytes since the session began."""

    input: _Offset


class Pong(_Message, tag="pong", frozen=True):
    """Answer to :class:`Ping`, with the same ``t``."""

    t: int | float


class Exit(_Message, tag="exit", frozen=True):
    """Agent, last of all: how the program ended; all of its output came before this.

    Exactly one of ``code`` and ``signal`` (a name such as ``"SIGKILL"``) is set, or neither when
    the end could not be learned.
    """

    code: int | None = None
    signal: Annotated[str, Meta(max_length=16)] | None = None
    offset: _Offset | None = None
    """Total output bytes of the session; absent for ``exec``."""


class Failure(_Message, tag="error", frozen=True):
    """The session is over, or the request was refused, for a reason a person can read."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=2048)] = ""


class Resize(_Message, tag="resize", frozen=True):
    """Gateway: the terminal's new size; out-of-range numbers are clamped, not refused."""

    cols: int
    rows: int

    def __post_init__(self) -> None:
        cols, rows = clamp_size(self.cols, self.rows)
        force_setattr(self, "cols", cols)
        force_setattr(self, "rows", rows)


class Credit(_Message, tag="credit", frozen=True):
    """Gateway: this many more output bytes may come (an increment)."""

    bytes: Annotated[int, Meta(ge=0)]


class Ping(_Message, tag="ping", frozen=True):
    """Asks for a :class:`Pong`; ``t`` is the asker's and means nothing to the other side."""

    t: int | float


class Terminate(_Message, tag="terminate", frozen=True):
    """Gateway: end the session now; the reason is shown to the person."""

    reason: _Name = ""


class Signal(_Message, tag="signal", frozen=True):
    """``exec``: send the program a signal, by name, with or without ``SIG``."""

    name: Annotated[str, Meta(max_length=16)]


Control = Attached | Ack | Pong | Exit | Failure | Resize | Credit | Ping | Terminate | Signal
"""Every control message of a trunk."""

_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder()


def decode_control(payload: bytes | bytearray | memoryview | str) -> Control | None:
    """The message in *payload*, or None for anything oversized, unknown or malformed.

    None means "ignore it": a bad control message never ends a session.
    """
    if len(payload) > MAX_CONTROL:
        return None
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # ValidationError is a DecodeError. A lone surrogate in a str is a UnicodeError.
        return None


def encode_control(message: Control) -> bytes:
    """*message* as compact JSON (UTF-8)."""
    return _encoder.encode(message)


# --- frames -----------------------------------------------------------------------------------


def frame(kind: FrameType, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """One frame.

    Raises:
        ValueError: when *payload* is longer than :data:`MAX_FRAME`.
    """
    if len(payload) > MAX_FRAME:
        raise ValueError(f"a frame holds at most {MAX_FRAME} bytes, not {len(payload)}")
    return (kind << 24 | len(payload)).to_bytes(4, "big") + payload


def frames(kind: FrameType, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """*data* cut into as many frames as it takes (none for no data)."""
    if len(data) <= MAX_FRAME:
        if data:
            yield frame(kind, data)
        return
    with memoryview(data) as view:
        for position in range(0, len(view), MAX_FRAME):
            with view[position : position + MAX_FRAME] as piece:
                yield frame(kind, piece)


class FrameDecoder:
    """Takes a trunk's bytes in any pieces and gives its messages in order.

    Byte frames are passed on as they arrive, in parts if need be (their boundaries mean nothing),
    so only control messages are ever buffered. Unknown frame types and oversized control messages
    are skipped without being kept.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._kind = -1
        self._left = 0  # payload bytes of the current frame still to come
        self._control = bytearray()
        self._in_frame = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[FrameType, bytes | Control]]:
        """The messages *data* completes.

        Returns:
            ``(BYTES | STDERR, bytes)``, ``(CONTROL, message)``, ``(STDIN_EOF, b"")``.

        Raises:
            TerminalFrameError: a byte frame longer than :data:`MAX_FRAME`; terminal bytes can't be
                skipped silently, so the trunk is lost. The messages before it are lost too.
        """
        found: list[tuple[FrameType, bytes | Control]] = []
        size = len(data)
        position = 0
        with memoryview(data) as view:
            while position < size:
                if not self._in_frame:
                    need = 4 - len(self._head)
                    self._head += view[position : position + need]
                    position += min(need, size - position)
                    if len(self._head) == 4:
                        self._begin()
                        if self._left == 0:
                            self._finish(found)
                    continue
                take = min(self._left, size - position)
                self._take(view[position : position + take], found)
                position += take
                self._left -= take
                if self._left == 0:
                    self._finish(found)
        return found

    @property
    def mid_frame(self) -> bool:
        """Whether an end of the stream here would cut a frame in two."""
        return self._in_frame or bool(self._head)

    def _begin(self) -> None:
        self._kind = self._head[0]
        self._left = int.from_bytes(self._head[1:], "big")
        self._head.clear()
        self._in_frame = True
        if self._kind in (FrameType.BYTES, FrameType.STDERR) and self._left > MAX_FRAME:
            raise TerminalFrameError(
                f"The peer sent a terminal frame of {self._left} bytes; at most {MAX_FRAME} are "
                "allowed."
            )
        if self._kind == FrameType.CONTROL and self._left > MAX_CONTROL:
            self._kind = -1  # skipped like an unknown type

    def _take(self, piece: memoryview, found: list[tuple[FrameType, bytes | Control]]) -> None:
        if self._kind in (FrameType.BYTES, FrameType.STDERR):
            found.append((FrameType(self._kind), bytes(piece)))
        elif self._kind == FrameType.CONTROL:
            self._control += piece

    def _finish(self, found: list[tuple[FrameType, bytes | Control]]) -> None:
        self._in_frame = False
        if self._kind == FrameType.CONTROL:
            message = decode_control(self._control)
            self._control.clear()
            if message is not None:
                found.append((FrameType.CONTROL, message))
        elif self._kind == FrameType.STDIN_EOF:
            found.append((FrameType.STDIN_EOF, b""))
