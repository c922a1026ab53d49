"""The root of every error Underpass raises on purpose, and the few kinds all layers share.

An error says *what* went wrong, *why*, and *what next*; ``code`` is the stable name scripts may
match on, ``status`` the HTTP status an API answer gets, ``close_code`` the WebSocket close code
(spec 7, "Terminal socket").
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "Forbidden",
    "Gone",
    "Internal",
    "InvalidRequest",
    "NotFound",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnderpassError",
]


class UnderpassError(Exception):
    """A refusal or failure with a stable code and one clear text.

    Args:
        message: what went wrong and why, in one sentence, without secrets.
        code: stable lower_snake name; the class's default when omitted.
        hint: what the person can do next; shown after the message.
        retry_after: seconds after which trying again makes sense (sent as ``Retry-After``).
        details: extra fields for the JSON answer (must be JSON-able, no secrets).
    """

    code: str = "error"
    status: int = 500
    close_code: int = 4500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.hint = hint
        self.retry_after = retry_after
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidRequest(UnderpassError):
    """The input is malformed or out of bounds."""

    code, status, close_code = "invalid_request", 400, 4400


class Unauthenticated(UnderpassError):
    """Nobody, or nobody we know, is asking."""

    code, status, close_code = "unauthenticated", 401, 4401


class Forbidden(UnderpassError):
    """We know who asks; they may not."""

    code, status, close_code = "forbidden", 403, 4403


class NotFound(UnderpassError):
    """It does not exist, or the asker may not know that it does (same answer for both)."""

    code, status, close_code = "not_found", 404, 4404


class Conflict(UnderpassError):
    """The thing is in a state that does not allow this (offline machine, duplicate name)."""

    code, status, close_code = "conflict", 409, 4409


class Gone(UnderpassError):
    """It existed and is over for good."""

    code, status, close_code = "gone", 410, 4404


class TooLarge(UnderpassError):
    """The body or message is larger than the documented cap."""

    code, status, close_code = "too_large", 413, 4400


class TooManyRequests(UnderpassError):
    """A cap or rate limit is reached; ``retry_after`` says when to try again."""

    code, status, close_code = "too_many_requests", 429, 4429


class Unavailable(UnderpassError):
    """Something we depend on (an agent, a database, a peer) cannot be reached right now."""

    code, status, close_code = "unavailable", 503, 4502


class Internal(UnderpassError):
    """Our fault; the log has the details, the answer does not."""

    code, status, close_code = "internal", 500, 4500
