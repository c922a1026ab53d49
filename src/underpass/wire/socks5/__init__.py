"""SOCKS5 without I/O (RFC 1928, RFC 1929): both ends of the handshake, addresses and UDP headers.

The server's side takes bytes and gives events; the caller decides and answers::

    handshake = ServerHandshake([Method.LOGIN])
    events = handshake.feed(data)            # raises Socks5Error; send data_to_send(), then close
    Authenticating(username, password)  ─►   events = handshake.accept_login(ok)
    Requested(command, host, port)      ─►   handshake.reply(Reply.SUCCEEDED, host, port)
    handshake.leftover                       # what the client sent behind its request

After *every* call :meth:`~ServerHandshake.data_to_send` gives what the client must get, also when
the call raised. ``underpass.wire.http_connect.ConnectHandshake`` is a :class:`ProxyHandshake` as
well and used in the same way; a first byte of ``VERSION`` tells the two apart.
"""

from underpass.wire.socks5.address import (
    MAX_HOST,
    check_host,
    check_port,
    decode_address,
    encode_address,
)
from underpass.wire.socks5.client import ClientHandshake, Connected
from underpass.wire.socks5.codes import (
    VERSION,
    Command,
    Method,
    Reply,
    Socks5Error,
    Socks5Refused,
    reply_for,
)
from underpass.wire.socks5.proxy_handshake import (
    MAX_LEFTOVER,
    Authenticating,
    Event,
    ProxyHandshake,
    Requested,
    State,
)
from underpass.wire.socks5.server import MAX_PENDING, ServerHandshake
from underpass.wire.socks5.udp import build_udp, parse_udp

__all__ = [
    "MAX_HOST",
    "MAX_LEFTOVER",
    "MAX_PENDING",
    "VERSION",
    "Authenticating",
    "ClientHandshake",
    "Command",
    "Connected",
    "Event",
    "Method",
    "ProxyHandshake",
    "Reply",
    "Requested",
    "ServerHandshake",
    "Socks5Error",
    "Socks5Refused",
    "State",
    "build_udp",
    "check_host",
    "check_port",
    "decode_address",
    "encode_address",
    "parse_udp",
    "reply_for",
]
