"""What a browser may say on ``/api/v1/tty/ws``, parsed. Pure; bad text is an answer, not an end."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from underpass.core.errors import InvalidRequest

__all__ = [
    "MAX_INPUT",
    "MAX_TEXT",
    "Auth",
    "BrowserMessage",
    "Credit",
    "Ping",
    "Pong",
    "Resize",
    "Resume",
    "parse",
]

MAX_TEXT = 4096
"""Longest text message, in bytes."""
MAX_INPUT = 65536
"""Longest binary message (input), in bytes."""


class Auth(Struct, tag_field="type", tag="auth", frozen=True):
    """First of all: the ticket, or for observers an access token."""

    token: Annotated[str, Meta(max_length=2048)] | None = None


class Resume(Struct, tag_field="type", tag="resume", frozen=True):
    """After ``auth``: go on with this session; the client has its first *offset* bytes."""

    session_id: Annotated[str, Meta(max_length=64)]
    offset: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Resize(Struct, tag_field="type", tag="resize", frozen=True):
    cols: int
    rows: int


class Credit(Struct, tag_field="type", tag="credit", frozen=True):
    """The client takes this many bytes more."""

    bytes: Annotated[int, Meta(ge=0, le=2**53)]


class Ping(Struct, tag_field="type", tag="ping", frozen=True):
    t: int | float | str | None = None


class Pong(Struct, tag_field="type", tag="pong", frozen=True):
    t: Any = None


BrowserMessage = Auth | Resume | Resize | Credit | Ping | Pong

_decoder: msgspec.json.Decoder[BrowserMessage] = msgspec.json.Decoder(BrowserMessage)


def parse(text: str) -> BrowserMessage:
    """The message in *text*.

    Raises:
        InvalidRequest: ``message_too_large``, ``bad_message``; the session goes on.
    """
    if len(text) > MAX_TEXT:
        raise InvalidRequest(
            f"A control message may be {MAX_TEXT} bytes long at most; this one was ignored.",
            code="message_too_large",
        )
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequest(
            "This control message makes no sense here; it was ignored.", code="bad_message"
        ) from None
