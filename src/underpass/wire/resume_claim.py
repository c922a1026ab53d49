"""What a client says of a resumable stream when it opens a path for it: ``meta["resume"]``."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from underpass.core.errors import InvalidRequest

__all__ = ["ResumeClaim"]

_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAX_OFFSET: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ResumeClaim:
    """One end's claim to a stream.

    Attributes:
        id: the stream's, 128 random bits in hex.
        secret: 16 to 64 bytes only the client and the agent know.
        received: how many of the agent's bytes the client has; the agent goes on there.
        new: the client has not heard of the agent yet: make the stream if it is not there.
    """

    id: str
    secret: bytes = field(repr=False)
    received: int = 0
    new: bool = False

    def to_meta(self) -> dict[str, Any]:
        """``{"resume": {...}}``, as it travels."""
        secret = base64.b64encode(self.secret).decode()
        return {
            "resume": {
                "id": self.id, "secret": secret, "received": self.received, "new": self.new,
            }
        }  # fmt: skip

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> ResumeClaim | None:
        """The claim in *meta*; None when there is none.

        Raises:
            InvalidRequest: code ``invalid_resume``.
        """
        given = meta.get("resume")
        if given is None:
            return None
        if isinstance(given, dict):
            fields = cast("dict[str, Any]", given)
            name, received, new = fields.get("id"), fields.get("received"), fields.get("new")
            secret = _secret(fields.get("secret"))
            if (
                isinstance(name, str) and _ID.fullmatch(name) and secret is not None
                and type(received) is int and 0 <= received <= _MAX_OFFSET
                and type(new) is bool and not (new and received)
            ):  # fmt: skip
                return cls(name, secret, received, new)
        raise InvalidRequest("meta.resume names no stream.", code="invalid_resume")


def _secret(given: object) -> bytes | None:
    if not isinstance(given, str) or len(given) > 100:
        return None
    try:
        secret = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        return None
    return secret if 16 <= len(secret) <= 64 else None
