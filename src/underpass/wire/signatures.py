"""Signed agent requests: the canonical text and its HMAC, for JSON bodies and for bare headers.

Spec 7, "Signatures"; docs/reference/signatures.md has a worked example that a test executes. All
functions are pure: bytes and keys in, bytes or a refusal out. Applications are signed with RSA
instead; see ``wire.applications``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underpass.core.errors import InvalidRequest, TooLarge, Unauthenticated
from underpass.core.ids import is_id
from underpass.wire.signed_fields import (
    NONCE,
    bad_field,
    json_object,
    nonce_field,
    text_field,
    timestamp_field,
    timestamp_text,
)

__all__ = [
    "MAX_SIGNED_BODY",
    "SignedBody",
    "SignedHeaders",
    "body_digest",
    "canonical_body",
    "parse_signed_body",
    "parse_signed_headers",
    "request_text",
    "sign_body",
    "sign_headers",
    "verify_body",
    "verify_headers",
]

MAX_SIGNED_BODY = 256 * 1024
"""Bytes of a heartbeat at most: metrics of a machine with many disks and network cards."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_HEX_MAC = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignedBody:
    """A signed JSON body of the right shape; ``fields`` is everything but the signature."""

    id: str
    timestamp: int | float
    nonce: str
    signature: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignedHeaders:
    """The ``X-Underpass-*`` headers of a signed request without body."""

    id: str
    timestamp: float
    timestamp_text: str
    nonce: str
    signature: str


def parse_signed_body(body: bytes | Mapping[str, Any]) -> SignedBody:
    """Read a signed body, as JSON bytes or (over a link) as an object already decoded.

    ``nonce`` may be missing, as in spec 1's heartbeat; it then counts as the empty text.

    Raises:
        TooLarge, InvalidRequest: as :func:`parse_application`.
    """
    if isinstance(body, bytes):
        if len(body) > MAX_SIGNED_BODY:
            raise TooLarge(
                f"The body is larger than {MAX_SIGNED_BODY} bytes.", code="body_too_large"
            )
        fields = json_object(body)
    else:
        fields = dict(body)
    agent_id = text_field(fields, "id", 36)
    if not is_id(agent_id):
        raise bad_field("id", "must be a UUID in lower case")
    signature = text_field(fields, "signature", 64)
    if not _HEX_MAC.fullmatch(signature):
        raise bad_field("signature", "must be 64 hex digits in lower case")
    return SignedBody(
        id=agent_id,
        timestamp=timestamp_field(fields),
        nonce="" if "nonce" not in fields else nonce_field(fields),
        signature=signature,
        fields={key: value for key, value in fields.items() if key != "signature"},
    )


def parse_signed_headers(headers: Mapping[str, str]) -> SignedHeaders:
    """Read the four headers; *headers* must look names up without regard to case, or lower-cased.

    Raises:
        Unauthenticated: one is missing or malformed (``unsigned``).
    """
    agent_id, stamp, nonce, signature = (
        headers.get(f"x-underpass-{name}", "") for name in ("id", "timestamp", "nonce", "signature")
    )
    if not (
        is_id(agent_id)
        and _TIMESTAMP.fullmatch(stamp)
        and NONCE.fullmatch(nonce)
        and _HEX_MAC.fullmatch(signature)
    ):
        raise Unauthenticated(
            "The request is not signed by an agent.",
            code="unsigned",
            hint="Send X-Underpass-Id, -Timestamp, -Nonce and -Signature.",
        )
    return SignedHeaders(agent_id, float(stamp), stamp, nonce, signature)


def canonical_body(fields: Mapping[str, Any], *, ascii_only: bool = False) -> bytes:
    """JSON of *fields* without ``signature``: keys sorted, no spaces, UTF-8.

    Raises:
        InvalidRequest: a value that JSON cannot say (``bad_body``).
    """
    unsigned = {key: value for key, value in fields.items() if key != "signature"}
    try:
        return json.dumps(
            unsigned,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=ascii_only,
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("The body cannot be written as JSON.", code="bad_body") from None


def body_digest(fields: Mapping[str, Any] | None) -> str:
    """Hex SHA-256 of the canonical body; of nothing at all when there is no body."""
    return hashlib.sha256(b"" if fields is None else canonical_body(fields)).hexdigest()


def request_text(
    method: str, path_query: str, *, agent_id: str, timestamp: str, nonce: str, digest: str
) -> bytes:
    """The canonical text of a signed request: six lines joined by ``\\n``, UTF-8.

    Args:
        path_query: path and, if there is one, ``?`` and the query exactly as sent.
        timestamp: as sent (header), or :func:`timestamp_text` of the number in the body.
        digest: :func:`body_digest`.
    """
    return "\n".join((method.upper(), path_query, agent_id, timestamp, nonce, digest)).encode()


def sign_body(
    secret: bytes, method: str, path_query: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """*fields* (with ``id``, ``timestamp``, ``nonce``) and their ``signature``."""
    text = request_text(
        method,
        path_query,
        agent_id=str(fields["id"]),
        timestamp=timestamp_text(fields["timestamp"]),
        nonce=str(fields.get("nonce", "")),
        digest=body_digest(fields),
    )
    return {**fields, "signature": _mac(secret, text)}


def verify_body(secret: bytes, method: str, path_query: str, body: SignedBody) -> None:
    """Check a body's HMAC in constant time.

    Raises:
        Unauthenticated: it was made with another secret or over something else.
    """
    matches = False
    # Non-ASCII text may be written plainly or as \\uXXXX escapes; both say the same content.
    for ascii_only in (False, True):
        digest = hashlib.sha256(canonical_body(body.fields, ascii_only=ascii_only)).hexdigest()
        text = request_text(
            method,
            path_query,
            agent_id=body.id,
            timestamp=timestamp_text(body.timestamp),
            nonce=body.nonce,
            digest=digest,
        )
        matches |= hmac.compare_digest(_mac(secret, text), body.signature)
    if not matches:
        raise _bad_mac()


def sign_headers(
    secret: bytes, method: str, path_query: str, *, agent_id: str, timestamp: float, nonce: str
) -> dict[str, str]:
    """The headers of a signed request without body."""
    stamp = f"{timestamp:.3f}"
    text = request_text(
        method,
        path_query,
        agent_id=agent_id,
        timestamp=stamp,
        nonce=nonce,
        digest=body_digest(None),
    )
    return {
        "X-Underpass-Id": agent_id,
        "X-Underpass-Timestamp": stamp,
        "X-Underpass-Nonce": nonce,
        "X-Underpass-Signature": _mac(secret, text),
    }


def verify_headers(secret: bytes, method: str, path_query: str, headers: SignedHeaders) -> None:
    """Check the HMAC of a request without body in constant time.

    Raises:
        Unauthenticated: it was made with another secret or over something else.
    """
    text = request_text(
        method,
        path_query,
        agent_id=headers.id,
        timestamp=headers.timestamp_text,
        nonce=headers.nonce,
        digest=body_digest(None),
    )
    if not hmac.compare_digest(_mac(secret, text), headers.signature):
        raise _bad_mac()


def _mac(secret: bytes, text: bytes) -> str:
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def _bad_mac() -> Unauthenticated:
    return Unauthenticated("The signature does not match the request.", code="bad_signature")
