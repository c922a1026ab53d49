"""Fields of signed JSON bodies: read with type and bounds; each refusal names its field."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from underpass.core.errors import InvalidRequest

__all__ = [
    "NONCE",
    "bad_field",
    "base64_field",
    "json_object",
    "nonce_field",
    "text_field",
    "timestamp_field",
    "timestamp_text",
]

NONCE = re.compile(r"[A-Za-z0-9_.~+/=-]{8,64}")


def timestamp_text(timestamp: float) -> str:
    """Unix seconds as JSON writes them: ``1700000000`` or ``1700000000.25``, never ``1.7e9``."""
    return str(timestamp)


def bad_field(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"The field {name} {why}.", code="bad_field", details={"field": name})


def json_object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", code="bad_body") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", code="bad_body")
    return cast("dict[str, Any]", value)


def text_field(fields: Mapping[str, Any], name: str, limit: int) -> str:
    value = fields.get(name)
    if value is None:
        raise bad_field(name, "is missing")
    if not isinstance(value, str):
        raise bad_field(name, "must be a text")
    if not 0 < len(value) <= limit:
        raise bad_field(name, f"must have 1 to {limit} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_field(name, "must be valid Unicode") from None
    return value


def nonce_field(fields: Mapping[str, Any]) -> str:
    nonce = text_field(fields, "nonce", 64)
    if not NONCE.fullmatch(nonce):
        raise bad_field("nonce", "must be 8 to 64 letters, digits or _.~+/=-")
    return nonce


def timestamp_field(fields: Mapping[str, Any]) -> int | float:
    value = fields.get("timestamp")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_field("timestamp", "must be a number of Unix seconds")
    if not 0 <= value < 1e12:
        raise bad_field("timestamp", "is not a time")
    return value


def base64_field(fields: Mapping[str, Any], name: str, limit: int) -> bytes:
    try:
        return base64.b64decode(text_field(fields, name, limit), validate=True)
    except (binascii.Error, ValueError):
        raise bad_field(name, "must be base64") from None
