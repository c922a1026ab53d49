"""The gateway's end of a new link: run the handshake over a transport, then hand out the link.

Who may come in is decided by the :class:`Doorkeeper` the caller brings; this module only carries
bytes and holds the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from underpass.core.clock import Clock
from underpass.core.errors import Internal, Unauthenticated, UnderpassError
from underpass.core.ids import IdMaker, new_id
from underpass.links.link import Link, Peer
from underpass.links.transports.transport import Inbox, Transport
from underpass.wire.handshake import Claim, HandshakeError, Responder

__all__ = ["HANDSHAKE_TIMEOUT", "Admission", "Doorkeeper", "Turned", "accept"]

_log = structlog.get_logger(__name__)

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds a peer has for the whole handshake."""
_REFUSAL_FLOOR: Final = 0.2
"""Seconds from AUTH to a refusal of credentials: no more is told by a clock than by the text."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Somebody the doorkeeper lets in.

    Attributes:
        id: the agent's or the user's id.
        name: for people and logs.
        settings: what the peer should know; goes into WELCOME.
        context: whatever the doorkeeper wants to find again (the client's subject).
    """

    id: str
    name: str
    settings: Mapping[str, Any] | None = None
    context: Any = None


class Doorkeeper(Protocol):
    """Who decides about claims."""

    async def agent_secret(self, agent_id: str) -> bytes | None:
        """The raw secret of an enrolled, not deleted agent; None for anything else."""
        ...

    async def admit_agent(self, claim: Claim, address: str | None) -> Admission:
        """The agent has proved its secret; raise an :class:`UnderpassError` to refuse it still."""
        ...

    async def admit_client(self, claim: Claim, address: str | None) -> Admission:
        """Check ``claim.token``.

        Raises:
            UnderpassError: to refuse; Unauthenticated makes the refusal final.
        """
        ...


class Turned(UnderpassError):
    """The peer was turned away, or left, or broke the protocol; it has been told.

    Attributes:
        claim: who it said it was, if it got that far.
        role: the role it named.
    """

    code, status = "turned_away", 403

    def __init__(self, error: UnderpassError, role: str, claim: Claim | None) -> None:
        super().__init__(error.message, code=error.code)
        self.role = role
        self.claim = claim


async def accept(
    transport: Transport,
    doorkeeper: Doorkeeper,
    *,
    node_key: Ed25519PrivateKey,
    node_id: str,
    clock: Clock,
    features: frozenset[str] = frozenset(),
    make_id: IdMaker = new_id,
    timeout: float = HANDSHAKE_TIMEOUT,
    address: str | None = None,
) -> tuple[Link, Admission]:
    """Run the responder's side on *transport*.

    Args:
        transport: fresh from the one port or a WebSocket; closed when this fails.
        doorkeeper: decides.
        node_key: proves this node to the peer.
        timeout: seconds for everything until the peer is welcome.
        address: the peer's address after trusted proxies; default: the transport's.

    Returns:
        the link, which reads nothing before its ``start``, and what the doorkeeper said.

    Raises:
        Turned: no link came of it.
    """
    responder = Responder(node_key, node_id, binding=transport.binding)
    inbox = Inbox(transport)
    peer_address = address or transport.peer_address
    try:
        async with asyncio.timeout(timeout):
            claim = await _claim(transport, inbox, responder)
            admission = await _decide(responder, claim, doorkeeper, peer_address)
    except TimeoutError:
        error = HandshakeError("The handshake took too long.", code="timeout")
        responder.refuse(error.code, error.message, retry_after=1.0)
        _say_goodbye(transport, responder)
        raise Turned(error, responder.role, responder.claim) from None
    except UnderpassError as error:
        _say_goodbye(transport, responder)
        raise Turned(error, responder.role, responder.claim) from error
    except BaseException:
        transport.abort()
        raise
    link_id = make_id()
    responder.welcome(link_id, clock.now(), settings=admission.settings, features=features)
    transport.write(responder.data_to_send())
    link = Link(
        transport,
        Peer(
            role=claim.role,
            id=admission.id,
            name=admission.name,
            address=peer_address,
            version=claim.software,
            features=claim.features,
        ),
        dialler=False,
        id=link_id,
        leftover=inbox.detach(),
        clock=clock,
    )
    return link, admission


async def _claim(transport: Transport, inbox: Inbox, responder: Responder) -> Claim:
    while True:
        claim = responder.feed(await inbox.read())
        if claim is not None:
            return claim
        transport.write(responder.data_to_send())


async def _decide(
    responder: Responder, claim: Claim, doorkeeper: Doorkeeper, address: str | None
) -> Admission:
    loop = asyncio.get_running_loop()
    earliest = loop.time() + _REFUSAL_FLOOR
    try:
        if claim.role == "agent":
            proven = responder.proves(await doorkeeper.agent_secret(claim.id))
            if not proven:
                raise Unauthenticated(
                    "The gateway does not know these credentials.", code="not_enrolled"
                )
            return await doorkeeper.admit_agent(claim, address)
        return await doorkeeper.admit_client(claim, address)
    except UnderpassError as error:
        final = error.status == Unauthenticated.status
        if final:
            await asyncio.sleep(earliest - loop.time())
        responder.refuse(error.code, error.message, retry_after=error.retry_after, final=final)
        raise
    except Exception as error:  # whatever fails inside the gateway, the peer gets an answer
        _log.exception("link_decision_failed", role=claim.role, id=claim.id)
        responder.refuse("internal", "The gateway failed to decide.", retry_after=5.0)
        raise Internal("The gateway failed to decide.") from error


def _say_goodbye(transport: Transport, responder: Responder) -> None:
    transport.write(responder.data_to_send())
    transport.close()
