"""What people open over their own link: authorised, relayed, recorded, and cut in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.gateway.entrypoints.account import FakeQuotas, FakeTraffic
from tests.gateway.gateways import ADMIN, AGENT_ID, FakeEvents
from underpass.control.access import AgentView
from underpass.control.guest_quota import PER_GUEST, GuestQuota
from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.clock import SystemClock
from underpass.core.errors import Conflict, InvalidRequest, NotFound
from underpass.core.supervisor import Supervisor
from underpass.gateway.client_streams import ClientStreams, needed_action
from underpass.gateway.entrypoints.allowances import Allowances
from underpass.gateway.guest_streams import GuestStreams
from underpass.gateway.registry import LinkRegistry
from underpass.gateway.router import Router
from underpass.links.link import Link, Opening, OpenRefused, Peer
from underpass.links.memory import memory_links
from underpass.links.stream import StreamReset

BOB = Subject("u-2", "bob", "user")


@dataclass
class Row:
    id: str = AGENT_ID
    name: str = "web-1"
    allowed_users: list[str] = field(default_factory=lambda: ["u-2"])
    is_deleted: bool = False
    status: str = "online"


class FakeAgents:
    def __init__(self) -> None:
        self.row = Row()
        self.fails = False

    async def find(self, subject: Subject, id_or_name: str) -> Row:
        view = AgentView.of(self.row)
        seen = subject.is_admin or subject.user_id in view.allowed_users
        if id_or_name not in (self.row.id, self.row.name) or not seen:
            raise NotFound("There is no such machine.")
        return self.row

    async def view(self, agent_id: str) -> AgentView | None:
        if self.fails:
            raise OSError("the database is away")
        return AgentView.of(self.row)


class FakeOffers:
    """Bob's neighbour Eve has accepted an offer of one target."""

    def __init__(self) -> None:
        self.lent = {("u-3", AGENT_ID, "tcp:127.0.0.1:3306")}
        self.maintenance = False

    async def allows(
        self, subject: Subject, agent_id: str, target: str, *, starting: bool = False
    ) -> str | None:
        if (subject.user_id, agent_id, target) not in self.lent:
            return None
        if starting and self.maintenance:
            raise Conflict("The machine is under maintenance.", code="agent_maintenance")
        return "offer:o-1"


class FakeAudit:
    def __init__(self) -> None:
        self.session_id = "s-1"
        self.tap = self
        self.seen: list[tuple[str, bytes]] = []
        self.began: list[tuple[Any, ...]] = []
        self.over = False

    def a_to_b(self, data: bytes) -> None:
        self.seen.append(("in", data))

    def b_to_a(self, data: bytes) -> None:
        self.seen.append(("out", data))

    @asynccontextmanager
    async def __call__(self, *what: Any) -> AsyncIterator[FakeAudit]:
        self.began.append(what)
        try:
            yield self
        finally:
            self.over = True


async def until(true: Callable[[], object], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)


class World:
    """One agent that echoes, and people's links."""

    def __init__(self, supervisor: Supervisor, audit: FakeAudit | None) -> None:
        self.supervisor = supervisor
        self.agents = FakeAgents()
        self.offers = FakeOffers()
        self.events = FakeEvents()
        self.bus = LiveBus()
        self.registry = LinkRegistry(supervisor)
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.links: list[Link] = []
        self.gate: asyncio.Event | None = None
        self.traffic = FakeTraffic()
        self.allowances = Allowances(FakeQuotas(), self.traffic, SystemClock(), self.bus)
        self.streams = ClientStreams(
            router=Router(self.registry),
            agents=self.agents,
            events=self.events,  # type: ignore[arg-type]
            bus=self.bus,
            exec_audit=audit,
            offers=self.offers,
            allowances=self.allowances,
            recheck=0.05,
        )

    def link_agent(self) -> None:
        agent, node = memory_links(Peer("agent", AGENT_ID, "web-1", None, "1", frozenset()))
        agent.on_open(self._echo)
        agent.start()
        self.registry.add_agent(node)
        node.start()
        self.links += [agent, node]

    async def _echo(self, opening: Opening) -> None:
        self.opened.append((opening.target, opening.meta))
        if self.gate is not None:
            await self.gate.wait()
        stream = opening.accept()
        while data := await stream.read():
            stream.write(data)
        await stream.write_eof()

    def person(self, subject: Subject) -> Link:
        client, node = memory_links(
            Peer("client", subject.user_id, subject.username, None, "1", frozenset())
        )
        self.streams.serve(node, subject)
        self.registry.add_client(node, subject)
        node.start()
        self.links += [client, node]
        return client


