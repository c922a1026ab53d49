"""The gateway"s side of the handshake."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from underpass.wire.handshake.messages import (
    AGENT_LABEL,
    AUTH,
    CHALLENGE_LABEL,
    HELLO,
    NODE_LABEL,
    NONCE_BYTES,
    PREFACE,
    REFUSAL_LABEL,
    VERSION,
    ZERO_NONCE,
    Challenge,
    ChallengeBody,
    HandshakeError,
    Hello,
    MessageReader,
    Refuse,
    RefuseBody,
    Role,
    Welcome,
    WelcomeBody,
    client_keys,
    decoded,
    encode,
    framed,
    hashed,
    mac,
)

__all__ = ["Claim", "Responder"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Who the initiator says it is; for a client, with the token that proves it.

    Nothing in it is proved until :meth:`Responder.proves` said so (agents) or the token was
    checked (clients).
    """

    role: Role
    id: str
    name: str
    software: str
    features: frozenset[str]
    version: int
    token: str | None = field(default=None, repr=False)


class Responder:
    """The gateway's side.

    The caller decides: once :meth:`feed` returns a :class:`Claim`, look up the secret or the
    token and call :meth:`welcome` or :meth:`refuse`.

    Args:
        node_key: this node's private key.
        node_id: this node's id.
        binding: what ties the handshake to the connection under it; see :class:`Initiator`.
        random: source of nonces (injected by tests only).
        versions: what we speak (tests only).
    """

    def __init__(
        self,
        node_key: Ed25519PrivateKey,
        node_id: str,
        *,
        binding: bytes = b"",
        random: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        self._node_key = node_key
        self._node_id = node_id
        self._binding = (binding,) if binding else ()
        self._random = random
        self._versions = versions
        self._messages = MessageReader(PREFACE)
        self._out = bytearray()
        self._private = X25519PrivateKey.from_private_bytes(random(32))
        self._dummy = random(32)
        self._hello: Hello | None = None
        self._version = 0
        self._transcript = b""
        self._answered = b""
        self._welcome_key = b""
        self._proof = b""
        self._claim: Claim | None = None
        self._done = False

    @property
    def claim(self) -> Claim | None:
        """Who the other side says it is, once it has answered the challenge."""
        return self._claim

    @property
    def role(self) -> str:
        """The role named in the HELLO, for metrics; ``"unknown"`` before that."""
        role = self._hello.role if self._hello is not None else ""
        return role if role in ("agent", "client", "node") else "unknown"

    def data_to_send(self) -> bytes:
        """Bytes for the other side; empty when there is nothing to say."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes | bytearray | memoryview) -> Claim | None:
        """Take bytes from the other side.

        Returns:
            the claim to decide about once it is complete, else None.

        Raises:
            HandshakeError: the other side breaks the protocol. A REFUSE that says so is in
                :meth:`data_to_send` where that makes sense; send it, then close.
        """
        if self._done or self._claim is not None:
            self._done = True
            raise HandshakeError("The peer spoke before it was welcome.", code="out_of_turn")
        self._messages.feed(data)
        try:
            while (message := self._messages.next()) is not None:
                if self._hello is None:
                    self._on_hello(message)
                    continue
                claim = self._on_auth(message, self._hello)
                if self._messages.rest():
                    raise HandshakeError(
                        "The peer spoke before it was welcome.", code="out_of_turn"
                    )
                self._claim = claim
                return claim
        except HandshakeError as error:
            if error.code != "not_a_link":
                self.refuse(error.code, error.message, final=error.code == "unsupported_version")
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

    def _on_hello(self, message: bytes) -> None:
        hello = decoded(HELLO, message)
        self._hello = hello
        self._transcript = hashed(*self._binding, message)
        common = set(hello.versions) & set(self._versions)
        if not common:
            raise HandshakeError(
                f"No common protocol version: the peer speaks {sorted(set(hello.versions))}, "
                f"this gateway {sorted(self._versions)}.",
                code="unsupported_version",
            )
        if hello.role not in ("agent", "client"):
            raise HandshakeError("This gateway takes no such link.", code="unsupported_role")
        self._version = max(common)
        body = encode(
            ChallengeBody(
                version=self._version,
                node_id=self._node_id,
                nonce=self._random(NONCE_BYTES),
                public=self._private.public_key().public_bytes_raw(),
                node_key=self._node_key.public_key().public_bytes_raw(),
            )
        )
        transcript = hashed(*self._binding, message, body)
        signature = self._node_key.sign(CHALLENGE_LABEL + transcript)
        self._out += framed(encode(Challenge(body=body, signature=signature)))
        self._transcript = hashed(transcript, signature)

    def _on_auth(self, message: bytes, hello: Hello) -> Claim:
        auth = decoded(AUTH, message)
        self._answered = hashed(self._transcript, message)
        token: str | None = None
        if hello.role == "client":
            seal, self._welcome_key = client_keys(self._private, hello.public, self._transcript)
            try:
                opened = AESGCM(seal).decrypt(ZERO_NONCE, auth.sealed, self._transcript)
                token = opened.decode()
            except (InvalidTag, ValueError):
                raise HandshakeError("The sealed token does not open.", code="bad_proof") from None
        self._proof = auth.proof
        return Claim(
            role=cast(Role, hello.role),
            id=hello.id,
            name=hello.name,
            software=hello.software,
            features=frozenset(hello.features),
            version=self._version,
            token=token,
        )

    def proves(self, secret: bytes | None) -> bool:
        """Whether the claiming agent knows *secret*.

        Give None for an unknown agent: the work done, and so the time taken, is the same.
        """
        key = secret if secret is not None else self._dummy
        fits = hmac.compare_digest(mac(key, AGENT_LABEL, self._transcript), self._proof)
        if fits and secret is not None:
            self._welcome_key = secret
            return True
        return False

    def welcome(
        self,
        link_id: str,
        server_time: float,
        *,
        settings: Mapping[str, Any] | None = None,
        features: frozenset[str] = frozenset(),
    ) -> None:
        """Let the claimant in; the bytes are in :meth:`data_to_send`.

        Raises:
            RuntimeError: nothing has been proved yet (a mistake of the caller).
        """
        if self._done or self._claim is None or not self._welcome_key:
            raise RuntimeError("nobody to welcome: no claim has been proved")
        body = encode(
            WelcomeBody(
                link_id=link_id,
                server_time=server_time,
                features=sorted(features),
                settings=dict(settings or {}),
            )
        )
        proof = mac(self._welcome_key, NODE_LABEL, self._answered, body)
        self._out += framed(encode(Welcome(body=body, proof=proof)))
        self._done = True

    def refuse(
        self,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        final: bool = False,
    ) -> None:
        """Say no, signed when the peer has said HELLO; the bytes are in :meth:`data_to_send`.

        Does nothing when the handshake is over already.
        """
        if self._done:
            return
        self._done = True
        body = encode(
            RefuseBody(
                code=code[:64],
                message=message[:512],
                retry_after=None if retry_after is None else min(max(retry_after, 0.0), 86400.0),
                final=final,
            )
        )
        signature = b""
        if self._transcript:
            signature = self._node_key.sign(REFUSAL_LABEL + self._transcript + body)
        self._out += framed(encode(Refuse(body=body, signature=signature)))
