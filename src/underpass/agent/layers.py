"""Puts on the agent's end of a stream what its opening asks for: encryption, compression."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.core.errors import UnderpassError
from underpass.links.compression import compressed
from underpass.links.encryption import seal_as_agent
from underpass.links.layers import Layers
from underpass.links.link import Opening
from underpass.links.stream import Stream

__all__ = ["Identity", "NoIdentity", "accept_layers", "check_layers"]


class NoIdentity(UnderpassError):
    """This end has no key of its own, so nobody can be sure of a stream to it."""

    code, status = "e2e_unavailable", 501


class Identity:
    """The key the agent enrolled with, read when it is first needed.

    Args:
        load: reads it; slow, and run in a thread (``AgentState.private_key``).
    """

    def __init__(self, load: Callable[[], rsa.RSAPrivateKey]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._key: rsa.RSAPrivateKey | None = None

    async def private_key(self) -> rsa.RSAPrivateKey:
        """The key.

        Raises:
            StateError: it can't be read.
        """
        async with self._lock:
            if self._key is None:
                self._key = await asyncio.to_thread(self._load)
            return self._key


def check_layers(opening: Opening, identity: Identity | None) -> Layers:
    """The layers *opening* asks for; look before anything is connected.

    Raises:
        InvalidRequest: code ``invalid_layers``.
        NoIdentity: it is to be encrypted, and there is no *identity*.
    """
    layers = Layers.from_meta(opening.meta)
    if layers.e2e and identity is None:
        raise NoIdentity("This agent has no key that end-to-end encryption could rest on.")
    return layers


async def accept_layers(opening: Opening, identity: Identity | None) -> Stream:
    """Accept *opening* and put its layers on: what openers call instead of ``opening.accept()``.

    Args:
        identity: proves who we are on encrypted streams; None refuses those.

    Raises:
        InvalidRequest: code ``invalid_layers``; the opening was not accepted.
        NoIdentity, StateError: the same.
        SealingError, StreamReset, Unavailable: the handshake failed; the stream is aborted.
    """
    layers = check_layers(opening, identity)
    if not layers.e2e or identity is None:
        return compressed(opening.accept(), layers.compression)
    key = await identity.private_key()
    stream = await seal_as_agent(opening.accept(), key, target=opening.target)
    return compressed(stream, layers.compression)