@asynccontextmanager
async def world(audit: FakeAudit | None = None, *, agent: bool = True) -> AsyncIterator[World]:
    async with Supervisor("t") as supervisor:
        made = World(supervisor, audit)
        if agent:
            made.link_agent()
        try:
            yield made
        finally:
            for link in made.links:
                await link.close()
            await made.streams.stop()


META = {"agent": "web-1"}


@pytest.mark.parametrize(
    ("target", "action"),
    [
        ("exec", "shell"),
        ("tcp:127.0.0.1:22", "shell"),
        ("tcp:[::1]:22", "shell"),
        ("tcp:LocalHost.:22", "shell"),
        ("tcp:127.9.9.9:22", "shell"),
        ("tcp:127.0.0.1:2222", "forward"),
        ("tcp:10.0.0.1:22", "forward"),
        ("tcp:db:5432", "forward"),
        ("unix:/run/x", "forward"),
        ("udp:h:1", "forward"),
        ("udp", "forward"),
    ],
)
def test_what_a_target_needs(target: str, action: str) -> None:
    assert needed_action(target) == action


@pytest.mark.parametrize("target", ["pty", "exec:x", "udpx", "", "file:/etc/passwd"])
def test_what_clients_do_not_open(target: str) -> None:
    with pytest.raises(InvalidRequest):
        needed_action(target)


