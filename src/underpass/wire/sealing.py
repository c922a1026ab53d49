"""The handshake of an end-to-end encrypted stream: who the agent is, and keys nobody else has.

::

    SealingClient                              SealingAgent
      UPSEAL01 | X25519 key  ─────────────────►
             ◄───────────────── UPSEAL01 | length u16 | AgentHello
      sealed records  ◄──────────────────────►  sealed records

``AgentHello`` (msgpack) has the agent's X25519 key, its enrolment key (RSA, DER), an RSA-PSS
signature (SHA-256) over the transcript, and a proof that it has derived the keys (SIGMA's MAC: it
ties the identity to the secret, not only to the exchange). The transcript is the hash of the
target, the client's bytes, the agent's X25519 key and its enrolment key, so a gateway in between
can neither lead the stream to another agent or target, nor replay an old answer: both X25519 keys
are made anew for each stream, and forgotten after it.

The client is not proved to the agent here; whom the gateway may let in is the agent's policy.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta, Struct

from underpass.core.errors import UnderpassError
from underpass.wire.applications import MAX_KEY_BITS, MIN_KEY_BITS, key_fingerprint
from underpass.wire.pieces import Buffer, Pieces
from underpass.wire.sealed_records import SECRET_BYTES

__all__ = [
    "MAGIC",
    "MAX_MESSAGE",
    "Sealed",
    "SealingAgent",
    "SealingClient",
    "SealingError",
    "WrongKey",
]

MAGIC: Final = b"UPSEAL01"
"""First bytes of both sides; the digits are the version."""
MAX_MESSAGE: Final = 4096
"""Bytes of the agent's message at most."""
_KEY_BYTES: Final = 32
_CLIENT_HELLO: Final = len(MAGIC) + _KEY_BYTES
_TRANSCRIPT_LABEL: Final = b"underpass e2e 1 transcript\0"
_AGENT_LABEL: Final = b"underpass e2e 1 agent\0"
_KEYS_INFO: Final = b"underpass e2e 1 keys"
_PSS: Final = padding.PSS(padding.MGF1(SHA256()), 32)


class SealingError(UnderpassError):
    """The handshake failed; ``code`` says how.

    Codes: ``e2e_failed`` (malformed, or not this protocol), ``e2e_version``, ``e2e_signature`` (the
    other side is not who it says, or was led to another target).
    """

    code, status, close_code = "e2e_failed", 502, 4502


class WrongKey(SealingError):
    """The agent proved a key that is not the one we know.

    Attributes:
        expected: fingerprint of the one we know.
        found: fingerprint of the one it has.
    """

    code, status, close_code = "agent_key_changed", 403, 4403

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(
            f"The machine proves the key {found}, but the one known for it is {expected}."
            " Either it was enrolled anew, or somebody is in between.",
            details={"expected": expected, "found": found},
        )
        self.expected = expected
        self.found = found


class _AgentHello(Struct):
    public: Annotated[bytes, Meta(min_length=_KEY_BYTES, max_length=_KEY_BYTES)]
    key: Annotated[bytes, Meta(max_length=2048)]
    signature: Annotated[bytes, Meta(max_length=1024)]
    proof: Annotated[bytes, Meta(min_length=32, max_length=32)]


