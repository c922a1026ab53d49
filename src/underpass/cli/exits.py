"""Exit statuses: which kind of failure a script sees (docs/reference/exit-codes.md)."""

from __future__ import annotations

from underpass.core.errors import UnderpassError

__all__ = [
    "BUSY", "CONFLICT", "FAILED", "FORBIDDEN", "INTERRUPTED", "NOT_FOUND", "OK", "OWN_FAILURE",
    "REFUSED", "UNREACHABLE", "USAGE", "status_of",
]  # fmt: skip

OK = 0
FAILED = 1
"""An error nobody expected, or (``doctor``) a check that failed."""
USAGE = 2
"""Wrong arguments or settings, or a program that could not start."""
REFUSED = 3
"""Not signed in, or (``agent``) refused for good."""
FORBIDDEN = 4
NOT_FOUND = 5
CONFLICT = 6
"""The thing is in a state that does not allow it, e.g. a machine that is offline."""
BUSY = 7
"""A limit is reached; try again later."""
UNREACHABLE = 8
"""The gateway cannot be reached, is failing, or is not the one it should be."""
INTERRUPTED = 130
"""Ctrl-C."""
OWN_FAILURE = 255
"""``shell``, ``exec``, ``ssh-proxy``: not the remote program but Underpass failed."""

_BY_STATUS = {
    400: USAGE,
    401: REFUSED,
    403: FORBIDDEN,
    404: NOT_FOUND,
    409: CONFLICT,
    410: NOT_FOUND,
    413: USAGE,
    422: USAGE,
    429: BUSY,
}


def status_of(error: UnderpassError) -> int:
    """The exit status for *error*, from the HTTP status of its kind."""
    return _BY_STATUS.get(error.status, UNREACHABLE if error.status >= 500 else FAILED)