class TestOpening:
    async def test_a_stream_is_relayed_and_recorded(self) -> None:
        async with world() as here:
            client = here.person(BOB)
            stream = await client.open("tcp:127.0.0.1:22", META)
            assert metrics.STREAMS.labels("tcp").value == 1
            assert len(here.streams) == 1
            stream.write(b"hello")
            await stream.write_eof()
            got = b""
            while data := await stream.read():
                got += data
            assert got == b"hello"
            assert here.opened == [("tcp:127.0.0.1:22", {"user": {"id": "u-2", "username": "bob"}})]
            await until(lambda: here.events.named("stream.closed"))
            assert len(here.streams) == 0
            assert metrics.STREAMS.labels("tcp").value == 0
            (opened,) = here.events.named("stream.opened")
            assert opened["actor"] is BOB
            assert opened["rule"] == "allowed_users"
            assert opened["details"] == {"target": "tcp:127.0.0.1:22"}
            (closed,) = here.events.named("stream.closed")
            assert closed["details"] == {"target": "tcp:127.0.0.1:22", "sent": 5, "received": 5}

    @pytest.mark.parametrize(
        ("subject", "target", "meta", "status", "code"),
        [
            (Subject("u-3", "eve", "user"), "tcp:h:1", META, 404, "not_found"),
            (Subject("u-3", "aud", "auditor"), "tcp:h:1", META, 404, "not_found"),
            (BOB, "tcp:h:1", {"agent": "other"}, 404, "not_found"),
            (BOB, "tcp:h:1", {}, 400, "invalid_meta"),
            (BOB, "tcp:h:1", {"agent": 7}, 400, "invalid_meta"),
            (BOB, "tcp:h:1", {"agent": "x" * 254}, 400, "invalid_meta"),
            (BOB, "pty", META, 400, "invalid_target"),
            (BOB, "exec", META, 403, "forbidden"),
        ],
    )
    async def test_refusals(
        self, subject: Subject, target: str, meta: dict[str, Any], status: int, code: str
    ) -> None:
        async with world() as here:
            client = here.person(subject)
            with pytest.raises(OpenRefused) as refused:
                await client.open(target, meta)
            assert (refused.value.status, refused.value.code) == (status, code)
            assert here.opened == []
            if code in {"not_found", "invalid_target"}:
                await until(lambda: here.events.named("stream.denied"))
                assert here.events.named("stream.denied")[0]["outcome"] == "denied"

    async def test_what_is_between_client_and_agent_is_passed_on(self) -> None:
        async with world() as here:
            client = here.person(BOB)
            resumes = metrics.STREAM_RESUMES.labels("tcp")
            before = resumes._value.get()
            own = {"resume": {"id": "a", "new": True}, "layers": {"compression": "zstd"}}
            first = await client.open("tcp:h:1", {**META, **own, "user": "x", "other": 1})
            user = {"id": "u-2", "username": "bob"}
            assert here.opened == [("tcp:h:1", {**own, "user": user})]
            await until(lambda: here.events.named("stream.opened"))
            assert resumes._value.get() == before
            again = {"resume": {"id": "a", "new": False}}
            second = await client.open("tcp:h:1", {**META, **again})
            await until(lambda: here.events.named("stream.resumed"))
            assert here.opened[1] == ("tcp:h:1", {**again, "user": user})
            assert resumes._value.get() == before + 1
            assert len(here.events.named("stream.opened")) == 1
            third = await client.open("tcp:h:1", {**META, "carrier": "dedicated"})
            third.abort()
            for key in ("resume", "layers", "carrier"):
                with pytest.raises(OpenRefused) as refused:
                    await client.open("tcp:h:1", {**META, key: "x" * 1100})
                assert refused.value.code == "invalid_meta"
            assert len(here.opened) == 3
            first.abort()
            second.abort()

    async def test_seen_but_not_allowed(self) -> None:
        async with world() as here:
            here.agents.find = lambda *_: _now(here.agents.row)  # type: ignore[method-assign]
            client = here.person(Subject("u-3", "aud", "auditor"))
            with pytest.raises(OpenRefused) as refused:
                await client.open("tcp:h:1", META)
            assert refused.value.status == 403
            await until(lambda: here.events.named("stream.denied"))
            (denied,) = here.events.named("stream.denied")
            assert denied["rule"] == "default-deny"
            assert denied["agent_id"] == AGENT_ID

    async def test_maintenance_takes_no_new_shells(self) -> None:
        async with world(FakeAudit()) as here:
            here.agents.row.status = "maintenance"
            client = here.person(ADMIN)
            for target in ("exec", "tcp:127.0.0.1:22"):
                with pytest.raises(OpenRefused) as refused:
                    await client.open(target, META)
                assert (refused.value.status, refused.value.code) == (409, "agent_maintenance")
            stream = await client.open("tcp:127.0.0.1:80", META)
            stream.abort()

    async def test_an_agent_that_is_away(self) -> None:
        async with world(agent=False) as here:
            client = here.person(BOB)
            with pytest.raises(OpenRefused) as refused:
                await client.open("tcp:h:1", META)
            assert (refused.value.status, refused.value.code) == (409, "agent_unlinked")
            await until(lambda: here.events.named("stream.failed"))
            assert here.events.named("stream.failed")[0]["details"]["code"] == "agent_unlinked"

    async def test_programs_are_audited(self) -> None:
        audit = FakeAudit()
        async with world(audit) as here:
            client = here.person(BOB)
            meta = META | {"command": ["id"], "login": "x", "session_id": "mine", "user": "root"}
            stream = await client.open("exec", meta)
            stream.write(b"in")
            await stream.write_eof()
            while await stream.read():
                pass
            await until(lambda: audit.over)
            assert audit.began == [(BOB, here.agents.row, ["id"])]
            assert audit.seen == [("in", b"in"), ("out", b"in")]
            ((target, sent),) = here.opened
            assert target == "exec"
            assert sent == {
                "command": ["id"], "login": "x", "session_id": "s-1",
                "user": {"id": "u-2", "username": "bob"},
            }  # fmt: skip


