"""Both sides of the link handshake, at every point of it: nothing but HandshakeError comes out.

The first byte of an input chooses the side and how far the handshake has come; the rest is what
the other side sends, fed in two pieces.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from underpass.wire.handshake import (
    AgentIdentity,
    ClientIdentity,
    HandshakeError,
    Initiator,
    Responder,
)
from underpass.wire.handshake.messages import MessageReader

NODE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PINNED = NODE_KEY.public_key().public_bytes_raw()
SECRET = b"s" * 32


def _random(seed: int) -> Callable[[int], bytes]:
    count = seed

    def random(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_128(count.to_bytes(8, "big")).digest(size)

    return random


def _play(
    identity: AgentIdentity | ClientIdentity, seed: int
) -> tuple[list[Initiator | Responder], list[bytes]]:
    """Both sides at each step of a whole handshake, and what each was about to be fed."""
    initiator = Initiator(identity, pinned_key=PINNED, random=_random(seed), software="1")
    responder = Responder(NODE_KEY, "node-1", random=_random(seed + 1000))
    sides: list[Initiator | Responder] = [copy.copy(responder), copy.copy(initiator)]
    hello = initiator.data_to_send()
    responder.feed(hello)
    challenge = responder.data_to_send()
    sides.append(copy.copy(responder))
    initiator.feed(challenge)
    auth = initiator.data_to_send()
    sides.append(copy.copy(initiator))
    responder.feed(auth)
    responder.proves(SECRET)
    responder.welcome("link-1", 1.0, settings={"heartbeat": 30})
    welcome = responder.data_to_send()
    return sides, [hello, challenge, auth, welcome]


_agent_sides, _agent_bytes = _play(AgentIdentity("a-1", SECRET, "web-1"), 0)
_client_sides, _client_bytes = _play(ClientIdentity("ups_token", "laptop"), 100)
SIDES = [*_agent_sides, *_client_sides]

_refusing = Responder(NODE_KEY, "node-1", random=_random(7))
_refusing.feed(_agent_bytes[0])
_refusing.data_to_send()
_refusing.refuse("busy", "Later.", retry_after=3, final=True)
_refusal = _refusing.data_to_send()

SEEDS: list[bytes] = [
    bytes([index]) + data for index, data in enumerate([*_agent_bytes, *_client_bytes])
]
SEEDS += [bytes([index]) + _refusal for index in (1, 3)]
SEEDS += [b"\x01HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00GET / HTTP/1.1\r\n\r\n", b"\x00", b""]


def one_input(data: bytes) -> None:
    """Feed one side at one point of the handshake."""
    side = copy.copy(SIDES[data[0] % len(SIDES)] if data else SIDES[0])
    reader = copy.copy(side._messages)
    reader._buffer = bytearray(reader._buffer)
    side._messages = reader
    side._out = bytearray()
    assert isinstance(reader, MessageReader)
    middle = len(data) // 2
    try:
        for piece in (data[1:middle], data[max(1, middle) :]):
            result = side.feed(piece)
            side.data_to_send()
            if result is not None and isinstance(side, Responder):
                if result.role == "agent":
                    side.proves(None)
                side.refuse("no", "No.")
                side.data_to_send()
                return
        side.feed_eof()
    except HandshakeError:
        side.data_to_send()
