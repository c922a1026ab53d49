"""The handshake's messages: their shapes, their caps, and what signatures and proofs cover."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta, Struct

from underpass.core.errors import UnderpassError

__all__ = [
    "AGENT_LABEL",
    "AUTH",
    "CHALLENGE",
    "CHALLENGE_BODY",
    "CHALLENGE_LABEL",
    "HELLO",
    "MAX_MESSAGE",
    "NODE_LABEL",
    "NONCE_BYTES",
    "PREFACE",
    "REFUSAL_LABEL",
    "REFUSE_BODY",
    "VERSION",
    "WELCOME",
    "WELCOME_BODY",
    "ZERO_NONCE",
    "Auth",
    "Challenge",
    "ChallengeBody",
    "HandshakeError",
    "Hello",
    "MessageReader",
    "Refuse",
    "RefuseBody",
    "Refused",
    "Role",
    "Welcome",
    "WelcomeBody",
    "client_keys",
    "decoded",
    "encode",
    "framed",
    "hashed",
    "is_signed",
    "mac",
]

PREFACE: Final = b"UNDPASS1"
"""First bytes of every link, on every carrier; what the one port tells links from HTTP by."""
VERSION: Final = 1
"""The newest version of the protocol after the preface that this code speaks."""
MAX_MESSAGE: Final = 8192
"""Largest handshake message in bytes, without its length."""

NONCE_BYTES = 32
CHALLENGE_LABEL = b"underpass link 1 challenge\0"
AGENT_LABEL = b"underpass link 1 agent\0"
NODE_LABEL = b"underpass link 1 node\0"
REFUSAL_LABEL = b"underpass link 1 refusal\0"
_CLIENT_INFO = b"underpass link 1 client"
ZERO_NONCE = bytes(12)  # each seal key is used once: it hangs on both sides' fresh nonces

Role = Literal["agent", "client", "node"]
_Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Word = Annotated[str, Meta(max_length=64)]
_Features = Annotated[list[_Word], Meta(max_length=64)]


class HandshakeError(UnderpassError):
    """The handshake failed; ``code`` says how.

    Codes: ``bad_message``, ``too_large``, ``truncated``, ``out_of_turn``, ``not_a_link`` (the
    other side does not speak this protocol), ``unsupported_version``, ``bad_signature``,
    ``wrong_node_key`` (not the pinned one), ``bad_proof``.
    """

    code, status, close_code = "handshake_failed", 502, 4502


class Refused(HandshakeError):
    """The gateway said no.

    Attributes:
        final: trying again with the same credentials is pointless. Only ever true when the
            refusal was signed by the gateway's key, so that nobody on the path can stop an agent
            for good.
        verified: the refusal was signed by the gateway's key.
    """

    code, status, close_code = "refused", 403, 4403

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retry_after: float | None = None,
        final: bool = False,
        verified: bool = False,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.final = final and verified
        self.verified = verified


class Hello(Struct, tag_field="type", tag="hello"):
    versions: Annotated[list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=16)]
    role: _Word
    id: _Word
    nonce: _Key
    public: _Key
    name: Annotated[str, Meta(max_length=253)] = ""
    software: _Word = ""
    features: _Features = []


class ChallengeBody(Struct):
    version: Annotated[int, Meta(ge=1, le=255)]
    node_id: _Word
    nonce: _Key
    public: _Key
    node_key: _Key


class Challenge(Struct, tag_field="type", tag="challenge"):
    body: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Auth(Struct, tag_field="type", tag="auth"):
    proof: Annotated[bytes, Meta(max_length=32)] = b""
    sealed: Annotated[bytes, Meta(max_length=6144)] = b""


class WelcomeBody(Struct):
    link_id: Annotated[str, Meta(min_length=1, max_length=64)]
    server_time: float
    features: _Features = []
    settings: dict[_Word, Any] = {}


class Welcome(Struct, tag_field="type", tag="welcome"):
    body: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]
    proof: _Key


class RefuseBody(Struct):
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(max_length=512)]
    retry_after: Annotated[float, Meta(ge=0, le=86400)] | None = None
    final: bool = False


class Refuse(Struct, tag_field="type", tag="refuse"):
    body: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]
    signature: Annotated[bytes, Meta(max_length=64)] = b""


encode = msgspec.msgpack.Encoder().encode
HELLO = msgspec.msgpack.Decoder(Hello)
CHALLENGE = msgspec.msgpack.Decoder(Challenge | Refuse)
CHALLENGE_BODY = msgspec.msgpack.Decoder(ChallengeBody)
AUTH = msgspec.msgpack.Decoder(Auth)
WELCOME = msgspec.msgpack.Decoder(Welcome | Refuse)
WELCOME_BODY = msgspec.msgpack.Decoder(WelcomeBody)
REFUSE_BODY = msgspec.msgpack.Decoder(RefuseBody)

_T = TypeVar("_T")


def decoded(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    """*data* as the message *decoder* expects.

    Raises:
        HandshakeError: ``bad_message``.
    """
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError, OverflowError):
        # The library's own text quotes the peer's bytes; ours does not.
        raise HandshakeError("A handshake message is malformed.", code="bad_message") from None


def hashed(*parts: bytes) -> bytes:
    """SHA-256 over *parts*, each after its length, so that no two lists give the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def mac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104)."""
    return hmac.digest(key, b"".join(parts), "sha256")


def client_keys(private: X25519PrivateKey, peer: bytes, transcript: bytes) -> tuple[bytes, bytes]:
    """(key the token is sealed with, key of the node's answer); RFC 7748, RFC 5869."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:  # a low-order point: the "shared" secret would be known to everybody
        raise HandshakeError("The peer's public key is not usable.", code="bad_message") from None
    keys = HKDF(SHA256(), 64, salt=transcript, info=_CLIENT_INFO).derive(shared)
    return keys[:32], keys[32:]


class MessageReader:
    """Cuts the byte stream into messages."""

    def __init__(self, preface: bytes = b"") -> None:
        self._preface = preface
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole message, or None.

        Raises:
            HandshakeError: ``not_a_link`` or ``too_large``.
        """
        if self._preface:
            seen = bytes(self._buffer[: len(self._preface)])
            if seen != self._preface[: len(seen)]:
                raise HandshakeError(
                    "The other side does not speak the link protocol.", code="not_a_link"
                )
            if len(seen) < len(self._preface):
                return None
            del self._buffer[: len(self._preface)]
            self._preface = b""
        if self._buffer.startswith(b"HTTP/"):
            raise HandshakeError(
                "An HTTP server answered where a link was expected.", code="not_a_link"
            )
        if len(self._buffer) < 2:
            return None
        length = int.from_bytes(self._buffer[:2], "big")
        if length > MAX_MESSAGE and not b"HTTP/".startswith(self._buffer[:5]):
            raise HandshakeError(
                f"A handshake message of {length} bytes is over the cap of {MAX_MESSAGE}.",
                code="too_large",
            )
        if len(self._buffer) < 2 + length:
            return None
        message = bytes(self._buffer[2 : 2 + length])
        del self._buffer[: 2 + length]
        return message

    def rest(self) -> bytes:
        """What came after the messages taken so far."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def framed(message: bytes) -> bytes:
    """*message* after its length.

    Raises:
        HandshakeError: ``too_large``.
    """
    if len(message) > MAX_MESSAGE:
        raise HandshakeError(
            f"A handshake message of {len(message)} bytes is over the cap of {MAX_MESSAGE}.",
            code="too_large",
        )
    return len(message).to_bytes(2, "big") + message


def is_signed(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether *signature* over *data* is by the raw Ed25519 *key* (RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