class TestOffers:
    EVE = Subject("u-3", "eve", "user")
    LENT = "tcp:127.0.0.1:3306"

    async def test_the_target_that_was_lent_and_no_other(self) -> None:
        async with world() as here:
            client = here.person(self.EVE)
            stream = await client.open(self.LENT, {"agent": AGENT_ID})
            user = {"id": "u-3", "username": "eve"}
            assert here.opened == [(self.LENT, {"user": user})]
            await until(lambda: here.events.named("stream.opened"))
            (opened,) = here.events.named("stream.opened")
            assert (opened["rule"], opened["agent_id"]) == ("offer:o-1", AGENT_ID)
            for target, name in (
                ("tcp:127.0.0.1:3307", AGENT_ID), (self.LENT, "web-1"), ("exec", AGENT_ID),
            ):  # fmt: skip
                with pytest.raises(OpenRefused) as refused:
                    await client.open(target, {"agent": name})
                assert refused.value.status == 404
            stream.abort()

    async def test_seen_but_not_allowed_may_have_been_lent(self) -> None:
        async with world() as here:
            here.agents.find = lambda *_: _now(here.agents.row)  # type: ignore[method-assign]
            client = here.person(Subject("u-3", "aud", "auditor"))
            stream = await client.open(self.LENT, META)
            await until(lambda: here.events.named("stream.opened"))
            assert here.events.named("stream.opened")[0]["rule"] == "offer:o-1"
            stream.abort()

    async def test_what_refuses_the_offer_is_told_and_recorded(self) -> None:
        async with world() as here:
            here.offers.maintenance = True
            client = here.person(self.EVE)
            with pytest.raises(OpenRefused) as refused:
                await client.open(self.LENT, {"agent": AGENT_ID})
            assert refused.value.code == "agent_maintenance"
            await until(lambda: here.events.named("stream.denied"))

    async def test_news_of_an_ended_offer_cuts_what_is_open(self) -> None:
        async with world() as here:
            here.streams._recheck = 60
            watching = here.supervisor.start(here.streams.watch(), "watch")
            client = here.person(self.EVE)
            stream = await client.open(self.LENT, {"agent": AGENT_ID})
            await here.streams.recheck()
            assert not stream.closed
            here.offers.lent.clear()
            here.bus.publish("offer", {"id": "o-1"})
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset) as reset:
                    await stream.read()
            assert reset.value.code == "permission_lost"
            watching.cancel()

    async def test_one_that_runs_out_is_cut_by_the_next_look(self) -> None:
        async with world() as here:
            here.supervisor.start(here.streams.watch(), "watch")
            client = here.person(self.EVE)
            stream = await client.open(self.LENT, {"agent": AGENT_ID})
            here.offers.lent.clear()
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset):
                    await stream.read()


class TestQuota:
    def _set(self, here: World, **limits: int | None) -> None:
        here.bus.publish("quota", {"user_id": "u-2", "limits": limits})

    async def test_what_is_used_up_ends_and_is_refused_with_the_reason(self) -> None:
        async with world() as here:
            client = here.person(BOB)
            self._set(here, monthly_traffic=10_000)
            first, second = [await client.open("tcp:h:1", META) for _ in range(2)]
            first.write(b"x" * 4000)
            got = 0
            while got < 4000:
                got += len(await first.read())
            second.write(b"x" * 4000)
            for stream in (first, second):
                with pytest.raises(StreamReset) as cut:
                    while await stream.read():
                        pass
                assert cut.value.code == "quota_exceeded"
                assert "It renews on" in cut.value.message
            assert here.allowances.of("u-2").used <= 16_000
            with pytest.raises(OpenRefused) as refused:
                await client.open("tcp:h:1", META)
            assert (refused.value.status, refused.value.code) == (429, "quota_exceeded")
            assert "This month's traffic is used up" in str(refused.value)
            assert len(here.opened) == 2
            other = await here.person(ADMIN).open("tcp:h:1", META)  # has a quota of their own
            other.write(b"x")
            assert await other.read() == b"x"
            self._set(here, monthly_traffic=None)
            again = await client.open("tcp:h:1", META)
            again.write(b"x")
            assert await again.read() == b"x"
        assert here.allowances.active("u-2") == 0

    async def test_a_bandwidth_that_comes_while_bytes_flow(self) -> None:
        async with world() as here:
            stream = await here.person(BOB).open("tcp:h:1", META)
            stream.write(b"x" * 10_000)
            got = 0
            while got < 10_000:
                got += len(await stream.read())
            self._set(here, bandwidth=10_000)
            stream.write(b"y" * 10_000)
            got = 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    while got < 10_000:
                        got += len(await stream.read())
            assert 0 < got < 10_000
            self._set(here)
            while got < 10_000:
                got += len(await stream.read())

    async def test_programs_are_no_tunnels(self) -> None:
        async with world(FakeAudit()) as here:
            self._set(here, monthly_traffic=0)
            stream = await here.person(BOB).open("exec", {**META, "command": "ls"})
            stream.write(b"x" * 100)
            assert await stream.read()
            assert here.allowances.of("u-2").used == 0


