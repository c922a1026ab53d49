"""Applications: the text applicants sign, the keys we take, the secret only they can read."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from underpass.core.errors import InvalidRequest, TooLarge, Unauthenticated
from underpass.wire import applications
from underpass.wire.applications import (
    MAX_BODY,
    decrypt_secret,
    encrypt_secret,
    key_fingerprint,
    load_public_key,
    parse_application,
    register_text,
    sign_application,
    verify_application,
)

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ID = "0b0d1f5e-7c2a-4a57-9d0e-4b1d6a1f0c33"


def body(**changes: Any) -> bytes:
    made = sign_application(
        KEY, client_id=ID, hostname="web-1", nonce="n" * 16, timestamp=1700000000
    )
    return json.dumps(made | changes).encode()


def pem(key: Any) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_the_text_is_spec_7s() -> None:
    digest = hashlib.sha256(b"PEM\n").hexdigest()
    assert register_text("a", "é", "n", 1700000000, "PEM\n") == (
        f"a\né\nn\n1700000000\n{digest}".encode()
    )
    assert register_text("a", "h", "n", 1700000000.5, "P").split(b"\n")[3] == b"1700000000.5"


def test_a_signed_application_verifies_with_the_key_it_brings() -> None:
    application = parse_application(body(join_token="upj_x"))
    assert application.join_token == "upj_x"
    key = verify_application(application)
    der = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key_fingerprint(key) == "sha256:" + hashlib.sha256(der).hexdigest()
    KEY.public_key().verify(
        application.signature,
        register_text(ID, "web-1", "n" * 16, 1700000000, pem(KEY)),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )


def test_a_changed_one_does_not() -> None:
    with pytest.raises(Unauthenticated) as refused:
        verify_application(parse_application(body(hostname="web-2")))
    assert refused.value.code == "bad_signature"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"client_id": ID.upper()}, "client_id"),
        ({"client_id": None}, "client_id"),
        ({"client_id": 5}, "client_id"),
        ({"hostname": ""}, "hostname"),
        ({"hostname": "x" * 254}, "hostname"),
        ({"hostname": "a\nb"}, "hostname"),
        ({"hostname": " a"}, "hostname"),
        ({"nonce": "x\n" + "y" * 10}, "nonce"),
        ({"nonce": "x" * 65}, "nonce"),
        ({"timestamp": "1700000000"}, "timestamp"),
        ({"timestamp": None}, "timestamp"),
        ({"public_key": "x" * 4097}, "public_key"),
        ({"signature": "not base64!"}, "signature"),
        ({"signature": "A" * 2049}, "signature"),
        ({"signature": "é"}, "signature"),
        ({"join_token": 5}, "join_token"),
        ({"join_token": "x" * 129}, "join_token"),
    ],
)
def test_every_field_has_bounds_and_the_refusal_names_it(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_application(body(**changes))
    assert refused.value.code == "bad_field"
    assert refused.value.details == {"field": field}


@pytest.mark.parametrize("text", [b"", b"null", b"[1]", b"{", b"\xff\xfe", b'"\\ud800"'])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_application(text)
    assert refused.value.code == "bad_body"


def test_the_body_has_a_cap() -> None:
    padded = body() + b" " * MAX_BODY
    parse_application(padded[:MAX_BODY])
    with pytest.raises(TooLarge) as refused:
        parse_application(padded[: MAX_BODY + 1])
    assert refused.value.code == "body_too_large"


def test_keys_we_do_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for text, code in [
        ("", "bad_key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "bad_key"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "not_rsa"),
        (pem(weak), "weak_key"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            load_public_key(text)
        assert refused.value.code == code
    monkeypatch.setattr(applications, "MAX_KEY_BITS", 1536 + 511)
    with pytest.raises(InvalidRequest) as refused:
        load_public_key(pem(KEY))
    assert refused.value.code == "bad_key"


def test_the_secret_goes_to_the_applicant_only() -> None:
    secret = bytes(range(32))
    encrypted = encrypt_secret(KEY.public_key(), secret)
    assert encrypt_secret(KEY.public_key(), secret) != encrypted
    assert decrypt_secret(KEY, encrypted) == secret
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    short = base64.b64encode(KEY.public_key().encrypt(b"AAAA", oaep)).decode()
    for key, text in [(other, encrypted), (KEY, "!"), (KEY, ""), (KEY, short)]:
        with pytest.raises(InvalidRequest):
            decrypt_secret(key, text)
