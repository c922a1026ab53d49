"""The dialling side of the handshake: an agent, or a person"s program."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from underpass.wire.handshake.messages import (
    AGENT_LABEL,
    CHALLENGE,
    CHALLENGE_BODY,
    CHALLENGE_LABEL,
    NODE_LABEL,
    NONCE_BYTES,
    PREFACE,
    REFUSAL_LABEL,
    REFUSE_BODY,
    VERSION,
    WELCOME,
    WELCOME_BODY,
    ZERO_NONCE,
    Auth,
    ChallengeBody,
    HandshakeError,
    Hello,
    MessageReader,
    Refuse,
    Refused,
    client_keys,
    decoded,
    encode,
    framed,
    hashed,
    is_signed,
    mac,
)

__all__ = ["AgentIdentity", "ClientIdentity", "Established", "Initiator"]


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """An enrolled agent.

    Attributes:
        id: the agent's client id.
        secret: the secret it got when it was approved (raw bytes).
        name: what it calls itself, for logs only.
    """

    id: str
    secret: bytes = field(repr=False)
    name: str = ""

    @property
    def role(self) -> Literal["agent"]:
        return "agent"


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A person's program.

    Attributes:
        token: an access token or API token.
        name: what it calls itself, for logs only.
    """

    token: str = field(repr=False)
    name: str = ""
    id: str = ""

    @property
    def role(self) -> Literal["client"]:
        return "client"


@dataclass(frozen=True, slots=True)
class Established:
    """What the initiator knows once it is welcome.

    Attributes:
        link_id: the gateway's name for this link.
        node_id: the node at the other end.
        node_key: its raw Ed25519 public key (what to pin when nothing was pinned).
        server_time: the gateway's clock, seconds since the epoch.
        settings: what the gateway wants this side to know.
        features: what the gateway can do.
        version: the protocol version chosen.
        rest: bytes that came after the handshake; they belong to the link.
    """

    link_id: str
    node_id: str
    node_key: bytes
    server_time: float
    settings: Mapping[str, Any]
    features: frozenset[str]
    version: int
    rest: bytes = b""


class Initiator:
    """The dialling side.

    Args:
        identity: who we are.
        pinned_key: the gateway's raw Ed25519 public key, when we know it; any other key ends the
            handshake before anything that proves who we are has been sent.
        software: our version, for logs at the other end.
        features: what we can do.
        binding: what ties the handshake to the connection under it, the same at both ends; both
            signatures and proofs then cover it. Empty on carriers that have nothing to name.
        random: source of nonces (injected by tests only).
        versions: what we offer (tests only).
    """

    def __init__(
        self,
        identity: AgentIdentity | ClientIdentity,
        *,
        pinned_key: bytes | None = None,
        software: str = "",
        features: frozenset[str] = frozenset(),
        binding: bytes = b"",
        random: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        self._identity = identity
        self._pinned = pinned_key
        self._versions = versions
        self._private = X25519PrivateKey.from_private_bytes(random(32))
        hello = encode(
            Hello(
                versions=list(versions),
                role=identity.role,
                id=identity.id,
                nonce=random(NONCE_BYTES),
                public=self._private.public_key().public_bytes_raw(),
                name=identity.name[:253],
                software=software[:64],
                features=sorted(features),
            )
        )
        self._said = (binding, hello) if binding else (hello,)
        self._out = bytearray(PREFACE + framed(hello))
        self._messages = MessageReader()
        self._transcript = hashed(*self._said)
        self._welcome_key = b""
        self._challenged: ChallengeBody | None = None
        self._done = False

    def data_to_send(self) -> bytes:
        """Bytes for the other side; empty when there is nothing to say."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes | bytearray | memoryview) -> Established | None:
        """Take bytes from the other side.

        Returns:
            the result once the handshake is complete, else None.

        Raises:
            Refused: the gateway said no.
            HandshakeError: the other side is not who it should be or breaks the protocol.
        """
        if self._done:
            raise HandshakeError("The handshake is over.", code="out_of_turn")
        self._messages.feed(data)
        try:
            while (message := self._messages.next()) is not None:
                if self._challenged is None:
                    self._on_challenge(message)
                else:
                    established = self._on_welcome(message, self._challenged)
                    self._done = True
                    return established
        except HandshakeError:
            self._done = True
            raise
        return None

    def feed_eof(self) -> None:
        """The other side closed early.

        Raises:
            HandshakeError: always, code ``truncated``.
        """
        self._done = True
        raise HandshakeError("The connection was closed during the handshake.", code="truncated")

    def _on_challenge(self, message: bytes) -> None:
        challenge = decoded(CHALLENGE, message)
        if isinstance(challenge, Refuse):
            raise self._refused(challenge, self._pinned)
        body = decoded(CHALLENGE_BODY, challenge.body)
        if self._pinned is not None and not hmac.compare_digest(body.node_key, self._pinned):
            raise HandshakeError(
                "The gateway's key is not the one pinned when this side was enrolled.",
                code="wrong_node_key",
                hint="If the gateway was set up anew, enrol again with an empty state directory.",
            )
        transcript = hashed(*self._said, challenge.body)
        if not is_signed(body.node_key, challenge.signature, CHALLENGE_LABEL + transcript):
            raise HandshakeError(
                "The gateway's signature does not fit what we sent; somebody may be in between.",
                code="bad_signature",
            )
        if body.version not in self._versions:
            raise HandshakeError(
                f"The gateway chose protocol version {body.version}, which we did not offer.",
                code="unsupported_version",
            )
        transcript = hashed(transcript, challenge.signature)
        auth = encode(self._auth(body, transcript))
        self._out += framed(auth)
        self._challenged = body
        self._transcript = transcript
        self._answered = hashed(transcript, auth)

    def _auth(self, body: ChallengeBody, transcript: bytes) -> Auth:
        if isinstance(self._identity, AgentIdentity):
            self._welcome_key = self._identity.secret
            return Auth(proof=mac(self._identity.secret, AGENT_LABEL, transcript))
        seal, self._welcome_key = client_keys(self._private, body.public, transcript)
        token = self._identity.token.encode()
        return Auth(sealed=AESGCM(seal).encrypt(ZERO_NONCE, token, transcript))

    def _on_welcome(self, message: bytes, challenged: ChallengeBody) -> Established:
        welcome = decoded(WELCOME, message)
        if isinstance(welcome, Refuse):
            raise self._refused(welcome, challenged.node_key)
        expected = mac(self._welcome_key, NODE_LABEL, self._answered, welcome.body)
        if not hmac.compare_digest(expected, welcome.proof):
            raise HandshakeError(
                "The gateway could not prove that it knows us; somebody may be in between.",
                code="bad_proof",
            )
        body = decoded(WELCOME_BODY, welcome.body)
        return Established(
            link_id=body.link_id,
            node_id=challenged.node_id,
            node_key=challenged.node_key,
            server_time=body.server_time,
            settings=body.settings,
            features=frozenset(body.features),
            version=challenged.version,
            rest=self._messages.rest(),
        )

    def _refused(self, refuse: Refuse, key: bytes | None) -> Refused:
        body = decoded(REFUSE_BODY, refuse.body)
        signed = REFUSAL_LABEL + self._transcript + refuse.body
        return Refused(
            body.message or "The gateway refused the link.",
            code=body.code,
            retry_after=body.retry_after,
            final=body.final,
            verified=key is not None and is_signed(key, refuse.signature, signed),
        )
