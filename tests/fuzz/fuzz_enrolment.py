"""Fuzz target: bodies of applications and heartbeats, and the headers of signed requests."""

from __future__ import annotations

import base64
import contextlib
import json

from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.control.heartbeats import HEARTBEAT_PATH, check_heartbeat
from underpass.core.errors import UnderpassError
from underpass.wire.applications import parse_application, sign_application, verify_application
from underpass.wire.signatures import (
    canonical_body,
    parse_signed_body,
    parse_signed_headers,
    sign_body,
    sign_headers,
    verify_headers,
)

_ID = "0b0d1f5e-7c2a-4a57-9d0e-4b1d6a1f0c33"
_SECRET = bytes(range(32))
_NOW = 1_700_000_000.0
_NAMES = ("id", "timestamp", "nonce", "signature")


def _seeds() -> list[bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    register = sign_application(
        key, client_id=_ID, hostname="web-1", nonce="n" * 16, timestamp=int(_NOW)
    )
    heartbeat = sign_body(
        _SECRET,
        "POST",
        HEARTBEAT_PATH,
        {
            "id": _ID,
            "timestamp": _NOW,
            "nonce": "n" * 16,
            "metrics": {"static_info": {"os": "Gerät"}, "dynamic_info": {"load": [0.1, 2, 1e-7]}},
            "tty_status": {"active_sessions": 0, "sessions": []},
        },
    )
    headers = sign_headers(_SECRET, "GET", "/a", agent_id=_ID, timestamp=_NOW, nonce="n" * 16)
    return [
        json.dumps(register).encode(),
        json.dumps(register | {"join_token": "upj_" + "A" * 43}).encode(),
        json.dumps(heartbeat, ensure_ascii=False).encode(),
        json.dumps(heartbeat).encode(),
        "\n".join(headers.values()).encode(),
        b'{"id":"' + base64.b64encode(b"\0" * 27) + b'"}',
        b"[" * 200,
    ]


SEEDS: list[bytes] = _seeds()


def one_input(data: bytes) -> None:
    """Parse and check *data* as each of the three; only our own errors may come out."""
    with contextlib.suppress(UnderpassError):
        verify_application(parse_application(data))
    with contextlib.suppress(UnderpassError):
        body = parse_signed_body(data)
        canonical_body(body.fields)
        check_heartbeat(body, secret=_SECRET, last=_NOW - 1, now=_NOW)
    with contextlib.suppress(UnderpassError):
        lines = data.decode("latin-1").split("\n")
        given = {f"x-underpass-{name}": text for name, text in zip(_NAMES, lines, strict=False)}
        verify_headers(_SECRET, "GET", "/a", parse_signed_headers(given))
