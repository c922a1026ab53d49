"""An agent's application to be let in: its body, the RSA signature over it, the secret it gets.

Spec 1 (Enrolment) and spec 7 (Signatures); docs/reference/signatures.md has a worked example that
a test executes. Pure: nothing here knows the time or what was seen before;
``control.enrolments`` adds that.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from underpass.core.errors import InvalidRequest, TooLarge, Unauthenticated
from underpass.core.ids import is_id
from underpass.wire.signed_fields import (
    bad_field,
    base64_field,
    json_object,
    nonce_field,
    text_field,
    timestamp_field,
    timestamp_text,
)

__all__ = [
    "MAX_BODY",
    "MIN_KEY_BITS",
    "Application",
    "decrypt_secret",
    "encrypt_secret",
    "key_fingerprint",
    "load_public_key",
    "parse_application",
    "register_text",
    "sign_application",
    "verify_application",
]

MAX_BODY = 16 * 1024
"""Bytes of a register body at most (spec 1)."""
MIN_KEY_BITS = 2048
MAX_KEY_BITS = 8192
MAX_PEM = 4096
MAX_HOSTNAME = 253

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@dataclass(frozen=True, slots=True)
class Application:
    """A register body of the right shape; nothing about it is verified yet.

    ``join_token`` is not part of the signed text: it is a bearer secret of its own.
    """

    client_id: str
    hostname: str
    nonce: str
    timestamp: int | float
    public_key: str
    signature: bytes
    join_token: str | None = None


def parse_application(body: bytes) -> Application:
    """Read a register body.

    Raises:
        TooLarge: more than 16 KiB.
        InvalidRequest: not a JSON object (``bad_body``), or a field is missing, of the wrong type
            or out of bounds (``bad_field``, ``details["field"]`` names it).
    """
    if len(body) > MAX_BODY:
        raise TooLarge(f"The application is larger than {MAX_BODY} bytes.", code="body_too_large")
    fields = json_object(body)
    client_id = text_field(fields, "client_id", 36)
    if not is_id(client_id):
        raise bad_field("client_id", "must be a UUID in lower case")
    hostname = text_field(fields, "hostname", MAX_HOSTNAME)
    if not hostname.isprintable() or hostname != hostname.strip():
        raise bad_field("hostname", "must be printable, without spaces around it")
    token = fields.get("join_token")
    if token is not None:
        token = text_field(fields, "join_token", 128)
    return Application(
        client_id=client_id,
        hostname=hostname,
        nonce=nonce_field(fields),
        timestamp=timestamp_field(fields),
        public_key=text_field(fields, "public_key", MAX_PEM),
        signature=base64_field(fields, "signature", 2048),
        join_token=token,
    )


def register_text(
    client_id: str, hostname: str, nonce: str, timestamp: float, public_key: str
) -> bytes:
    """The canonical text an applicant signs: five lines joined by ``\\n``, UTF-8.

    Args:
        timestamp: Unix seconds; written as in the JSON body (``1700000000``, ``1700000000.5``).
        public_key: PEM exactly as sent; its SHA-256 in hex is the last line.
    """
    digest = hashlib.sha256(public_key.encode()).hexdigest()
    return "\n".join((client_id, hostname, nonce, timestamp_text(timestamp), digest)).encode()


def load_public_key(pem: str) -> rsa.RSAPublicKey:
    """The RSA key in *pem*.

    Raises:
        InvalidRequest: not a public key (``bad_key``), not RSA (``not_rsa``), shorter than 2048
            bit (``weak_key``), or so large that checking it would be the attack (``bad_key``).
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest(
            "The public key is not a PEM public key.",
            code="bad_key",
            details={"field": "public_key"},
        ) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise InvalidRequest("The public key is not an RSA key.", code="not_rsa")
    if key.key_size < MIN_KEY_BITS:
        raise InvalidRequest(
            f"The key has {key.key_size} bit; at least {MIN_KEY_BITS} are needed.", code="weak_key"
        )
    if key.key_size > MAX_KEY_BITS or key.public_numbers().e.bit_length() > 33:
        raise InvalidRequest(
            f"The key or its exponent is too large; {MAX_KEY_BITS} bit at most.", code="bad_key"
        )
    return key


def key_fingerprint(key: rsa.RSAPublicKey) -> str:
    """``sha256:`` and the hex SHA-256 of the key's DER (SubjectPublicKeyInfo)."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(der).hexdigest()


def verify_application(application: Application) -> rsa.RSAPublicKey:
    """Check the applicant's signature with the key it brings; returns that key.

    Raises:
        InvalidRequest: the key is unusable (see :func:`load_public_key`).
        Unauthenticated: the signature does not match (``bad_signature``).
    """
    key = load_public_key(application.public_key)
    text = register_text(
        application.client_id,
        application.hostname,
        application.nonce,
        application.timestamp,
        application.public_key,
    )
    try:
        key.verify(application.signature, text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Unauthenticated(
            "The signature does not match the application.",
            code="bad_signature",
            hint="See docs/reference/signatures.md for the text to sign.",
        ) from None
    return key


def sign_application(
    key: rsa.RSAPrivateKey,
    *,
    client_id: str,
    hostname: str,
    nonce: str,
    timestamp: float,
    join_token: str | None = None,
) -> dict[str, Any]:
    """A register body signed with *key*, ready for JSON."""
    pem = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    text = register_text(client_id, hostname, nonce, timestamp, pem)
    body: dict[str, Any] = {
        "client_id": client_id,
        "hostname": hostname,
        "nonce": nonce,
        "timestamp": timestamp,
        "public_key": pem,
        "signature": base64.b64encode(key.sign(text, padding.PKCS1v15(), hashes.SHA256())).decode(),
    }
    if join_token is not None:
        body["join_token"] = join_token
    return body


def encrypt_secret(key: rsa.RSAPublicKey, secret: bytes) -> str:
    """*secret* (raw bytes) as base64 text, encrypted RSA-OAEP-SHA256 for *key*, in base64."""
    return base64.b64encode(key.encrypt(base64.b64encode(secret), _OAEP)).decode()


def decrypt_secret(key: rsa.RSAPrivateKey, encrypted: str) -> bytes:
    """The raw secret from what :func:`encrypt_secret` made.

    Raises:
        InvalidRequest: it was not made for this key, or holds no 32-byte secret.
    """
    try:
        secret = base64.b64decode(
            key.decrypt(base64.b64decode(encrypted, validate=True), _OAEP), validate=True
        )
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise InvalidRequest("The encrypted secret is not for this key.", code="bad_secret")
    return secret
