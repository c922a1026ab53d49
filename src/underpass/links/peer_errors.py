"""Errors that cross a link: ours on the way out, the peer's on the way in."""

from __future__ import annotations

from typing import Final

from underpass.core.errors import (
    Conflict,
    Forbidden,
    Gone,
    Internal,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnderpassError,
)
from underpass.wire.frames import ErrorFrame

__all__ = ["OpenRefused", "error_frame", "peer_error"]

_KINDS: Final[dict[int, type[UnderpassError]]] = {
    kind.status: kind
    for kind in (
        Conflict,
        Forbidden,
        Gone,
        Internal,
        InvalidRequest,
        NotFound,
        TooLarge,
        TooManyRequests,
        Unauthenticated,
        Unavailable,
    )
}


class OpenRefused(UnderpassError):
    """The peer turned an opening down; ``code``, ``message`` and ``status`` are the peer's."""

    code, status, close_code = "open_refused", 502, 4502


def error_frame(error: UnderpassError) -> ErrorFrame:
    """*error* as it travels; long texts are cut. ``details`` stay here."""
    return ErrorFrame(
        error.code[:64],
        error.message[:1024],
        error.status,
        error.hint[:512] if error.hint else None,
        error.retry_after,
    )


def peer_error(frame: ErrorFrame, kind: type[UnderpassError] | None = None) -> UnderpassError:
    """The exception *frame* stands for: *kind*, or the one its status names."""
    known = _KINDS.get(frame.status)
    error = (kind or known or UnderpassError)(
        frame.message, code=frame.code, hint=frame.hint, retry_after=frame.retry_after
    )
    error.status = frame.status if 400 <= frame.status <= 599 else 502
    if known is not None:
        error.close_code = known.close_code
    return error
