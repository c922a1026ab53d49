"""Signed requests: the canonical text as spec 7 writes it, and what does not verify."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.core.errors import InvalidRequest, TooLarge, Unauthenticated
from underpass.wire.signatures import (
    MAX_SIGNED_BODY,
    SignedHeaders,
    canonical_body,
    parse_signed_body,
    parse_signed_headers,
    sign_body,
    sign_headers,
    verify_body,
    verify_headers,
)

SECRET = bytes(range(32))
ID = "0b0d1f5e-7c2a-4a57-9d0e-4b1d6a1f0c33"
PATH = "/api/v1/heartbeat"

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_text, inner, max_size=4),
    max_leaves=12,
)


def fields(**changes: Any) -> dict[str, Any]:
    return {"id": ID, "timestamp": 1700000000.25, "nonce": "n" * 16, "metrics": {}} | changes


def test_the_canonical_text_is_spec_7s() -> None:
    body = sign_body(SECRET, "POST", PATH, fields(metrics={"b": 1, "a": "é"}))
    canonical = (
        '{"id":"' + ID + '","metrics":{"a":"é","b":1},"nonce":"nnnnnnnnnnnnnnnn",'
        '"timestamp":1700000000.25}'
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"POST\n{PATH}\n{ID}\n1700000000.25\nnnnnnnnnnnnnnnnn\n{digest}"
    assert body["signature"] == hmac.new(SECRET, text.encode(), "sha256").hexdigest()


@given(json_values, st.booleans())
def test_what_is_signed_verifies_after_json(metrics: Any, ascii_only: bool) -> None:
    body = sign_body(SECRET, "POST", PATH, fields(metrics=metrics))
    sent = json.dumps(body, ensure_ascii=ascii_only).encode()
    verify_body(SECRET, "POST", PATH, parse_signed_body(sent))
    verify_body(SECRET, "post", PATH, parse_signed_body(body))


def test_a_script_that_escapes_non_ascii_verifies_too() -> None:
    plain = fields(metrics={"os": "Gerät"})
    digest = hashlib.sha256(canonical_body(plain, ascii_only=True)).hexdigest()
    assert b"\\u00e4" in canonical_body(plain, ascii_only=True)
    text = f"POST\n{PATH}\n{ID}\n1700000000.25\n{plain['nonce']}\n{digest}"
    made = hmac.new(SECRET, text.encode(), "sha256").hexdigest()
    verify_body(SECRET, "POST", PATH, parse_signed_body(plain | {"signature": made}))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "1" + ID[1:]},
        {"timestamp": 1700000000.26},
        {"nonce": "m" * 16},
        {"metrics": {"x": 1}},
        {"extra": None},
        {"signature": "0" * 64},
    ],
)
def test_nothing_signed_can_be_changed(changes: dict[str, Any]) -> None:
    body = sign_body(SECRET, "POST", PATH, fields()) | changes
    with pytest.raises(Unauthenticated) as refused:
        verify_body(SECRET, "POST", PATH, parse_signed_body(body))
    assert refused.value.code == "bad_signature"


def test_method_path_and_secret_are_signed() -> None:
    body = parse_signed_body(sign_body(SECRET, "POST", PATH, fields()))
    for secret, method, path in [
        (b"x" * 32, "POST", PATH),
        (SECRET, "PUT", PATH),
        (SECRET, "POST", PATH + "?x=1"),
    ]:
        with pytest.raises(Unauthenticated):
            verify_body(secret, method, path, body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_body"),
        (b"[]", "bad_body"),
        (b"\xff", "bad_body"),
        (b"[" * 5000, "bad_body"),
        (b"{}", "bad_field"),
        ({**fields(), "signature": "0" * 63}, "bad_field"),
        ({**fields(), "signature": "A" * 64}, "bad_field"),
        ({**fields(), "signature": 5}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "id": "x"}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "id": "\ud800" * 36}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "timestamp": True}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "timestamp": "1"}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "timestamp": -1}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "timestamp": 1e12}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "nonce": "a b c d e"}, "bad_field"),
        ({**fields(), "signature": "0" * 64, "nonce": "short"}, "bad_field"),
    ],
)
def test_odd_bodies_are_refused(body: Any, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_signed_body(body)
    assert refused.value.code == code


def test_a_huge_body_is_refused() -> None:
    with pytest.raises(TooLarge):
        parse_signed_body(b" " * (MAX_SIGNED_BODY + 1))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", "huge"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        canonical_body({"x": 10**5000 if value == "huge" else value})


def headers() -> dict[str, str]:
    made = sign_headers(
        SECRET, "GET", "/a?b=1", agent_id=ID, timestamp=1700000000.5, nonce="n" * 16
    )
    return {key.lower(): value for key, value in made.items()}


def test_headers_sign_a_request_without_body() -> None:
    parsed = parse_signed_headers(headers())
    assert parsed == SignedHeaders(ID, 1700000000.5, "1700000000.500", "n" * 16,
                                   headers()["x-underpass-signature"])  # fmt: skip
    verify_headers(SECRET, "GET", "/a?b=1", parsed)
    empty = hashlib.sha256(b"").hexdigest()
    text = f"GET\n/a?b=1\n{ID}\n1700000000.500\n{'n' * 16}\n{empty}"
    assert parsed.signature == hmac.new(SECRET, text.encode(), "sha256").hexdigest()
    for method, path in [("POST", "/a?b=1"), ("GET", "/a?b=2")]:
        with pytest.raises(Unauthenticated):
            verify_headers(SECRET, method, path, parsed)


@pytest.mark.parametrize("name", ["id", "timestamp", "nonce", "signature"])
@pytest.mark.parametrize("value", [None, "", "x", "1e9", "-1", "é" * 64, "0" * 1000])
def test_odd_headers_are_refused(name: str, value: str | None) -> None:
    given = headers()
    if value is None:
        del given[f"x-underpass-{name}"]
    else:
        given[f"x-underpass-{name}"] = value
    with pytest.raises(Unauthenticated) as refused:
        parse_signed_headers(given)
    assert refused.value.code == "unsigned"