class TestPrograms:
    async def test_a_program_can_be_terminated_by_its_session(self) -> None:
        audit = FakeAudit()
        async with world(audit) as here:
            client = here.person(BOB)
            other = await client.open("tcp:h:1", META)
            stream = await client.open("exec", META | {"command": "yes"})
            assert not here.streams.end_program("other", "x")
            assert here.streams.end_program("s-1", "An admin ended it.")
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset) as reset:
                    await stream.read()
            assert reset.value.code == "terminated"
            await until(lambda: audit.over)
            assert not other.closed


async def _now(value: Any) -> Any:
    return value


class TestCutting:
    async def test_losing_the_machine_cuts_what_is_open(self) -> None:
        async with world() as here:
            watching = here.supervisor.start(here.streams.watch(), "watch")
            client = here.person(BOB)
            stream = await client.open("tcp:h:1", META)
            await asyncio.sleep(0.12)  # two re-checks that find nothing wrong
            assert not stream.closed
            here.agents.row.allowed_users = []
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset) as reset:
                    await stream.read()
            assert reset.value.code == "permission_lost"
            await until(lambda: here.events.named("stream.cut"))
            assert not client.closed
            watching.cancel()

    async def test_news_is_acted_on_at_once(self) -> None:
        async with world() as here:
            here.streams._recheck = 60
            watching = here.supervisor.start(here.streams.watch(), "watch")
            client = here.person(BOB)
            stream = await client.open("tcp:h:1", META)
            await asyncio.sleep(0)
            here.agents.row.is_deleted = True
            here.bus.publish("agent", {"id": AGENT_ID, "linked": True})  # no news for us
            here.bus.publish("agent", {"id": AGENT_ID, "change": "deleted"})
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset):
                    await stream.read()
            here.bus.close()
            async with asyncio.timeout(5):
                await watching

    async def test_cut_while_it_is_being_opened(self) -> None:
        async with world() as here:
            here.gate = asyncio.Event()
            client = here.person(BOB)
            opening = here.supervisor.start(_expect_refusal(client), "open")
            await until(lambda: here.opened)
            here.agents.row.allowed_users = []
            await here.streams.recheck()
            here.gate.set()
            async with asyncio.timeout(5):
                assert await opening == "permission_lost"
            await until(lambda: len(here.streams) == 0)

    async def test_a_database_that_is_away_does_not_end_the_watch(self) -> None:
        async with world() as here:
            here.supervisor.start(here.streams.watch(), "watch")
            client = here.person(BOB)
            stream = await client.open("tcp:h:1", META)
            here.agents.fails = True
            await asyncio.sleep(0.15)
            here.agents.fails = False
            here.agents.row.allowed_users = []
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset):
                    await stream.read()

    async def test_stopping_tells_why(self) -> None:
        async with world() as here:
            client = here.person(BOB)
            stream = await client.open("tcp:h:1", META)
            await here.streams.stop()
            async with asyncio.timeout(5):
                with pytest.raises(StreamReset) as reset:
                    await stream.read()
            assert reset.value.code == "going_away"
            await until(lambda: len(here.streams) == 0)


async def _expect_refusal(client: Link) -> str:
    try:
        await client.open("tcp:h:1", META)
    except OpenRefused as error:
        return error.code
    return "opened"


GUEST = Subject("guest:1", "guest-1", "guest", ip="192.0.2.1")
HOST = Subject("guest:2", "guest-2", "guest", ip="192.0.2.2")
LENT = "tcp:127.0.0.1:3306"


