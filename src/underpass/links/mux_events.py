"""What a mux is told at its beginning and tells in its life: limits, events, how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underpass.wire.flow import LINK_WINDOW, MAX_WINDOW
from underpass.wire.frames import AnswerMessage, FailureMessage, NotifyMessage, RequestMessage

if TYPE_CHECKING:
    from underpass.links.mux_stream import MuxStream

__all__ = ["LinkEnd", "MuxEvents", "MuxLimits"]


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a link is over."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class MuxLimits:
    """Caps and deadlines of one link; times in seconds, sizes in bytes."""

    streams: int = 4096
    """Streams open at once, both sides together."""
    opens_pending: int = 512
    """Streams the peer asked for that are neither accepted nor refused yet."""
    stream_window: int = MAX_WINDOW
    link_window: int = LINK_WINDOW
    ping_every: float = 10.0
    dead_after: float = 30.0
    """The link is over when nothing at all came for this long."""
    linger: float = 30.0
    """How long a stream that was closed here may take to end."""


@dataclass(frozen=True, slots=True)
class MuxEvents:
    """Who is told what happens to the link as a whole."""

    offered: Callable[[MuxStream, str, dict[str, Any]], None]
    """The peer asks for a stream to (target, meta): set its ``sink``, ``accept`` or ``refuse``."""
    requested: Callable[[RequestMessage], None]
    answered: Callable[[AnswerMessage], None]
    failed: Callable[[FailureMessage], None]
    notified: Callable[[NotifyMessage], None]
    gone_away: Callable[[LinkEnd], None]
    """The peer takes no new streams."""
    ended: Callable[[LinkEnd], None]
    """The link is over and every stream was reset; close the transport. Called once."""
    disconnected: Callable[[], None]
    """The transport is gone; comes after ``ended``."""
    turn_over: Callable[[], None]
    """Enough was written at once: call :meth:`Mux.next_turn` in the event loop's next turn, or soon
    after where somebody types."""
