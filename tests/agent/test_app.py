"""A whole agent in this process: gets in, links, obeys, forgets, and ends without a trace."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.gateways import ADMIN, AGENT_ID, NODE_PUBLIC, SECRET, Gateway, gateway
from underpass.agent import app as agent_app
from underpass.agent import declaring
from underpass.agent.app import FINALLY_REFUSED, run_agent
from underpass.agent.enrolment import EnrolmentRefused
from underpass.agent.heartbeat import Heartbeat, MachineUnknown
from underpass.agent.policy_file import PolicyError
from underpass.agent.poll import PollLoop
from underpass.agent.settings import AgentSettings
from underpass.agent.state import AgentState, StateError
from underpass.core.errors import NotFound, Unavailable
from underpass.core.settings import SettingsError
from underpass.core.supervisor import Supervisor
from underpass.links.link import Link
from underpass.wire.handshake import Refused


async def until(true: Callable[[], object], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _no_http_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway here has no HTTP routes for heartbeats; they wait until there is a link."""
    beat = Heartbeat.beat

    async def only_linked(self: Heartbeat) -> None:
        if self._link() is not None:
            await beat(self)

    monkeypatch.setattr(Heartbeat, "beat", only_linked)


def enrolled(
    directory: Path, server: str, *, gateway_key: bytes | None = NODE_PUBLIC
) -> AgentState:
    state = AgentState(directory)
    (directory / "client_id").write_text(AGENT_ID)
    (directory / "client_id").chmod(0o600)
    state.keep_enrolment(SECRET, gateway_key=gateway_key, server=server)
    return state


class Told:
    """What the gateway heard from its agent, and what it answers."""

    def __init__(self, node: Gateway) -> None:
        self.announced: list[dict[str, Any]] = []
        self.heartbeats = 0
        self.terminate: Any = []
        self.fail_announces = 0
        node.registry.on_agent_linked(self._prepare)

    def _prepare(self, link: Link) -> None:
        link.on_control("sessions.announce", self._announce)
        link.on_control("heartbeat", self._heartbeat)

    async def _announce(self, _link: Link, body: dict[str, Any]) -> dict[str, Any]:
        if self.fail_announces:
            self.fail_announces -= 1
            raise Unavailable("the database is away")
        self.announced.append(body)
        return {"terminate": self.terminate}

    async def _heartbeat(self, _link: Link, body: dict[str, Any]) -> dict[str, Any]:
        assert body["id"] == AGENT_ID
        self.heartbeats += 1
        return {"status": "ok", "server_time": 1.0}


