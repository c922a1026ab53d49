"""The agent's way in, against the real routes and against a gateway that has bad days."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.http.people_app import App, people_app
from underpass.agent import state as states
from underpass.agent.corrected_clock import CorrectedClock
from underpass.agent.enrolment import EnrolmentRefused, enrol
from underpass.agent.facts import Facts
from underpass.agent.heartbeat import Heartbeat, MachineUnknown
from underpass.agent.signed_http import (
    MAX_ANSWER,
    GatewayRefused,
    GatewayUnreachable,
    SignedHttp,
)
from underpass.agent.state import AgentState
from underpass.core.clock import ManualClock
from underpass.core.errors import Unavailable

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "KEY_BITS", 2048)


class Waits:
    """A sleep that takes no time, remembers how long it would have been, and acts between."""

    def __init__(self, *actions: Callable[[], Any]) -> None:
        self.actions = list(actions)
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        assert len(self.slept) < 100, "it waits for ever"
        if self.actions:
            result = self.actions.pop(0)()
            if hasattr(result, "__await__"):
                await result


def low(first: float, _second: float) -> float:
    return first


def client(state: AgentState, transport: Any, clock: Any = None) -> SignedHttp:
    return SignedHttp(
        "http://localhost:3000/",
        CorrectedClock(clock or ManualClock()),
        agent_id=state.client_id(),
        secret=state.secret,
        transport=transport,
    )


def scripted(*answers: tuple[int, Any] | Exception) -> tuple[httpx.MockTransport, list[Any]]:
    """A gateway that says these things in turn, the last one for ever; and what it was asked."""
    asked: list[Any] = []
    script = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content) if request.content else request.url)
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        headers = {"Retry-After": "77"} if status == 429 else {}
        if isinstance(body, bytes):
            return httpx.Response(status, content=body, headers=headers)
        return httpx.Response(status, json=body, headers=headers)

    return httpx.MockTransport(handle), asked


@pytest.fixture
def state(tmp_path: Path) -> AgentState:
    return AgentState(tmp_path / "agent")


async def pending_id(app: App) -> str:
    items, _ = await app.services.enrolments.page("pending", 1, 10)
    return str(items[0]["id"])


async def test_it_applies_polls_and_keeps_the_secret(state: AgentState, tmp_path: Path) -> None:
    async with people_app(tmp_path) as app:
        admin = await app.admin()

        async def approve() -> None:
            await admin.post("/api/v1/approve", json={"id": await pending_id(app)})

        waits = Waits(lambda: None, approve)
        http = client(state, httpx.ASGITransport(app.app), app.clock)
        await enrol(state, http, hostname="box", sleep=waits, jitter=low)
        assert waits.slept == [8.0, 8.0]
        assert state.secret() == await app.services.agent_secrets.of(state.client_id())
        assert state.gateway_key() == app.services.secrets.public_key
        assert state.server() == "http://localhost:3000"
        heartbeat = Heartbeat(http, Facts(), labels={"rack": "7"})
        await heartbeat.beat()
        shown = (await admin.get(f"/api/v1/assets/{state.client_id()}")).json()["data"]
        assert shown["labels"] == {}, "what a machine says of itself labels nothing"
        assert shown["static_info"]["labels"] == {"rack": "7"}
        assert shown["static_info"]["cpu_count"] >= 1
        await http.close()


async def test_a_wrong_clock_is_corrected_once(state: AgentState, tmp_path: Path) -> None:
    async with people_app(tmp_path) as app:
        made = await app.services.join_tokens.create(None)
        clock = ManualClock(app.clock.now() - 4000)
        http = client(state, httpx.ASGITransport(app.app), clock)
        await enrol(state, http, hostname="box", join_token=made["token"], sleep=Waits())
        assert http.clock.offset == pytest.approx(4000)
        heartbeat = Heartbeat(http, Facts())
        await heartbeat.beat()
        for one in (app.clock, clock):
            one.advance(30)
        clock.jump(500)  # and again later, between two heartbeats
        await heartbeat.beat()
        assert http.clock.offset == pytest.approx(3500)
        clock.jump(-60)  # a little back: what is signed still only grows
        await heartbeat.beat()
        reborn = Heartbeat(client(state, httpx.ASGITransport(app.app), clock), Facts())
        reborn._http.clock.offset = http.clock.offset
        await reborn.beat()  # a new process learns from the refusal what the last one signed
        await reborn._http.close()
        await http.close()


async def test_a_rejection_is_final_and_followed_by_a_long_wait(
    state: AgentState, tmp_path: Path
) -> None:
    async with people_app(tmp_path) as app:
        admin = await app.admin()

        async def decide(what: str) -> None:
            await admin.post(f"/api/v1/{what}", json={"id": await pending_id(app)})

        waits = Waits(
            lambda: decide("reject"), lambda: None, lambda: decide("reject"), lambda: None,
            lambda: decide("approve"),
        )  # fmt: skip
        http = client(state, httpx.ASGITransport(app.app), app.clock)
        await enrol(state, http, hostname="box", sleep=waits, jitter=low)
        assert waits.slept == [8.0, 60.0, 8.0, 120.0, 8.0]
        assert state.enrolled
        await http.close()


async def test_a_bad_token_is_refused_for_good(state: AgentState, tmp_path: Path) -> None:
    async with people_app(tmp_path) as app:
        http = client(state, httpx.ASGITransport(app.app), app.clock)
        with pytest.raises(EnrolmentRefused) as refused:
            await enrol(state, http, hostname="box", join_token="upj_" + "x" * 43, sleep=Waits())
        assert refused.value.code == "join_token_unknown"
        await http.close()


async def test_bad_days_of_the_gateway(state: AgentState) -> None:
    transport, asked = scripted(
        httpx.ConnectError("refused"),
        (500, b"oops"),
        (200, {"status": "odd"}),
        (429, {"code": "too_many_requests", "message": "slow"}),
        (401, {"code": "clock_skew", "message": "late", "server_time": "soon"}),
        (200, {"status": "approved", "encrypted_secret": "x", "gateway_key": "y"}),
        (200, {"status": "pending", "apply_id": "a"}),
        (404, {"code": "unknown_application", "message": "gone"}),
        (400, {"code": "weak_key", "message": "weak", "hint": "more bits"}),
    )
    waits = Waits()
    http = client(state, transport)
    with pytest.raises(EnrolmentRefused) as refused:
        await enrol(state, http, hostname="x" * 300, sleep=waits, jitter=low)
    assert str(refused.value) == "weak more bits"
    assert len(asked) == 9
    assert 77 in waits.slept
    assert len({body["nonce"] for body in asked if isinstance(body, dict)}) == 8
    await http.close()


async def test_what_is_no_gateway_is_said(state: AgentState) -> None:
    for answer, code in [
        ((200, b"<html>"), "no_gateway"),
        ((404, b"nothing"), "no_gateway"),
        ((302, b""), "no_gateway"),
        ((200, [1]), "no_gateway"),
        ((200, b"x" * (MAX_ANSWER + 1)), "gateway_unreachable"),
    ]:
        http = client(state, scripted(answer)[0])
        with pytest.raises(GatewayUnreachable) as unreachable:
            await http.post("/x", {})
        assert unreachable.value.code == code
        await http.close()
    http = client(state, scripted((502, b"bad gateway"))[0])
    with pytest.raises(GatewayRefused) as refused:
        await http.post("/x", {})
    assert (refused.value.status, refused.value.code) == (502, "http_error")
    with pytest.raises(Unavailable):
        await http.signed_get("/x")
    state.keep_enrolment(b"s" * 32, gateway_key=None, server="x")
    await http.close()
    http = client(state, scripted((200, [1, 2]))[0])
    assert await http.signed_get("/x?y=1") == [1, 2]
    await http.close()


async def test_an_unknown_machine_stops_after_being_told_twice(state: AgentState) -> None:
    state.keep_enrolment(b"s" * 32, gateway_key=None, server="x")
    unknown = (404, {"code": "unknown_agent", "message": "who?"})
    transport, asked = scripted((503, {"code": "unavailable", "message": "x"}), unknown)
    http = client(state, transport)
    waits = Waits()
    with pytest.raises(MachineUnknown):
        await Heartbeat(http, Facts(), sleep=waits, jitter=low).run()
    assert len(asked) == 3
    assert waits.slept == [27.0, 27.0]
    await http.close()


async def test_heartbeats_go_over_the_link_when_there_is_one(state: AgentState) -> None:
    state.keep_enrolment(b"s" * 32, gateway_key=None, server="x")
    asked: list[dict[str, Any]] = []

    class FakeLink:
        answers: tuple[dict[str, Any], ...] = (
            {"status": "refused", "code": "replayed", "message": "x", "http_status": 409,
             "last_timestamp": 1_700_000_100.0},
            {"status": "ok", "server_time": 1.0},
            {"status": "refused", "code": "clock_skew", "message": "x", "server_time": True},
        )  # fmt: skip

        async def request(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
            assert kind == "heartbeat"
            asked.append(body)
            return self.answers[len(asked) - 1]

    http = client(state, scripted(httpx.ConnectError("not over HTTP"))[0])
    link: Any = FakeLink()
    heartbeat = Heartbeat(http, Facts(), link=lambda: link, tty_status=lambda: {"sessions": [1]})
    await heartbeat.beat()
    assert [body["timestamp"] for body in asked] == [1_700_000_000.0, 1_700_000_100.001]
    assert asked[0]["tty_status"] == {"sessions": [1]}
    assert "static_info" in asked[1]["metrics"]
    with pytest.raises(GatewayRefused):
        await heartbeat.beat()
    assert "static_info" not in asked[2]["metrics"]
    await http.close()


def test_the_corrected_clock() -> None:
    machine = ManualClock(1000)
    clock = CorrectedClock(machine)
    assert [clock.stamp(), clock.stamp(), clock.stamp()] == [1000, 1000.001, 1000.002]
    machine.jump(-500)
    assert clock.stamp() == 1000.003
    assert clock.correct(2000)
    assert clock.stamp() == 2000
    for odd in (None, "x", True, -1, 1e12):
        assert not clock.correct(odd)
    clock.skip_past(2100)
    assert clock.stamp() == 2100.001
    clock.skip_past(9e9)
    clock.skip_past(None)
    assert clock.stamp() == 2100.002
    assert clock.monotonic() == machine.monotonic()
