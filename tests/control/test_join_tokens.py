"""Join tokens on every database: so many uses and no more, until then and no longer."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import pytest
from sqlalchemy import select

from tests.control.machines import ADMIN, Applicant, Machines
from tests.migrated import migrated_in_memory
from underpass.control.join_tokens import join_command, parse_lifetime
from underpass.control.subject import Subject
from underpass.core.errors import Forbidden, InvalidRequest, NotFound
from underpass.store.db.database import Database
from underpass.store.db.models import Agent, JoinToken


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database)


async def test_a_token_lets_a_machine_in_with_its_labels(machines: Machines) -> None:
    made = await machines.tokens.create(ADMIN, labels={"env": "lab"})
    applicant = Applicant(machines)
    applicant.take(await applicant.apply(join_token=made["token"]))
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert shown["labels"] == {"env": "lab"}
    await applicant.beat()
    items, total = await machines.tokens.page(1, 10)
    assert total == 1
    assert (items[0]["used"], items[0]["status"]) == (1, "used_up")
    assert "token" not in items[0]
    applications, _ = await machines.enrolments.page("approved", 1, 10)
    assert applications[0]["decided_by"] == f"join token {made['id']}"


async def test_a_token_says_whether_its_machines_may_declare_mappings(machines: Machines) -> None:
    ida = await machines.user("ida", "admin")

    async def joined(applicant: Applicant, maker: Subject | None, **wanted: Any) -> Agent:
        made = await machines.tokens.create(maker, **wanted)
        assert made["may_declare"] is bool(wanted)
        await applicant.apply(join_token=made["token"])
        async with machines.database.reading() as db:
            row = await db.get(Agent, applicant.id)
            assert row is not None
            return row

    row = await joined(Applicant(machines), None)
    assert (row.may_declare, row.let_in_by) == (False, None)
    row = await joined(box := Applicant(machines), ADMIN)
    assert (row.may_declare, row.let_in_by) == (False, ADMIN.user_id)
    row = await joined(box, ida)
    assert (row.may_declare, row.let_in_by) == (False, ADMIN.user_id), "it was in already"
    row = await joined(box, ida, may_declare=True)
    assert (row.may_declare, row.let_in_by) == (True, ida.user_id)
    row = await joined(box, ADMIN)
    assert (row.may_declare, row.let_in_by) == (True, ida.user_id), "kept, like labels"


async def test_only_the_hash_is_kept(machines: Machines) -> None:
    made = await machines.tokens.create(None)
    async with machines.database.reading() as db:
        row = (await db.scalars(select(JoinToken))).one()
    assert made["token"] not in repr(vars(row))
    assert row.created_by is None


async def test_twenty_machines_at_once_with_five_uses(machines: Machines) -> None:
    made = await machines.tokens.create(ADMIN, uses=5)
    applicants = [Applicant(machines, f"box-{number}") for number in range(20)]
    results = await asyncio.gather(
        *(applicant.apply(join_token=made["token"]) for applicant in applicants),
        return_exceptions=True,
    )
    assert sum(isinstance(result, dict) for result in results) == 5
    refused = [result for result in results if not isinstance(result, dict)]
    assert {getattr(error, "code", error) for error in refused} == {"join_token_used_up"}
    assert (await machines.tokens.page(1, 10))[0][0]["used"] == 5
    pages = await machines.enrolments.page("pending", 1, 50)
    assert pages == ([], 0), "a refused join leaves nothing behind"


async def test_a_lost_answer_is_given_again_without_another_use(machines: Machines) -> None:
    made = await machines.tokens.create(ADMIN, uses=1)
    applicant = Applicant(machines)
    first = applicant.take(await applicant.apply(join_token=made["token"]))
    assert applicant.take(await applicant.apply(join_token=made["token"])) == first
    await machines.agents.delete(ADMIN, applicant.id)
    assert (await applicant.apply(join_token=made["token"]))["status"] == "pending"


async def test_the_same_machine_joining_twice_at_once_uses_it_once_or_twice_but_gets_in(
    machines: Machines,
) -> None:
    made = await machines.tokens.create(ADMIN, uses=4)
    applicant = Applicant(machines)
    answers = await asyncio.gather(*(applicant.apply(join_token=made["token"]) for _ in range(4)))
    secret = await machines.secrets.of(applicant.id)
    assert secret in {applicant.take(answer) for answer in answers}


async def test_a_pending_application_is_approved_by_a_token(machines: Machines) -> None:
    applicant = Applicant(machines)
    pending = await applicant.apply()
    made = await machines.tokens.create(ADMIN)
    answer = await applicant.apply(join_token=made["token"])
    assert answer["apply_id"] == pending["apply_id"]
    applicant.take(answer)
    assert (await machines.enrolments.status(pending["apply_id"], None))["status"] == "approved"


async def test_expired_revoked_and_used_up_are_told_apart(machines: Machines) -> None:
    short = await machines.tokens.create(ADMIN, expires_in=60)
    revoked = await machines.tokens.create(ADMIN, expires_in=None)
    machines.clock.advance(60)
    for _ in range(2):
        ended = await machines.tokens.revoke(ADMIN, revoked["id"])
        assert ended["status"] == "revoked"
    for made, code in ((short, "join_token_expired"), (revoked, "join_token_revoked")):
        with pytest.raises(Forbidden) as refused:
            await Applicant(machines).apply(join_token=made["token"])
        assert refused.value.code == code
    statuses = [item["status"] for item in (await machines.tokens.page(1, 10))[0]]
    assert sorted(statuses) == ["expired", "revoked"]
    with pytest.raises(NotFound):
        await machines.tokens.revoke(ADMIN, "nope")
    assert await machines.event_types("join_token") == [
        "join_token.created",
        "join_token.created",
        "join_token.revoked",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"uses": 0},
        {"uses": True},
        {"uses": 100_001},
        {"expires_in": 0},
        {"labels": ["x"]},
        {"labels": {"a b": "x"}},
        {"labels": {"a": 1}},
        {"labels": {"a": "x" * 129}},
        {"labels": {str(number): "" for number in range(65)}},
    ],
)
async def test_bad_wishes_are_refused(bad: dict[str, Any]) -> None:
    database = await migrated_in_memory()
    with pytest.raises(InvalidRequest):
        await Machines(database).tokens.create(ADMIN, **bad)
    await database.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(60, 60), (1.5, 1.5), ("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7 d", 604800),
     ("2w", 1209600), (None, None)],
)  # fmt: skip
def test_lifetimes(value: object, seconds: float | None) -> None:
    assert parse_lifetime(value) == seconds


@pytest.mark.parametrize("value", [0, -1, True, "", "1y", "h", "400d", [], 1e12])
def test_bad_lifetimes(value: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_lifetime(value)


def test_the_join_command_survives_a_shell() -> None:
    line = join_command("https://gw.example:3000", "upj_x", "sha256:ab")
    assert line == (
        "underpass agent --server https://gw.example:3000 --join upj_x --fingerprint sha256:ab"
    )
    evil = join_command("https://x/$(id);'", "upj_x")
    assert shlex.split(evil)[3] == "https://x/$(id);'"
