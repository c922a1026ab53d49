"""Enrolment on every database: who gets in, who does not, and why each is told so."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import func, select

from tests.control.machines import ADMIN, KEYS, Applicant, Machines
from underpass.control.enrolments import EnrolmentLimits
from underpass.core.errors import (
    Conflict,
    Gone,
    Internal,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    UnderpassError,
)
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import Agent, EnrolmentApplication


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database)


async def refusal(awaitable: Any, kind: type[UnderpassError] = UnderpassError) -> UnderpassError:
    with pytest.raises(kind) as refused:
        await awaitable
    return refused.value


async def test_apply_approve_and_take_the_secret(machines: Machines) -> None:
    applicant = Applicant(machines, "web-1")
    news = machines.bus.subscribe(lambda message: message.topic in {"enrolment", "agent"})
    answer = await applicant.apply()
    assert answer == {"status": "pending", "apply_id": answer["apply_id"]}
    assert await machines.enrolments.status(answer["apply_id"], None) == answer
    items, total = await machines.enrolments.page("pending", 1, 50)
    assert total == 1
    assert items[0]["client_id"] == applicant.id
    assert items[0]["key_fingerprint"].startswith("sha256:")
    assert items[0]["address"] == "192.0.2.1"
    assert items[0]["warning"] is None

    approved = await machines.enrolments.approve(ADMIN, answer["apply_id"], labels={"env": "lab"})
    secret = applicant.take(approved)
    polled = await machines.enrolments.status(answer["apply_id"], None)
    assert polled["encrypted_secret"] != approved["encrypted_secret"]
    assert applicant.take(polled) == secret
    assert await machines.secrets.of(applicant.id) == secret
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert (shown["name"], shown["labels"], shown["status"]) == ("web-1", {"env": "lab"}, "offline")
    assert await machines.event_types() == ["agent.approved", "enrolment.applied"]
    got = [await news.next(1) for _ in range(3)]
    assert [(m.topic, m.data.get("status") or m.data["change"]) for m in got if m] == [
        ("enrolment", "pending"),
        ("enrolment", "approved"),
        ("agent", "approved"),
    ]
    items, _ = await machines.enrolments.page("approved", 1, 50, q="WEB")
    assert items[0]["decided_by"] == "ada"
    assert (await machines.enrolments.page(None, 1, 50, q="nothing%"))[1] == 0


async def test_the_secret_is_never_in_clear_in_the_database(machines: Machines) -> None:
    applicant = await machines.enrolled()
    async with machines.database.reading() as db:
        sealed = await db.scalar(select(Agent.agent_secret_key).where(Agent.id == applicant.id))
    assert sealed is not None
    assert base64.b64encode(applicant.secret).decode() not in sealed
    assert applicant.secret not in base64.b64decode(sealed[2:])
    other = Machines(machines.database, machines.clock, database_key=b"x" * 32)
    error = await refusal(other.secrets.of(applicant.id), Internal)
    assert error.code == "wrong_gateway_key"
    with pytest.raises(Internal):
        machines.secrets.unseal(new_id(), sealed)
    with pytest.raises(Internal):
        machines.secrets.unseal(applicant.id, "")
    with pytest.raises(ValueError, match="32 bytes"):
        Machines(machines.database, database_key=b"short")


async def test_a_second_application_returns_the_pending_one(machines: Machines) -> None:
    applicant = Applicant(machines)
    first = await applicant.apply()
    assert await applicant.apply() == first
    at_once = await asyncio.gather(*(applicant.apply() for _ in range(8)))
    assert at_once == [first] * 8


async def test_two_first_applications_at_once_make_one_row(machines: Machines) -> None:
    applicant = Applicant(machines)
    answers = await asyncio.gather(*(applicant.apply() for _ in range(8)))
    assert len({answer["apply_id"] for answer in answers}) == 1


@pytest.mark.parametrize(("offset", "ok"), [(-121, False), (-119, True), (119, True), (121, False)])
async def test_the_clock_may_be_off_by_two_minutes(
    machines: Machines, offset: int, ok: bool
) -> None:
    applicant = Applicant(machines)
    stamp = int(machines.clock.now()) + offset
    if ok:
        assert (await applicant.apply(timestamp=stamp))["status"] == "pending"
        return
    error = await refusal(applicant.apply(timestamp=stamp), Unauthenticated)
    assert error.code == "clock_skew"
    assert error.details["server_time"] == machines.clock.now()


async def test_a_replay_is_refused_also_after_a_restart(machines: Machines) -> None:
    applicant = Applicant(machines)
    body = applicant.body()
    await machines.enrolments.register(body, None)
    assert (await refusal(machines.enrolments.register(body, None), Conflict)).code == "replayed"
    restarted = machines.restarted()
    assert (await refusal(restarted.enrolments.register(body, None), Conflict)).code == "replayed"
    # the second body never made a row of its own, yet it is remembered, too
    second = applicant.body()
    await machines.enrolments.register(second, None)
    await machines.enrolments.reject(ADMIN, (await applicant.apply())["apply_id"])
    restarted = machines.restarted()
    assert (await refusal(restarted.enrolments.register(second, None), Conflict)).code == "replayed"


async def test_a_nonce_of_long_ago_is_refused_by_its_row(machines: Machines) -> None:
    applicant = Applicant(machines)
    await applicant.apply(nonce="n" * 20)
    await machines.enrolments.reject(ADMIN, (await applicant.apply())["apply_id"])
    machines.clock.advance(1000)
    machines.nonces._until_sweep = 1
    await applicant.apply(nonce="m" * 20)  # sweeps what has expired
    await machines.enrolments.reject(ADMIN, (await applicant.apply())["apply_id"])
    error = await refusal(applicant.apply(nonce="n" * 20), Conflict)
    assert error.code == "replayed"


def _pem(key: Any) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


async def test_every_refusal_has_its_own_code_and_text(machines: Machines) -> None:
    applicant = Applicant(machines)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    curve = ec.generate_private_key(ec.SECP256R1())
    cases: dict[str, tuple[bytes, int]] = {
        "bad_signature": (applicant.body(signature="AAAA"), 401),
        "weak_key": (Applicant(machines, key=weak).body(), 400),
        "not_rsa": (applicant.body(public_key=_pem(curve)), 400),
        "bad_key": (applicant.body(public_key="hello"), 400),
        "bad_field": (applicant.body(client_id="../../etc"), 400),
        "bad_body": (b"{", 400),
        "body_too_large": (applicant.body(hostname="x" * 17_000), 413),
        "clock_skew": (applicant.body(timestamp=1), 401),
        "join_token_malformed": (applicant.body(join_token="x; rm -rf /"), 400),
        "join_token_unknown": (applicant.body(join_token="upj_" + "A" * 43), 401),
    }
    texts: set[str] = set()
    for code, (body, status) in cases.items():
        error = await refusal(machines.enrolments.register(body, None))
        assert (error.code, error.status) == (code, status)
        texts.add(error.message)
    assert len(texts) == len(cases)
    async with machines.database.reading() as db:
        assert await db.scalar(select(func.count()).select_from(EnrolmentApplication)) == 0


async def test_a_signature_over_other_fields_is_refused(machines: Machines) -> None:
    applicant = Applicant(machines)
    honest = json.loads(applicant.body())
    other = _pem(KEYS[1])
    for name, value in [
        ("client_id", new_id()),
        ("hostname", "evil"),
        ("nonce", "another-nonce"),
        ("timestamp", honest["timestamp"] + 1),
        ("public_key", other),
    ]:
        forged = json.dumps(honest | {name: value}).encode()
        error = await refusal(machines.enrolments.register(forged, None), Unauthenticated)
        assert error.code == "bad_signature", name


async def test_rejection_is_final_for_the_application(machines: Machines) -> None:
    applicant = Applicant(machines)
    apply_id = (await applicant.apply())["apply_id"]
    for _ in range(2):
        answer = await machines.enrolments.reject(ADMIN, apply_id)
        assert answer == {"status": "rejected", "apply_id": apply_id}
    assert await machines.enrolments.status(apply_id, None) == answer
    error = await refusal(machines.enrolments.approve(ADMIN, apply_id), Conflict)
    assert error.code == "already_rejected"
    assert await machines.event_types("agent") == ["agent.rejected"]
    assert (await applicant.apply())["apply_id"] != apply_id


async def test_an_approved_one_cannot_be_rejected(machines: Machines) -> None:
    apply_id = (await Applicant(machines).apply())["apply_id"]
    await machines.enrolments.approve(ADMIN, apply_id)
    error = await refusal(machines.enrolments.reject(ADMIN, apply_id), Conflict)
    assert error.code == "already_approved"


@pytest.mark.parametrize("apply_id", ["nope", "", "../x", "00000000-0000-0000-0000-000000000000"])
async def test_unknown_applications_are_not_found(machines: Machines, apply_id: str) -> None:
    for asked in (
        machines.enrolments.status(apply_id, None),
        machines.enrolments.approve(ADMIN, apply_id),
        machines.enrolments.reject(ADMIN, apply_id),
    ):
        assert (await refusal(asked, NotFound)).code == "unknown_application"


async def test_two_approvals_at_once_make_one_machine(machines: Machines) -> None:
    applicant = Applicant(machines)
    apply_id = (await applicant.apply())["apply_id"]
    answers = await asyncio.gather(
        *(machines.enrolments.approve(ADMIN, apply_id) for _ in range(6))
    )
    assert len({applicant.take(answer) for answer in answers}) == 1
    assert (await machines.event_types("agent")).count("agent.approved") == 1


async def test_approve_and_reject_at_once_have_one_winner(machines: Machines) -> None:
    for _ in range(4):
        applicant = Applicant(machines)
        apply_id = (await applicant.apply())["apply_id"]
        results = await asyncio.gather(
            machines.enrolments.approve(ADMIN, apply_id),
            machines.enrolments.reject(ADMIN, apply_id),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Conflict) for result in results) == 1
        status = (await machines.enrolments.status(apply_id, None))["status"]
        winner = next(result for result in results if isinstance(result, dict))
        assert winner["status"] == status


async def test_two_keys_of_one_id_approved_at_once_leave_one_machine(machines: Machines) -> None:
    for _ in range(3):
        client_id = new_id()
        rivals = [Applicant(machines, id=client_id, key=key) for key in KEYS]
        ids = [(await rival.apply())["apply_id"] for rival in rivals]
        items, _ = await machines.enrolments.page("pending", 1, 50)
        assert [item["warning"] for item in items] == ["rival_key"] * 2
        await asyncio.gather(*(machines.enrolments.approve(ADMIN, one) for one in ids))
        async with machines.database.reading() as db:
            count = await db.scalar(
                select(func.count()).select_from(Agent).where(Agent.id == client_id)
            )
        assert count == 1
        outcomes = await asyncio.gather(
            *(machines.enrolments.status(one, None) for one in ids), return_exceptions=True
        )
        assert sum(isinstance(outcome, Gone) for outcome in outcomes) == 1


async def test_another_key_waits_visibly_and_takes_nothing_before_approval(
    machines: Machines,
) -> None:
    owner = await machines.enrolled("db", labels={"env": "prod"})
    thief = Applicant(machines, "db", key=KEYS[1], id=owner.id)
    answer = await thief.apply()
    assert answer["status"] == "pending"
    items, _ = await machines.enrolments.page("pending", 1, 50)
    assert items[0]["warning"] == "key_changed"
    assert "another key" in items[0]["warning_text"]
    assert await machines.secrets.of(owner.id) == owner.secret
    token = (await machines.tokens.create(ADMIN, uses=5))["token"]
    by_token = await thief.apply(join_token=token)
    assert by_token == answer, "a token must not let a machine become another"
    assert (await machines.tokens.page(1, 10))[0][0]["used"] == 0
    await owner.beat()

    replaced: list[str] = []

    async def hook(agent_id: str) -> None:
        replaced.append(agent_id)

    machines.enrolments.on_reissued(hook)
    thief.take(await machines.enrolments.approve(ADMIN, answer["apply_id"]))
    assert replaced == [owner.id]
    assert (await refusal(owner.beat(timestamp=machines.clock.now() + 1))).code == "bad_signature"
    await thief.beat()
    assert (await machines.agents.show(ADMIN, owner.id))["labels"] == {"env": "prod"}


async def test_the_same_key_again_is_issued_a_new_secret(machines: Machines) -> None:
    applicant = await machines.enrolled("box")
    old = applicant.secret
    await applicant.beat()
    answer = await applicant.apply()
    assert answer["status"] == "pending"
    applicant.take(await machines.enrolments.approve(ADMIN, answer["apply_id"], name="renamed"))
    assert applicant.secret != old
    await applicant.beat(timestamp=machines.clock.now() - 5)  # nothing was signed with it before
    assert (await machines.agents.show(ADMIN, applicant.id))["name"] == "renamed"


async def test_a_deleted_machine_goes_back_to_pending_and_starts_afresh(
    machines: Machines,
) -> None:
    applicant = await machines.enrolled("box", labels={"env": "prod"})
    user = await machines.user("bob")
    await machines.agents.update(ADMIN, applicant.id, {"allowed_users": [user.user_id]})
    first = (await machines.enrolments.page("approved", 1, 50))[0][0]["id"]
    await machines.agents.delete(ADMIN, applicant.id)
    assert (await refusal(applicant.beat(), NotFound)).code == "unknown_agent"
    assert (await refusal(machines.enrolments.status(first, None), Gone)).code == (
        "application_superseded"
    )
    assert isinstance(await refusal(machines.enrolments.approve(ADMIN, first)), Gone)
    answer = await applicant.apply()
    assert answer["status"] == "pending"
    applicant.take(await machines.enrolments.approve(ADMIN, answer["apply_id"]))
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert (shown["labels"], shown["allowed_users"]) == ({}, [])
    await applicant.beat()


async def test_a_token_from_before_its_deletion_does_not_bring_a_machine_back(
    machines: Machines,
) -> None:
    made = await machines.tokens.create(ADMIN, uses=5)
    applicant = Applicant(machines, "box")
    assert (await applicant.apply(join_token=made["token"]))["status"] == "approved"
    machines.clock.advance(60)
    await machines.agents.delete(ADMIN, applicant.id)
    machines.clock.advance(60)
    assert (await applicant.apply(join_token=made["token"]))["status"] == "pending"
    other = Applicant(machines, "other")
    assert (await other.apply(join_token=made["token"]))["status"] == "approved"
    newer = await machines.tokens.create(ADMIN, uses=1)
    assert (await applicant.apply(join_token=newer["token"]))["status"] == "approved"


async def test_names_are_made_unique_but_given_ones_must_be_free(machines: Machines) -> None:
    names = []
    for hostname in ("web", "WEB", "web", "…", "web.example.org"):
        applicant = Applicant(machines, hostname)
        apply_id = (await applicant.apply())["apply_id"]
        await machines.enrolments.approve(ADMIN, apply_id)
        names.append((await machines.agents.show(ADMIN, applicant.id))["name"])
    assert names == ["web", "WEB-2", "web-3", "machine", "web.example.org"]
    apply_id = (await Applicant(machines).apply())["apply_id"]
    error = await refusal(machines.enrolments.approve(ADMIN, apply_id, name="Web"), Conflict)
    assert error.code == "name_taken"
    bad = await refusal(machines.enrolments.approve(ADMIN, apply_id, name="-x"), InvalidRequest)
    assert bad.code == "bad_name"
    bad = await refusal(machines.enrolments.approve(ADMIN, apply_id, labels={"": "x"}))
    assert bad.code == "bad_labels"
    assert (await machines.enrolments.status(apply_id, None))["status"] == "pending"


async def test_caps_and_rates(database: Database) -> None:
    limits = EnrolmentLimits(
        pending=3, pending_per_address=2, registers_per_minute=9, polls_per_minute=2
    )
    machines = Machines(database, limits=limits)
    for _ in range(2):
        await Applicant(machines, ip="192.0.2.1").apply()
    error = await refusal(Applicant(machines, ip="192.0.2.1").apply(), TooManyRequests)
    assert error.code == "too_many_pending"
    await Applicant(machines, ip="192.0.2.2").apply()
    assert isinstance(await refusal(Applicant(machines, ip="192.0.2.3").apply()), TooManyRequests)
    token = (await machines.tokens.create(ADMIN, uses=5))["token"]
    joined = Applicant(machines, ip="192.0.2.3")
    joined.take(await joined.apply(join_token=token))
    machines.clock.advance(limits.stale_after + 1)
    fresh = await Applicant(machines, ip="192.0.2.3").apply()
    items, total = await machines.enrolments.page("pending", 1, 50)
    assert (total, items[0]["id"]) == (1, fresh["apply_id"])

    for _ in range(2):
        await machines.enrolments.status(fresh["apply_id"], "192.0.2.7")
    error = await refusal(machines.enrolments.status(fresh["apply_id"], "192.0.2.7"))
    assert (error.status, error.retry_after is not None) == (429, True)
    for _ in range(9):
        await refusal(machines.enrolments.register(b"", "192.0.2.8"))
    assert (await refusal(machines.enrolments.register(b"", "192.0.2.8"))).status == 429


async def test_too_large_comes_before_anything_is_parsed(machines: Machines) -> None:
    assert isinstance(await refusal(machines.enrolments.register(b"[" * 20_000, None)), TooLarge)
