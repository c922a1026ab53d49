"""The options every command takes, and the gateway they lead to."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from underpass.cli.credentials import Credentials, Login
from underpass.core.errors import InvalidRequest, Unauthenticated

__all__ = ["DEFAULT_SERVER", "Connection", "Options", "Way", "options_of", "server_url"]

DEFAULT_SERVER = "http://localhost:3000"
Way = Literal["auto", "tcp", "websocket", "quic"]
"""How a link is made (``links.dial.DialTransport``, which takes long to import)."""


def server_url(text: str) -> str:
    """A gateway's address as it is kept and compared: scheme, host, port, no slash at the end.

    Raises:
        InvalidRequest: it is not an http(s) address.
    """
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        _ = parts.port  # raises when it is no number
    except ValueError:
        valid, parts = False, urlsplit("")
    if not valid or parts.query or parts.fragment:
        raise InvalidRequest(
            f"{text!r} is not a gateway's address.",
            code="bad_server",
            hint="Give it as http://HOST:PORT or https://HOST.",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class Connection:
    """Which gateway, as whom, and what to believe of it."""

    server: str
    token: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    gateway_key: bytes | None = None
    transport: Way = "auto"

    @property
    def required_token(self) -> str:
        """The token.

        Raises:
            Unauthenticated: there is none; the message says how to get one.
        """
        if not self.token:
            raise Unauthenticated(
                f"You are not signed in to {self.server}.",
                code="not_signed_in",
                hint=f"Run: underpass login {self.server}",
            )
        return self.token


@dataclass(frozen=True, slots=True)
class Options:
    """The options before the command, before anything is looked up."""

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    json: bool = False
    transport: Way | None = None

    def connection(self, server: str | None = None) -> Connection:
        """Put flags, environment and what ``login`` stored together, in this order.

        A stored token goes only to the gateway it was made for.

        Raises:
            InvalidRequest: the address or the stored file is unusable.
        """
        credentials = Credentials.load()
        named = server or self.server or os.environ.get("UNDERPASS_SERVER")
        url = server_url(named or credentials.current or DEFAULT_SERVER)
        login = credentials.logins.get(url)
        found = Connection(
            url,
            self.token or os.environ.get("UNDERPASS_TOKEN") or (login.token if login else None),
            self.fingerprint
            or os.environ.get("UNDERPASS_FINGERPRINT")
            or (login.fingerprint if login else None),
            transport=self.transport or _way(os.environ.get("UNDERPASS_TRANSPORT")),
        )
        return replace(found, gateway_key=_key(login)) if login else found


def _way(text: str | None) -> Way:
    for way in get_args(Way):
        if text == way:
            return way
    if text:
        raise InvalidRequest(
            f"UNDERPASS_TRANSPORT is {text!r}.",
            code="bad_transport",
            hint=f"Give one of: {', '.join(get_args(Way))}.",
        )
    return "auto"


def _key(login: Login) -> bytes | None:
    try:
        return base64.b64decode(login.gateway_key, validate=True) if login.gateway_key else None
    except binascii.Error:
        return None


def options_of(context: Any) -> Options:
    """The options a command was called with (*context* is typer's)."""
    found = context.find_root().obj
    return found if isinstance(found, Options) else Options()
