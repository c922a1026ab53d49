"""The numbers of SOCKS5 (RFC 1928 §3, §4, §6): methods, commands, replies; and its errors."""

from __future__ import annotations

import enum
from typing import Final

from underpass.core.errors import Forbidden, InvalidRequest, UnderpassError

__all__ = [
    "LOGIN_VERSION",
    "NO_METHOD",
    "VERSION",
    "Command",
    "Method",
    "Reply",
    "Socks5Error",
    "Socks5Refused",
    "reply_for",
]

VERSION: Final = 5
"""First byte of everything but the login (RFC 1928 §3)."""
LOGIN_VERSION: Final = 1
"""First byte of the login and its answer (RFC 1929 §2)."""
NO_METHOD: Final = 0xFF
"""The server takes none of the methods offered (RFC 1928 §3)."""


class Method(enum.IntEnum):
    """How a client proves who it is (RFC 1928 §3). GSSAPI (1) is not spoken."""

    NO_AUTH = 0
    LOGIN = 2  # user name and password, RFC 1929


class Command(enum.IntEnum):
    """What a client asks for (RFC 1928 §4)."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(enum.IntEnum):
    """How a request ended (RFC 1928 §6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class Socks5Error(InvalidRequest):
    """The peer's SOCKS5 cannot be used; ``code`` says which rule it broke."""

    code = "bad_socks5"


class Socks5Refused(Socks5Error):
    """The proxy spoke properly and said no.

    Args:
        message: what it refused.
        code: as for every error.
        reply: its number when it answered the request, None when it refused the login before.
    """

    code, status, close_code = "proxy_refused", 503, 4502

    def __init__(self, message: str, *, code: str | None = None, reply: int | None = None) -> None:
        super().__init__(message, code=code)
        self.reply = reply


_BY_CODE: Final[dict[str, Reply]] = {
    "connect_refused": Reply.REFUSED,
    "connect_timeout": Reply.TTL_EXPIRED,
    "open_timeout": Reply.TTL_EXPIRED,
    "connect_failed": Reply.HOST_UNREACHABLE,
    "resolve_failed": Reply.HOST_UNREACHABLE,
}


def reply_for(error: UnderpassError) -> Reply:
    """The reply that says most of what *error*, raised while the target was opened, says."""
    if isinstance(error, Forbidden) or error.status == Forbidden.status:
        return Reply.NOT_ALLOWED
    return _BY_CODE.get(error.code, Reply.GENERAL_FAILURE)