_AGENT_HELLO = msgspec.msgpack.Decoder(_AgentHello)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What both sides know after the handshake.

    Attributes:
        outgoing: secret of what this side sends.
        incoming: secret of what it receives.
        fingerprint: of the agent's key, as enrolment shows it (``sha256:…``).
        rest: bytes that came after the handshake: records already.
    """

    outgoing: bytes = field(repr=False)
    incoming: bytes = field(repr=False)
    fingerprint: str
    rest: Buffer = b""


class SealingClient:
    """The side that opened the stream.

    Args:
        target: what it was opened to; the agent must have been asked for the same.
        agent_fingerprint: of the only key to accept; None takes any that is proved.
        private: the X25519 key (tests only).
    """

    def __init__(
        self,
        target: str,
        *,
        agent_fingerprint: str | None = None,
        private: X25519PrivateKey | None = None,
    ) -> None:
        self._target = target
        self._expected = agent_fingerprint
        self._private = private or X25519PrivateKey.generate()
        self._input = Pieces()
        self.hello: bytes = MAGIC + self._private.public_key().public_bytes_raw()
        """What to send."""

    def feed(self, data: Buffer) -> Sealed | None:
        """Take bytes of the agent; gives the result once it is there.

        Raises:
            WrongKey: it has another key than we expect, and proved it.
            SealingError: the handshake failed.
        """
        self._input.add(data)
        start = len(MAGIC) + 2
        head = self._input.peek(start)
        _check_magic(head)
        if len(head) < start:
            return None
        length = int.from_bytes(head[-2:], "big")
        if length > MAX_MESSAGE:
            raise SealingError(f"The agent's message of {length} bytes is over the cap.")
        if self._input.size < start + length:
            return None
        self._input.take(start)
        message = bytes(self._input.take(length))
        return self._check(message, self._input.take(self._input.size))

    def _check(self, message: bytes, rest: Buffer) -> Sealed:
        try:
            hello = _AGENT_HELLO.decode(message)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise SealingError("The agent's message is malformed.") from None
        key = _loaded(hello.key)
        transcript = _transcript(self._target, self.hello, hello.public, hello.key)
        try:
            key.verify(hello.signature, _AGENT_LABEL + transcript, _PSS, SHA256())
        except InvalidSignature:
            raise _not_proved() from None
        secrets = _derive(self._private, hello.public, transcript)
        if not hmac.compare_digest(hello.proof, secrets.proof(hello.signature)):
            raise _not_proved()
        # Only now it is sure whose key it is: an error that names it must not be anybody's to make.
        fingerprint = key_fingerprint(key)
        if self._expected is not None and fingerprint != self._expected:
            raise WrongKey(self._expected, fingerprint)
        return Sealed(secrets.to_agent, secrets.to_client, fingerprint, rest)


class SealingAgent:
    """The side that accepted the stream.

    Args:
        target: what the stream was opened to.
        key: the agent's enrolment key.
        private: the X25519 key (tests only).
    """

    def __init__(
        self, target: str, key: rsa.RSAPrivateKey, *, private: X25519PrivateKey | None = None
    ) -> None:
        self._target = target
        self._key = key
        self._private = private or X25519PrivateKey.generate()
        self._input = Pieces()

    def feed(self, data: Buffer) -> bytes | None:
        """Take bytes of the client; gives its whole hello once it is there, for :meth:`answer`.

        Raises:
            SealingError: this is no client that speaks our version.
        """
        self._input.add(data)
        head = self._input.peek(_CLIENT_HELLO)
        _check_magic(head)
        if len(head) < _CLIENT_HELLO:
            return None
        return bytes(self._input.take(_CLIENT_HELLO))

    def answer(self, hello: bytes) -> tuple[bytes, Sealed]:
        """What to send, and the result. Signing takes a millisecond or two: fit for a thread.

        Raises:
            SealingError: the client's key is not usable.
        """
        public = self._private.public_key().public_bytes_raw()
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        transcript = _transcript(self._target, hello, public, der)
        secrets = _derive(self._private, hello[len(MAGIC) :], transcript)
        signature = self._key.sign(_AGENT_LABEL + transcript, _PSS, SHA256())
        body = msgspec.msgpack.encode(_AgentHello(public, der, signature, secrets.proof(signature)))
        sealed = Sealed(
            secrets.to_client,
            secrets.to_agent,
            key_fingerprint(self._key.public_key()),
            self._input.take(self._input.size),
        )
        return MAGIC + len(body).to_bytes(2, "big") + body, sealed


@dataclass(frozen=True, slots=True)
class _Secrets:
    to_agent: bytes
    to_client: bytes
    confirm: bytes

    def proof(self, signature: bytes) -> bytes:
        """That whoever signed has derived these, too."""
        return hmac.digest(self.confirm, signature, "sha256")


def _transcript(target: str, hello: bytes, public: bytes, key: bytes) -> bytes:
    digest = hashlib.sha256(_TRANSCRIPT_LABEL)
    for part in (target.encode("utf-8", "surrogatepass"), hello, public, key):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def _derive(private: X25519PrivateKey, public: bytes, transcript: bytes) -> _Secrets:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a low-order point: the "shared" secret would be known to everybody
        raise SealingError("The other side's key is not usable.") from None
    made = HKDF(SHA256(), 3 * SECRET_BYTES, salt=transcript, info=_KEYS_INFO).derive(shared)
    return _Secrets(made[:32], made[32:64], made[64:])


def _loaded(der: bytes) -> rsa.RSAPublicKey:
    try:
        key: Any = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise SealingError("The agent's key is no RSA key.")
    # Cheap to check, however large: an exponent of thousands of bits would be an attack.
    if not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS or key.public_numbers().e.bit_length() > 33:
        raise SealingError("The agent's key is too small or too large.")
    return key


def _check_magic(head: bytes) -> None:
    magic = head[: len(MAGIC)]
    if magic == MAGIC[: len(magic)]:
        return
    if magic.startswith(MAGIC[:6]):
        raise SealingError(
            "The other side speaks another version of end-to-end encryption.",
            code="e2e_version",
            hint="Upgrade the older of the two.",
        )
    raise SealingError("The other side does not speak end-to-end encryption.")


def _not_proved() -> SealingError:
    return SealingError(
        "The machine could not prove its key for this stream: somebody in between has changed the"
        " handshake or led it elsewhere.",
        code="e2e_signature",
    )
