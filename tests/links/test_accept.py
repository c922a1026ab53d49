"""The gateway's end of a handshake over memory: who comes in, who is told what, what is closed."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from underpass.core.clock import ManualClock
from underpass.core.errors import Forbidden, UnderpassError
from underpass.core.ids import new_id
from underpass.links.accept import Admission, Turned, accept
from underpass.links.memory import MemoryTransport, memory_transports
from underpass.links.transports.transport import Inbox
from underpass.wire.handshake import AgentIdentity, Claim, ClientIdentity, Initiator, Refused

NODE_KEY = Ed25519PrivateKey.generate()
AGENT = AgentIdentity(new_id(), secrets.token_bytes(32), "box")


class Door:
    """Lets the one agent in, and whoever says the word."""

    async def agent_secret(self, agent_id: str) -> bytes | None:
        return AGENT.secret if agent_id == AGENT.id else None

    async def admit_agent(self, claim: Claim, address: str | None) -> Admission:
        return Admission(claim.id, "box")

    async def admit_client(self, claim: Claim, address: str | None) -> Admission:
        if claim.token == "breaks":
            raise ValueError("a bug of ours")
        if claim.token != "friend":
            raise Forbidden("Not today.", code="not_today", retry_after=7)
        return Admission("u1", "ada", context="found again")


async def knock(transport: MemoryTransport, identity: AgentIdentity | ClientIdentity) -> object:
    """The dialling side until it knows; gives Established, or raises what it was told."""
    initiator = Initiator(identity)
    inbox = Inbox(transport)
    while True:
        transport.write(initiator.data_to_send())
        done = initiator.feed(await inbox.read())
        if done is not None:
            return done


async def meet(identity: AgentIdentity | ClientIdentity) -> tuple[object, object]:
    near, far = memory_transports()
    async with asyncio.timeout(10):
        return tuple(  # type: ignore[return-value]
            await asyncio.gather(
                accept(
                    far, Door(), node_key=NODE_KEY, node_id="n1", clock=ManualClock(),
                    make_id=lambda: "link-1",
                ),
                knock(near, identity),
                return_exceptions=True,
            )
        )  # fmt: skip


async def hung_up(near: MemoryTransport) -> None:
    """The accepting end has closed: reading ends in an error, after whatever it still said."""
    inbox = Inbox(near)
    async with asyncio.timeout(5):
        with pytest.raises(UnderpassError):
            while True:
                await inbox.read()


async def test_an_agent_with_its_secret_is_welcome() -> None:
    accepted, told = await meet(AGENT)
    assert isinstance(accepted, tuple)
    link, admission = accepted
    assert (link.id, link.peer.role, link.peer.id) == ("link-1", "agent", AGENT.id)
    assert admission.name == "box"
    assert told.link_id == "link-1"  # type: ignore[attr-defined]
    await link.close()


async def test_a_person_is_found_again_by_context() -> None:
    accepted, _ = await meet(ClientIdentity("friend"))
    assert isinstance(accepted, tuple)
    link, admission = accepted
    assert (link.peer.role, admission.context) == ("client", "found again")
    await link.close()


@pytest.mark.parametrize(
    "identity",
    [AgentIdentity(AGENT.id, secrets.token_bytes(32)), AgentIdentity(new_id(), AGENT.secret)],
    ids=["wrong secret", "unknown id"],
)
async def test_a_wrong_secret_and_an_unknown_id_hear_the_same(identity: AgentIdentity) -> None:
    accepted, told = await meet(identity)
    assert isinstance(accepted, Turned)
    assert accepted.role == "agent"
    assert isinstance(told, Refused)
    assert (told.code, told.final) == ("not_enrolled", True)
    assert str(told) == "The gateway does not know these credentials."


async def test_a_refusal_carries_its_code_and_patience() -> None:
    accepted, told = await meet(ClientIdentity("stranger"))
    assert isinstance(accepted, Turned)
    assert isinstance(told, Refused)
    assert (told.code, told.retry_after, told.final) == ("not_today", 7, False)


async def test_a_failure_of_ours_is_answered_without_its_text() -> None:
    accepted, told = await meet(ClientIdentity("breaks"))
    assert isinstance(accepted, Turned)
    assert isinstance(told, Refused)
    assert told.code == "internal"
    assert "a bug of ours" not in str(told)


async def test_who_says_nothing_is_let_go_at_the_deadline() -> None:
    near, far = memory_transports()
    with pytest.raises(Turned) as turned:
        await accept(
            far, Door(), node_key=NODE_KEY, node_id="n1", clock=ManualClock(), timeout=0.05
        )
    assert turned.value.code == "timeout"
    await hung_up(near)


async def test_garbage_ends_it() -> None:
    near, far = memory_transports()
    near.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with pytest.raises(Turned):
        await accept(far, Door(), node_key=NODE_KEY, node_id="n1", clock=ManualClock())
    await hung_up(near)
