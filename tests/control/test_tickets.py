"""Tickets: long, hashed, once, for one person, for five minutes."""

from __future__ import annotations

import pytest

from underpass.control.subject import Subject
from underpass.control.tickets import TICKET_SECONDS, Ticket, TicketRefused, Tickets
from underpass.core.clock import ManualClock
from underpass.core.errors import Forbidden
from underpass.core.ids import hash_secret
from underpass.store.kv import MemoryStore

ANN = Subject("u-ann", "ann", "user", ip="192.0.2.1")


class Office:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.kv = MemoryStore(self.clock)
        self.tickets = Tickets(self.kv)

    async def issue(self) -> tuple[str, Ticket]:
        return await self.tickets.issue(
            ANN, "a-1", command="bash", login="deploy", cols=100, rows=30, session_id="s-1"
        )


async def test_a_ticket_says_what_it_was_made_for() -> None:
    office = Office()
    token, ticket = await office.issue()
    assert token.startswith("upx_")
    assert len(token) - 4 >= 43  # 256 bits in base64
    assert await office.tickets.redeem(token) == ticket
    assert (ticket.user_id, ticket.agent_id, ticket.command, ticket.login) == (
        "u-ann", "a-1", "bash", "deploy",
    )  # fmt: skip
    assert ticket.token_hash == hash_secret(token)


async def test_no_two_are_alike_and_none_is_stored() -> None:
    office = Office()
    tokens = {(await office.issue())[0] for _ in range(50)}
    assert len(tokens) == 50
    for token in tokens:
        stored = await office.kv.get(f"ticket:{hash_secret(token)}")
        assert stored is not None
        assert token.encode() not in stored


async def test_guests_get_none() -> None:
    office = Office()
    guest = Subject("guest:1", "guest", "guest")
    with pytest.raises(Forbidden):
        await office.tickets.issue(guest, "a-1", command=None, login=None, cols=80, rows=24)


async def test_it_works_once() -> None:
    office = Office()
    token, _ = await office.issue()
    await office.tickets.redeem(token, presented_by="u-ann")
    with pytest.raises(TicketRefused):
        await office.tickets.redeem(token)


async def test_it_dies_after_five_minutes() -> None:
    office = Office()
    token, _ = await office.issue()
    office.clock.advance(TICKET_SECONDS - 1)
    other, _ = await office.issue()
    office.clock.advance(2)
    with pytest.raises(TicketRefused):
        await office.tickets.redeem(token)
    assert await office.tickets.redeem(other)


async def test_somebody_else_burns_it() -> None:
    office = Office()
    token, _ = await office.issue()
    with pytest.raises(TicketRefused):
        await office.tickets.redeem(token, presented_by="u-bob")
    with pytest.raises(TicketRefused):
        await office.tickets.redeem(token, presented_by="u-ann")


@pytest.mark.parametrize("token", ["", "upx_", "upt_abc", "upx_" + "x" * 500, "upx_ü"])
async def test_what_is_no_ticket(token: str) -> None:
    with pytest.raises(TicketRefused) as refused:
        await Office().tickets.redeem(token)
    assert refused.value.close_code == 4401
    assert token not in str(refused.value) or not token