class TestLinked:
    async def test_a_life(self, tmp_path: Path) -> None:
        async with gateway(agent_settings={"heartbeat": 2}) as node, Supervisor("t") as supervisor:
            told = Told(node)
            told.terminate = ["unknown-session"]
            told.fail_announces = 1
            enrolled(tmp_path, node.url, gateway_key=None)
            stop, ready = asyncio.Event(), asyncio.Event()
            running = supervisor.start(
                run_agent(AgentSettings.load(state=tmp_path), ready=ready.set, stop=stop), "agent"
            )
            async with asyncio.timeout(10):
                await ready.wait()
            assert told.announced == [{"sessions": []}]
            await until(lambda: told.heartbeats)
            # The key of the first handshake is pinned when the enrolment brought none.
            assert AgentState(tmp_path).gateway_key() == NODE_PUBLIC

            facts = await node.router.request(AGENT_ID, "metrics", {})
            assert "cpu_percent" in facts["dynamic_info"]
            ended = await node.router.request(AGENT_ID, "session.terminate", {"session_id": "x"})
            assert ended == {"ended": False}
            stream = await node.router.open(
                AGENT_ID, "exec", on_behalf_of=ADMIN,
                meta={"session_id": "s-1", "command": "echo $((6*7))", "login": None},
            )  # fmt: skip
            got = b""
            while data := await stream.read():
                got += data
            assert b"42\n" in got

            with pytest.raises(StateError) as second:
                await run_agent(AgentSettings.load(state=tmp_path), stop=stop)
            assert second.value.code == "state_in_use"

            stop.set()
            async with asyncio.timeout(15):
                assert await running == 0
            await until(lambda: node.registry.agent_count == 0)

    async def test_it_leaves_no_task_and_no_descriptor(self, tmp_path: Path) -> None:
        async with gateway() as node:
            Told(node)
            enrolled(tmp_path, node.url)

            async def once() -> None:
                stop = asyncio.Event()
                settings = AgentSettings.load(state=tmp_path)
                assert await run_agent(settings, ready=stop.set, stop=stop) == 0
                await until(lambda: node.registry.agent_count == 0)

            await once()
            gc.collect()
            tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                await once()
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            gc.collect()
            await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)

    async def test_a_signal_stops_it(self, tmp_path: Path) -> None:
        async with gateway() as node, Supervisor("t") as supervisor:
            Told(node)
            enrolled(tmp_path, node.url)
            ready = asyncio.Event()
            running = supervisor.start(
                run_agent(AgentSettings.load(state=tmp_path), ready=ready.set), "agent"
            )
            async with asyncio.timeout(15):
                await ready.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                assert await running == 0

    async def test_what_it_declares_is_read_again_at_a_hangup(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(declaring, "TICK", 600.0)  # it would look by itself
        monkeypatch.setattr(os, "isatty", lambda _number: False)
        async with gateway() as node, Supervisor("t") as supervisor:
            Told(node)
            declared: list[list[str]] = []

            async def take(_link: Link, body: dict[str, Any]) -> dict[str, Any]:
                declared.append([each["name"] for each in body["mappings"]])
                return {"mappings": []}

            node.registry.on_agent_linked(lambda link: link.on_control("mappings.declare", take))
            enrolled(tmp_path, node.url)
            before = signal.getsignal(signal.SIGHUP)
            running = supervisor.start(run_agent(AgentSettings.load(state=tmp_path)), "agent")
            await until(lambda: declared)
            (tmp_path / "underpass.yaml").write_text(
                "mappings: [{name: ssh, protocol: tcp, target: 22}]"
            )
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: len(declared) > 1)
            assert declared == [[], ["ssh"]]
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(15):
                assert await running == 0
            assert signal.getsignal(signal.SIGHUP) == before

    async def test_a_gateway_without_announcements_is_no_trouble(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_app, "_ANNOUNCE_TRIES", 1)
        async with gateway() as node:
            enrolled(tmp_path, node.url)
            stop = asyncio.Event()
            async with asyncio.timeout(15):
                assert (
                    await run_agent(AgentSettings.load(state=tmp_path), ready=stop.set, stop=stop)
                    == 0
                )

    async def test_a_gateway_that_ends_while_it_is_told(self, tmp_path: Path) -> None:
        async with gateway() as node, Supervisor("t") as supervisor:
            enrolled(tmp_path, node.url)
            asked, stop = asyncio.Event(), asyncio.Event()

            async def announce(link: Link, _body: dict[str, Any]) -> None:
                asked.set()
                await link.close("going_away")

            node.registry.on_agent_linked(
                lambda link: link.on_control("sessions.announce", announce)
            )
            running = supervisor.start(
                run_agent(AgentSettings.load(state=tmp_path), stop=stop), "agent"
            )
            async with asyncio.timeout(15):
                await asked.wait()
                stop.set()
                assert await running == 0


