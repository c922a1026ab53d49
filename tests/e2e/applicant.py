"""An agent written from spec 7 alone: the gateway is checked against the spec, not our code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["Applicant"]


class Applicant:
    """One machine that speaks the plain HTTPS enrolment and heartbeat of spec 1."""

    def __init__(self, http: httpx.Client, name: str = "applicant", bits: int = 2048) -> None:
        self.http = http
        self.id = str(uuid.uuid4())
        self.name = name
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.secret = b""
        self.apply_id = ""

    @property
    def pem(self) -> str:
        return (
            self.key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    def body(self, **changes: Any) -> dict[str, Any]:
        """A register body signed over its final values; ``signature`` may be overridden."""
        fields: dict[str, Any] = {
            "client_id": self.id,
            "hostname": self.name,
            "nonce": secrets.token_hex(16),
            "timestamp": int(time.time()),
            "public_key": self.pem,
        } | {key: value for key, value in changes.items() if key != "signature"}
        text = "\n".join(
            [
                str(fields["client_id"]),
                str(fields["hostname"]),
                str(fields["nonce"]),
                str(fields["timestamp"]),
                hashlib.sha256(str(fields["public_key"]).encode()).hexdigest(),
            ]
        )
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        fields["signature"] = changes.get("signature", base64.b64encode(signature).decode())
        return fields

    def apply(self, **changes: Any) -> httpx.Response:
        answer = self.http.post("/api/v1/register", json=self.body(**changes))
        if answer.status_code == 200 and "apply_id" in answer.json():
            self.apply_id = answer.json()["apply_id"]
        return answer

    def status(self) -> httpx.Response:
        return self.http.get("/api/v1/register/status", params={"apply_id": self.apply_id})

    def take(self, encrypted_secret: str) -> bytes:
        self.secret = base64.b64decode(
            self.key.decrypt(
                base64.b64decode(encrypted_secret),
                padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
            )
        )
        assert len(self.secret) == 32
        return self.secret

    def heartbeat_body(self, **changes: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": self.id,
            "timestamp": time.time(),
            "nonce": secrets.token_hex(16),
            "metrics": {"dynamic_info": {"cpu_percent": 1.5}},
            "tty_status": {"active_sessions": 0, "sessions": []},
        } | {key: value for key, value in changes.items() if key != "signature"}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        text = "\n".join(
            [
                "POST",
                "/api/v1/heartbeat",
                str(fields["id"]),
                str(fields["timestamp"]),
                str(fields["nonce"]),
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        made = hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
        fields["signature"] = changes.get("signature", made)
        return fields

    def heartbeat(self, **changes: Any) -> httpx.Response:
        return self.http.post("/api/v1/heartbeat", json=self.heartbeat_body(**changes))