class TestGuests:
    async def test_a_guest_reaches_what_was_lent_and_nothing_else(self) -> None:
        async with world(FakeAudit()) as here:
            here.agents.row.allowed_users.append(GUEST.user_id)  # which counts for nothing
            here.offers.lent.add((GUEST.user_id, AGENT_ID, LENT))
            client = here.person(GUEST)
            stream = await client.open(LENT, {"agent": AGENT_ID})
            stream.write(b"hello")
            assert await stream.read() == b"hello"
            for target in ("exec", "udp", "tcp:127.0.0.1:22", "unix:/run/x", LENT + "7"):
                with pytest.raises(OpenRefused):
                    await client.open(target, {"agent": AGENT_ID})
            await stream.write_eof()
            await until(lambda: here.events.named("stream.closed"))

    async def test_a_guests_connections_are_counted_and_given_back(self) -> None:
        quota = GuestQuota(SystemClock(), replace(PER_GUEST, connections=1))
        async with world() as here:
            here.streams._guests = GuestStreams(quota, {}.get)
            here.offers.lent.add((GUEST.user_id, AGENT_ID, LENT))
            client = here.person(GUEST)
            stream = await client.open(LENT, {"agent": AGENT_ID})
            with pytest.raises(OpenRefused) as refused:
                await client.open(LENT, {"agent": AGENT_ID})
            assert refused.value.code == "guest_connections"
            await stream.write_eof()
            assert await stream.read() == b""
            await until(lambda: not len(here.streams))
            await (await client.open(LENT, {"agent": AGENT_ID})).close()

    async def test_nobody_looks_for_a_guests_quota_among_peoples(self) -> None:
        class Nobodys:
            def of(self, user_id: str) -> Any:
                raise AssertionError(user_id)

        async with world() as here:
            here.streams._allowances = Nobodys()  # type: ignore[assignment]
            here.offers.lent.add((GUEST.user_id, AGENT_ID, LENT))
            stream = await here.person(GUEST).open(LENT, {"agent": AGENT_ID})
            stream.write(b"hello")
            assert await stream.read() == b"hello"

    async def test_a_guest_who_asks_too_often_leaves_no_trace(self) -> None:
        quota = GuestQuota(SystemClock(), replace(PER_GUEST, openings=3))
        async with world() as here:
            here.streams._guests = GuestStreams(quota, {}.get)
            client = here.person(GUEST)
            codes = list[str]()
            for _ in range(6):
                with pytest.raises(OpenRefused) as refused:
                    await client.open(LENT, {"agent": AGENT_ID})
                codes.append(refused.value.code)
            assert codes[:3] == ["not_found"] * 3
            assert codes[3:] == ["guest_connections"] * 3
            await until(lambda: len(here.events.named("stream.denied")) == 3)

    async def test_a_guest_who_has_used_everything_is_cut(self) -> None:
        quota = GuestQuota(SystemClock(), replace(PER_GUEST, traffic=10))
        async with world() as here:
            here.streams._guests = GuestStreams(quota, {}.get)
            here.offers.lent.add((GUEST.user_id, AGENT_ID, LENT))
            stream = await here.person(GUEST).open(LENT, {"agent": AGENT_ID})
            stream.write(b"x" * 20)
            with pytest.raises(StreamReset) as cut:
                while await stream.read():
                    pass
            assert cut.value.code == "guest_traffic"
            assert metrics.STREAMS.labels("tcp").value == 0

    async def test_a_guests_own_link_is_the_machine(self) -> None:
        async with world(agent=False) as here:
            eve = Subject("u-3", "eve", "user")
            here.offers.lent.add(("u-3", HOST.user_id, LENT))
            client = here.person(eve)
            with pytest.raises(OpenRefused) as refused:
                await client.open(LENT, {"agent": HOST.user_id})
            assert refused.value.code == "agent_unlinked"
            host = here.person(HOST)
            host.on_open(here._echo)
            host.start()
            stream = await client.open(LENT, {"agent": HOST.user_id})
            stream.write(b"hello")
            assert await stream.read() == b"hello"
            assert here.opened[0][1]["user"] == {"id": "u-3", "username": "eve"}
            with pytest.raises(OpenRefused):
                await client.open("exec", {"agent": HOST.user_id})
            here.offers.lent.clear()
            await here.streams.recheck()
            with pytest.raises(StreamReset):
                await stream.read()

    async def test_nobody_passes_for_a_guests_link(self) -> None:
        async with Supervisor("t") as supervisor:
            registry = LinkRegistry(supervisor)
            assert registry.newest_of(HOST.user_id) is None
            older, newer = (
                memory_links(Peer("client", HOST.user_id, "g", None, "1", frozenset()))[1]
                for _ in range(2)
            )
            older.id, newer.id = "l-1", "l-2"
            for link in (older, newer):
                registry.add_client(link, HOST)
            assert registry.newest_of(HOST.user_id) is newer
            assert registry.newest_of("guest:3") is None
            await newer.close()
            assert registry.newest_of(HOST.user_id) is older
            # An agent of that id, which no enrolment gives, would not be asked.
            _, agent = memory_links(Peer("agent", "guest:3", "x", None, "1", frozenset()))
            registry.add_agent(agent)
            with pytest.raises(Conflict):
                await Router(registry).open("guest:3", LENT, on_behalf_of=BOB)
