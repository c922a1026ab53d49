"""The quota of machines: exact however many come at once, on each family of databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.machines import ADMIN, Applicant, Machines
from tests.control.test_mapping_quotas import Given
from underpass.control.quotas import Quotas
from underpass.core.errors import TooManyRequests
from underpass.store.db.database import Database


async def outcome(*asked: Any) -> tuple[list[Any], list[TooManyRequests]]:
    """What worked, and the refusals."""
    results = await asyncio.gather(*asked, return_exceptions=True)
    lost = [one for one in results if isinstance(one, TooManyRequests)]
    won = [one for one in results if not isinstance(one, BaseException)]
    assert len(won) + len(lost) == len(results), results
    return won, lost


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database, quotas=Given(max_clients=5))


async def test_of_twenty_that_join_at_once_exactly_the_quota_gets_in(machines: Machines) -> None:
    ada = await machines.user("ada", "admin")
    tokens = [(await machines.tokens.create(ada, uses=100))["token"] for _ in range(4)]
    applicants = [Applicant(machines, f"box-{number}") for number in range(20)]
    won, lost = await outcome(
        *(one.apply(join_token=tokens[n % 4]) for n, one in enumerate(applicants))
    )
    assert (len(won), len(lost)) == (5, 15)
    assert {error.code for error in lost} == {"quota_exceeded"}
    assert lost[0].details == {"quota": "max_clients", "limit": 5, "used": 5}
    assert "The quota allows 5 machines, and there are 5." in str(lost[0])
    spent, _ = await machines.tokens.page(1, 9)
    assert sum(one["used"] for one in spent) == 5  # a refusal costs nothing
    shown, total = await machines.enrolments.page("pending", 1, 50)
    assert (shown, total) == ([], 0)


async def test_of_twenty_approved_at_once_exactly_the_quota_gets_in(machines: Machines) -> None:
    ada = await machines.user("ada", "admin")
    waiting = [await Applicant(machines, f"box-{number}").apply() for number in range(20)]
    won, lost = await outcome(
        *(machines.enrolments.approve(ada, one["apply_id"]) for one in waiting)
    )
    assert (len(won), len(lost)) == (5, 15)
    _, total = await machines.enrolments.page("pending", 1, 50)
    assert total == 15  # they wait on, for room or for somebody else
    other = await machines.user("ida", "admin")
    await machines.enrolments.approve(other, (await Applicant(machines).apply())["apply_id"])


async def test_room_is_made_by_deleting_and_none_is_taken_by_enrolling_anew(
    machines: Machines,
) -> None:
    mine = [await machines.enrolled(f"box-{number}") for number in range(5)]
    again = await mine[0].apply()
    await machines.enrolments.approve(ADMIN, again["apply_id"])
    late = await Applicant(machines, "late").apply()
    with pytest.raises(TooManyRequests):
        await machines.enrolments.approve(ADMIN, late["apply_id"])
    await machines.agents.delete(ADMIN, mine[1].id)
    await machines.enrolments.approve(ADMIN, late["apply_id"])
    back = await mine[1].apply()
    with pytest.raises(TooManyRequests):
        await machines.enrolments.approve(ADMIN, back["apply_id"])


async def test_what_nobody_let_in_counts_for_nobody(machines: Machines) -> None:
    """The gateway's own token, which its built-in agent joins with."""
    token = (await machines.tokens.create(None, uses=9))["token"]
    for number in range(6):
        await Applicant(machines, f"box-{number}").apply(join_token=token)


async def test_they_are_counted_whether_linked_or_not(machines: Machines) -> None:
    quotas = Quotas(machines.database, machines.clock, events=machines.events, bus=machines.bus)
    ada = await machines.user("ada", "admin")
    for number in range(3):
        waiting = await Applicant(machines, f"box-{number}").apply()
        await machines.enrolments.approve(ada, waiting["apply_id"])
    machine = await machines.enrolled()
    assert (await quotas.counted(ada.user_id))["clients"] == 3
    assert (await quotas.counted(ADMIN.user_id))["clients"] == 1
    await machines.agents.delete(ADMIN, machine.id)
    assert (await quotas.counted(ADMIN.user_id))["clients"] == 0