class Enrolments:
    """Enrolment by a script: what each attempt brings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Any) -> None:
        self.steps = list(steps)
        self.tokens: list[str | None] = []
        monkeypatch.setattr(agent_app, "enrol", self._enrol)

    async def _enrol(self, state: AgentState, http: Any, **options: Any) -> None:
        self.tokens.append(options["join_token"])
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        state.keep_enrolment(step, gateway_key=NODE_PUBLIC, server=http.server)


class TestGettingIn:
    async def test_enrols_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with gateway() as node:
            Told(node)
            enrolled(tmp_path, node.url).forget_enrolment()
            script = Enrolments(monkeypatch, SECRET)
            stop = asyncio.Event()
            settings = AgentSettings.load(state=tmp_path, server=node.url, join="upj_x")
            async with asyncio.timeout(15):
                assert await run_agent(settings, ready=stop.set, stop=stop) == 0
            assert script.tokens == ["upj_x"]

    async def test_a_token_that_is_no_good_is_final(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Enrolments(monkeypatch, EnrolmentRefused("no", code="join_token_unknown"))
        settings = AgentSettings.load(state=tmp_path, server="http://127.0.0.1:9", join="upj_x")
        assert await run_agent(settings, stop=asyncio.Event()) == FINALLY_REFUSED
        assert script.tokens == ["upj_x"]

    async def test_a_used_up_token_leaves_it_to_an_admin_when_we_were_in_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        enrolled(tmp_path, "http://127.0.0.1:9").forget_enrolment()
        script = Enrolments(
            monkeypatch,
            EnrolmentRefused("no", code="join_token_used_up"),
            EnrolmentRefused("no", code="weak_key"),
        )
        settings = AgentSettings.load(state=tmp_path, join="upj_x")
        assert await run_agent(settings, stop=asyncio.Event()) == FINALLY_REFUSED
        assert script.tokens == ["upj_x", None]

    async def test_a_secret_that_is_not_taken_is_forgotten_and_the_token_not_used_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with gateway() as node:
            Told(node)
            state = enrolled(tmp_path, node.url)
            state.keep_enrolment(b"x" * 32, gateway_key=NODE_PUBLIC, server=node.url)
            script = Enrolments(monkeypatch, SECRET)
            stop = asyncio.Event()
            settings = AgentSettings.load(state=tmp_path, join="upj_x")
            async with asyncio.timeout(15):
                assert await run_agent(settings, ready=stop.set, stop=stop) == 0
            assert script.tokens == [None]

    async def test_a_heartbeat_that_is_not_known_means_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        enrolled(tmp_path, "http://127.0.0.1:9")

        async def unknown(_self: Heartbeat) -> None:
            raise MachineUnknown("We do not know you.")

        monkeypatch.setattr(Heartbeat, "run", unknown)
        monkeypatch.setattr(
            agent_app.TerminalHost, "announce", lambda _self: [{"session_id": "s-1"}]
        )
        script = Enrolments(monkeypatch, EnrolmentRefused("no", code="bad_key"))
        settings = AgentSettings.load(state=tmp_path)
        assert await run_agent(settings, stop=asyncio.Event()) == FINALLY_REFUSED
        assert script.tokens == [None]
        assert AgentState(tmp_path).secret() is None

    async def test_other_final_refusals_end_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        enrolled(tmp_path, "http://127.0.0.1:9")

        async def refused(_self: Any) -> None:
            raise Refused("too old", code="unsupported_version", final=True, verified=True)

        monkeypatch.setattr(agent_app.LinkKeeper, "run", refused)
        settings = AgentSettings.load(state=tmp_path)
        assert await run_agent(settings, stop=asyncio.Event()) == FINALLY_REFUSED
        assert AgentState(tmp_path).secret() == SECRET


class TestStarting:
    async def test_without_a_gateway(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="--server"):
            await run_agent(AgentSettings.load(state=tmp_path), stop=asyncio.Event())

    async def test_with_a_bad_policy(self, tmp_path: Path) -> None:
        (tmp_path / "policy.yaml").write_text("allow: 3")
        settings = AgentSettings.load(state=tmp_path, server="http://127.0.0.1:9")
        with pytest.raises(PolicyError, match="line 1"):
            await run_agent(settings, stop=asyncio.Event())

    async def test_a_damaged_state_shows_when_it_is_read(self, tmp_path: Path) -> None:
        enrolled(tmp_path, "http://127.0.0.1:9")
        (tmp_path / "agent_secret_key").write_text("!")
        with pytest.raises(StateError, match="damaged"):
            await run_agent(AgentSettings.load(state=tmp_path), stop=asyncio.Event())

    async def test_poll_mode(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        enrolled(tmp_path, "http://127.0.0.1:9")
        asked: list[str] = []

        async def poll(_self: PollLoop, _supervisor: Supervisor) -> int:
            asked.append("poll")
            raise NotFound("ends the loop")

        monkeypatch.setattr(PollLoop, "poll", poll)
        ready: list[bool] = []
        settings = AgentSettings.load(state=tmp_path, mode="poll")
        with pytest.raises(NotFound):
            await run_agent(settings, ready=lambda: ready.append(True), stop=asyncio.Event())
        assert asked == ["poll"]
        assert ready == [True]
