"""What an opening with target ``pty`` or ``exec`` asks for: the fields of its ``meta``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from underpass.core.errors import InvalidRequest
from underpass.wire.terminal import MAX_CONTROL, clamp_size

__all__ = [
    "MAX_GRACE",
    "ExecRequest",
    "OpenedBy",
    "PtyRequest",
    "parse_exec_request",
    "parse_pty_request",
]

MAX_GRACE = 7 * 24 * 3600.0
"""Longest a detached session may be asked to live, in seconds."""
_MAX_COMMAND = 32768

_Id = Annotated[str, Meta(min_length=1, max_length=64)]
_Name = Annotated[str, Meta(max_length=256)]
_Offset = Annotated[int, Meta(ge=0, le=2**53)]


class OpenedBy(Struct, frozen=True):
    """The person a session is for; shown on the machine and in its logs, decides nothing there."""

    id: Annotated[str, Meta(max_length=64)] = ""
    username: _Name = ""


_Env = Annotated[
    dict[
        Annotated[str, Meta(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")],
        Annotated[str, Meta(max_length=1024)],
    ],
    Meta(max_length=32),
]
_Command = Annotated[str, Meta(max_length=_MAX_COMMAND)]


class PtyRequest(Struct, frozen=True):
    """The ``meta`` of an opening with target ``pty``."""

    session_id: _Id
    command: Annotated[str, Meta(max_length=MAX_CONTROL)] | None = None
    """What to run; None or empty = the login's shell."""
    cols: int = 80
    rows: int = 24
    login: Annotated[str, Meta(max_length=64)] | None = None
    """OS login to run as; None = the agent's own."""
    user: OpenedBy = OpenedBy()
    offset: _Offset | None = None
    """None = start a new session; N = go on with the running one at output byte N."""
    grace: Annotated[float, Meta(ge=0, le=MAX_GRACE)] = 600.0
    """Seconds a detached session lives on."""
    env: _Env = {}

    def __post_init__(self) -> None:
        cols, rows = clamp_size(self.cols, self.rows)
        force_setattr(self, "cols", cols)
        force_setattr(self, "rows", rows)


class ExecRequest(Struct, frozen=True):
    """The ``meta`` of an opening with target ``exec``."""

    session_id: _Id
    command: _Command | Annotated[list[_Command], Meta(min_length=1, max_length=1024)]
    """A string is given to the login's shell with ``-c``; a list is run as it is."""
    login: Annotated[str, Meta(max_length=64)] | None = None
    user: OpenedBy = OpenedBy()
    env: _Env = {}


def parse_pty_request(meta: Mapping[str, Any]) -> PtyRequest:
    """The request in *meta*; sizes are clamped, unknown fields ignored.

    Raises:
        InvalidRequest: a field is missing, of the wrong type, too long or holds a NUL.
    """
    try:
        request = msgspec.convert(dict(meta), PtyRequest)
    except msgspec.ValidationError as error:
        raise _bad("terminal", str(error)) from None
    _refuse_nul("terminal", [request.command or "", request.login or "", *request.env.values()])
    return request


def parse_exec_request(meta: Mapping[str, Any]) -> ExecRequest:
    """The request in *meta*; raises as :func:`parse_pty_request` does."""
    try:
        request = msgspec.convert(dict(meta), ExecRequest)
    except msgspec.ValidationError as error:
        raise _bad("command", str(error)) from None
    words = [request.command] if isinstance(request.command, str) else request.command
    if not words[0]:
        raise _bad("command", "the command is empty")
    if sum(map(len, words)) > _MAX_COMMAND * 4:
        raise _bad("command", "the command is too long")
    _refuse_nul("command", [*words, request.login or "", *request.env.values()])
    return request


def _refuse_nul(what: str, texts: list[str]) -> None:
    # The operating system ends a string there; what runs must be what was recorded.
    if any("\0" in text for text in texts):
        raise _bad(what, "a NUL character is in it")


def _bad(what: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"This is not a valid {what} request: {why}.", code=f"bad_{what}_request")
