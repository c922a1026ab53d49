"""Heartbeats: the checks, one by one, without I/O; then the service on every database."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.control.machines import ADMIN, Applicant, Machines
from underpass.control.heartbeats import (
    HEARTBEAT_PATH,
    MAX_INFO,
    Heartbeat,
    check_heartbeat,
)
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unauthenticated,
    UnderpassError,
)
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.wire.signatures import SignedBody, parse_signed_body, sign_body

ID = new_id()
SECRET = b"s" * 32
NOW = 1_700_000_000.0


def signed(secret: bytes = SECRET, **changes: Any) -> SignedBody:
    fields = {"id": ID, "timestamp": NOW, "nonce": "n" * 16, "metrics": {}} | changes
    return parse_signed_body(sign_body(secret, "POST", HEARTBEAT_PATH, fields))


def check(body: SignedBody, **changes: Any) -> Heartbeat:
    given: dict[str, Any] = {"secret": SECRET, "last": None, "now": NOW} | changes
    return check_heartbeat(body, **given)


def refused(body: SignedBody, **changes: Any) -> UnderpassError:
    with pytest.raises(UnderpassError) as caught:
        check(body, **changes)
    return caught.value


def test_a_good_one_is_read() -> None:
    heartbeat = check(
        signed(
            metrics={
                "static_info": {"agent_version": "0.1"},
                "dynamic_info": {"cpu_percent": 1},
                "mode": "poll",
            },
            tty_status={"active_sessions": 2},
        ),
        last=NOW - 0.001,
        linked_id=ID,
    )
    assert (heartbeat.version, heartbeat.mode) == ("0.1", "poll")
    assert heartbeat.tty_status == {"active_sessions": 2}


def test_what_it_leaves_out_is_not_known() -> None:
    heartbeat = check(signed())
    assert heartbeat.static_info is None
    assert (heartbeat.version, heartbeat.mode, heartbeat.dynamic_info) == (None, "link", {})
    assert check(signed(metrics={"static_info": {"agent_version": 5}})).version is None
    assert check(signed(metrics={"static_info": {"agent_version": "\n"}})).version is None
    assert check(signed(metrics={"mode": "odd"})).mode == "link"


@pytest.mark.parametrize("offset", [-120, -1, 0, 120])
def test_within_two_minutes(offset: float) -> None:
    assert check(signed(timestamp=NOW + offset)).timestamp == NOW + offset


@pytest.mark.parametrize(("offset", "word"), [(-120.001, "behind"), (120.5, "ahead")])
def test_skew_is_refused_with_the_servers_time(offset: float, word: str) -> None:
    error = refused(signed(timestamp=NOW + offset))
    assert isinstance(error, Unauthenticated)
    assert (error.code, error.details) == ("clock_skew", {"server_time": NOW})
    assert word in error.message


def test_an_unknown_machine_is_told_to_enrol() -> None:
    error = refused(signed(), secret=None)
    assert isinstance(error, NotFound)
    assert error.code == "unknown_agent"


def test_another_secret_is_refused() -> None:
    assert refused(signed(), secret=b"t" * 32).code == "bad_signature"


@pytest.mark.parametrize("last", [NOW, NOW + 1])
def test_only_strictly_newer_ones_count(last: float) -> None:
    error = refused(signed(), last=last)
    assert isinstance(error, Conflict)
    assert error.code == "replayed"
    assert error.details == {"last_timestamp": last, "server_time": NOW}


def test_a_replay_with_a_bad_signature_learns_nothing_of_the_last() -> None:
    assert refused(signed(b"t" * 32), last=NOW).code == "bad_signature"


def test_a_link_carries_its_own_machines_heartbeats_only() -> None:
    error = refused(signed(), linked_id=new_id())
    assert isinstance(error, Forbidden)
    assert error.code == "wrong_agent"


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": []},
        {"metrics": {"static_info": "x"}},
        {"metrics": {"dynamic_info": 1}},
        {"tty_status": "x"},
        {"metrics": {"static_info": {"x": "y" * MAX_INFO}}},
        {"tty_status": {"x": "y" * MAX_INFO}},
    ],
)
def test_odd_metrics_are_refused(changes: dict[str, Any]) -> None:
    error = refused(signed(**changes))
    assert isinstance(error, InvalidRequest)
    assert error.code == "bad_field"


# -- the service ------------------------------------------------------------------------------


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database)


async def refusal(awaitable: Any) -> UnderpassError:
    with pytest.raises(UnderpassError) as caught:
        await awaitable
    return caught.value


async def test_a_heartbeat_fills_the_machine_and_makes_it_known(machines: Machines) -> None:
    applicant = await machines.enrolled()
    heard: list[Heartbeat] = []
    machines.heartbeats.on_heartbeat(heard.append)
    answer = await applicant.beat()
    assert answer == {"status": "ok", "server_time": machines.clock.now()}
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert shown["version"] == "1.2.3"
    assert shown["static_info"]["os"] == "Debian"
    assert shown["dynamic_info"]["cpu_percent"] == 12.5
    assert shown["address"] == "192.0.2.1"
    assert shown["last_seen_at"] is not None
    assert shown["status"] == "online", "heard; the link may still come"
    assert [one.id for one in heard] == [applicant.id]
    points = await machines.agents.metrics(ADMIN, applicant.id)
    assert [(p["cpu"], p["memory"], p["disk"], p["load"]) for p in points] == [
        (12.5, 40.0, 80.5, 0.5)
    ]
    machines.clock.advance(30)
    await machines.presence.tick()
    assert (await machines.agents.show(ADMIN, applicant.id))["status"] == "degraded"
    await applicant.beat(metrics={"dynamic_info": {}, "mode": "poll"})
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert (shown["version"], shown["status"]) == ("1.2.3", "online")


async def test_a_heartbeat_as_in_spec_1_without_nonce(machines: Machines) -> None:
    applicant = await machines.enrolled()
    fields = {"id": applicant.id, "timestamp": int(machines.clock.now()), "metrics": {}}
    body = json.dumps(sign_body(applicant.secret, "POST", HEARTBEAT_PATH, fields)).encode()
    assert (await machines.heartbeats.receive(body))["status"] == "ok"


async def test_a_replay_is_refused_also_after_a_restart(machines: Machines) -> None:
    applicant = await machines.enrolled()
    body = applicant.heartbeat_body()
    await machines.heartbeats.receive(body)
    for gateway in (machines, machines.restarted()):
        error = await refusal(gateway.heartbeats.receive(body))
        assert (error.code, error.status) == ("replayed", 409)
        assert error.details["last_timestamp"] == machines.clock.now()
    assert (await refusal(applicant.beat(timestamp=machines.clock.now() - 1))).code == "replayed"


async def test_of_two_copies_at_once_one_counts(machines: Machines) -> None:
    applicant = await machines.enrolled()
    body = applicant.heartbeat_body()
    results = await asyncio.gather(
        *(machines.heartbeats.receive(body) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(result, dict) for result in results) == 1
    assert {getattr(r, "code", "") for r in results if not isinstance(r, dict)} == {"replayed"}


async def test_every_refusal_has_its_own_code(machines: Machines) -> None:
    applicant = await machines.enrolled()
    stranger = Applicant(machines, secret=b"x" * 32)
    now = machines.clock.now()
    cases = {
        "clock_skew": applicant.heartbeat_body(timestamp=now - 121),
        "unknown_agent": stranger.heartbeat_body(),
        "bad_signature": Applicant(machines, id=applicant.id, secret=b"x" * 32).heartbeat_body(),
        "bad_body": b"[]",
        "bad_field": b"{}",
        "body_too_large": b" " * (257 * 1024),
    }
    texts = set()
    for code, body in cases.items():
        error = await refusal(machines.heartbeats.receive(body))
        assert error.code == code
        texts.add(error.message)
    assert len(texts) == len(cases)
    assert isinstance(await refusal(machines.heartbeats.receive(b" " * (257 * 1024))), TooLarge)
    over_link = json.loads(applicant.heartbeat_body())
    error = await refusal(machines.heartbeats.receive(over_link, linked_id=new_id()))
    assert error.code == "wrong_agent"
    assert await machines.heartbeats.receive(over_link, linked_id=applicant.id)


@pytest.mark.parametrize("beats_before", [0, 1])
async def test_deleted_while_its_heartbeat_is_on_the_way(
    machines: Machines, beats_before: int
) -> None:
    applicant = await machines.enrolled()
    for _ in range(beats_before):
        await applicant.beat()
        machines.clock.advance(1)
    store = machines.heartbeats._store

    async def slow(heartbeat: Heartbeat, *rest: Any) -> bool:
        await machines.agents.delete(ADMIN, heartbeat.id)
        return await store(heartbeat, *rest)

    machines.heartbeats._store = slow  # type: ignore[method-assign]
    assert (await refusal(applicant.beat())).code == "unknown_agent"
    assert len(machines.presence.board) == 0


async def test_what_is_remembered_never_outlives_the_database(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.control.heartbeats.MAX_KNOWN", 1)
    applicant, other = await machines.enrolled("one"), await machines.enrolled("two")
    await applicant.beat()
    await other.beat()
    assert list(machines.heartbeats._known) == [other.id]
    machines.clock.advance(1)
    old = Applicant(machines, id=other.id, secret=other.secret)
    answer = await other.apply()
    other.take(await machines.enrolments.approve(ADMIN, answer["apply_id"]))
    assert (await refusal(old.beat())).code == "bad_signature", "renewed: the old secret is void"
    await other.beat()
    machines.clock.advance(1)
    await machines.agents.delete(ADMIN, other.id)
    assert (await refusal(other.beat())).code == "unknown_agent"


async def test_signed_requests(machines: Machines) -> None:
    from underpass.wire.signatures import sign_headers

    applicant = await machines.enrolled()

    def headers(path: str = "/api/v1/agent/tty/pending-sessions?a=1", **changes: Any) -> Any:
        given = {
            "agent_id": applicant.id,
            "timestamp": machines.clock.now(),
            "nonce": new_id(),
        } | changes
        made = sign_headers(applicant.secret, "GET", path, **given)
        return {key.lower(): value for key, value in made.items()}

    path = "/api/v1/agent/tty/pending-sessions?a=1"
    good = headers()
    assert await machines.signed.verify("GET", path, good) == applicant.id
    for gateway in (machines, machines.restarted()):
        assert (await refusal(gateway.signed.verify("GET", path, good))).code == "replayed"
    for bad, code in [
        (headers(path="/other"), "bad_signature"),
        (headers(timestamp=machines.clock.now() - 121), "clock_skew"),
        (headers(agent_id=new_id()), "unknown_agent"),
        ({}, "unsigned"),
        (headers() | {"x-underpass-signature": "x"}, "unsigned"),
        (headers() | {"x-underpass-timestamp": "nan"}, "unsigned"),
    ]:
        assert (await refusal(machines.signed.verify("GET", path, bad))).code == code
