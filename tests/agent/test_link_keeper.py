"""One link, kept: waits that spread and stay short, final refusals, memory of what worked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.gateways import AGENT_ID, NODE_PUBLIC, Gateway, agent_identity, gateway
from underpass.agent.link_keeper import (
    FIRST_WAIT,
    KNOWN_CAP,
    MAX_RETRY_AFTER,
    UNKNOWN_CAP,
    LinkKeeper,
)
from underpass.core.clock import ManualClock
from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.dial import DialFailed, dial
from underpass.links.link import Link, LinkEnd, Opening
from underpass.links.memory import memory_links
from underpass.wire.handshake import AgentIdentity, Established, Refused


async def until(true: Callable[[], object], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)


class Script:
    """Dialling by a script: errors are raised, None gives a link in memory."""

    def __init__(self, *steps: UnderpassError | None, clock: ManualClock | None = None) -> None:
        self.steps = list(steps)
        self.calls: list[dict[str, Any]] = []
        self.waits: list[float] = []
        self.far: list[Link] = []
        self.clock = clock or ManualClock()
        self.carrier: str = "memory"
        self.done = asyncio.Event()

    async def dial(self, server: str, identity: AgentIdentity, **options: Any) -> Link:
        established = options.pop("on_established")
        self.calls.append(options)
        if not self.steps:
            self.done.set()
            await asyncio.Event().wait()
        step = self.steps.pop(0)
        if step is not None:
            raise step
        near, far = memory_links()
        near._transport.carrier = self.carrier  # type: ignore[assignment]
        established(Established("l", "n", NODE_PUBLIC, 0.0, {}, frozenset(), 1))
        far.start()
        self.far.append(far)
        return near

    def keeper(self, **options: Any) -> LinkKeeper:
        def jitter(low: float, high: float) -> float:
            self.waits.append(high)
            return 0.0

        options.setdefault("jitter", jitter)
        return LinkKeeper(
            "http://gw", agent_identity(), dial=self.dial, clock=self.clock, **options
        )


async def _accepted(opening: Opening) -> None:
    stream = opening.accept()
    await stream.read()
    await stream.close()


def down() -> DialFailed:
    return DialFailed("nobody there", code="unreachable")


class TestWaits:
    async def test_they_double_up_to_the_cap(self) -> None:
        script = Script(*[down() for _ in range(12)])
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            await asyncio.wait_for(script.done.wait(), 5)
        assert script.waits[:4] == [FIRST_WAIT, 0.4, 0.8, 1.6]
        assert max(script.waits) == UNKNOWN_CAP

    async def test_a_gateway_that_has_taken_us_is_tried_more_often(self) -> None:
        script = Script(None, *[down() for _ in range(12)])
        async with Supervisor("t") as supervisor:
            keeper = script.keeper()
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: script.far and keeper.link)
            script.clock.advance(60)  # a link that lived long begins the waits anew
            await script.far[0].close("going_away")
            await asyncio.wait_for(script.done.wait(), 5)
        # One wait was drawn before the first link, then the count starts anew.
        assert script.waits[1:4] == [FIRST_WAIT, 0.4, 0.8]
        assert max(script.waits[1:]) == KNOWN_CAP

    async def test_a_link_that_dies_at_once_does_not_reset_them(self) -> None:
        script = Script(None, None, None, None)
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            for count in range(1, 5):
                await until(lambda count=count: len(script.far) == count)
                await script.far[-1].close()
            await asyncio.wait_for(script.done.wait(), 5)
        # The first link ends the waits for a gateway that had never taken us.
        assert script.waits == [FIRST_WAIT, FIRST_WAIT, 0.4, 0.8, 1.6, 3.2]

    async def test_one_short_link_is_enough_to_be_no_stranger(self) -> None:
        script = Script(None, *[down() for _ in range(12)])
        async with Supervisor("t") as supervisor:
            keeper = script.keeper()
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: script.far and keeper.link)
            await script.far[0].close("going_away")
            await asyncio.wait_for(script.done.wait(), 5)
        assert max(script.waits) == KNOWN_CAP

    @pytest.mark.parametrize(("after", "waited"), [(0.05, 0.05), (None, 0.0), (9999, None)])
    async def test_retry_after_is_honoured_within_reason(
        self, after: float | None, waited: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        monkeypatch.setattr("underpass.agent.link_keeper.asyncio.sleep", sleep)
        script = Script(Refused("busy", code="busy", retry_after=after))
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            await asyncio.wait_for(script.done.wait(), 5)
        assert slept == [MAX_RETRY_AFTER if waited is None else waited]

    async def test_two_agents_with_one_identity_do_not_fight(self) -> None:
        script = Script(None)
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            await until(lambda: script.far)
            await script.far[0].close("displaced", "newer")
            await asyncio.wait_for(script.done.wait(), 5)
        assert 60.0 in script.waits


class TestEnds:
    async def test_a_final_refusal_ends_it(self) -> None:
        final = Refused("no", code="unsupported_version", final=True, verified=True)
        script = Script(down(), Refused("no", code="x", final=True), final)
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(script.keeper().run(), 5)
        assert refused.value is final
        assert len(script.calls) == 3

    async def test_cancelling_closes_the_link(self) -> None:
        script = Script(None)
        async with Supervisor("t") as supervisor:
            keeper = script.keeper()
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: keeper.link)
        assert keeper.link is None
        assert (await script.far[0].wait_closed()).code == "going_away"


class TestLinks:
    async def test_handlers_are_set_before_it_reads_and_duties_run_after(self) -> None:
        script = Script(None)
        order: list[str] = []

        async def linked(link: Link) -> None:
            order.append("linked" if not link.closed else "closed")
            raise UnderpassError("a duty that fails is logged, no more")

        async with Supervisor("t") as supervisor:
            keeper = script.keeper(prepare=lambda _link: order.append("prepare"), linked=linked)
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: len(order) == 2)
            assert keeper.link is not None
        assert order == ["prepare", "linked"]

    async def test_a_duty_with_a_bug_does_not_end_the_link(self) -> None:
        script = Script(None)
        ran = asyncio.Event()

        async def linked(_link: Link) -> None:
            ran.set()
            raise ZeroDivisionError

        async with Supervisor("t") as supervisor:
            keeper = script.keeper(linked=linked)
            supervisor.start(keeper.run(), "keeper")
            await asyncio.wait_for(ran.wait(), 5)
            await asyncio.sleep(0.02)
            assert keeper.link is not None

    async def test_the_key_of_the_first_link_is_pinned(self) -> None:
        script = Script(None)
        found: list[Established] = []
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper(on_established=found.append).run(), "keeper")
            await until(lambda: script.far)
            await script.far[0].close()
            await asyncio.wait_for(script.done.wait(), 5)
        assert [call["pinned_key"] for call in script.calls] == [None, NODE_PUBLIC]
        assert found[0].node_key == NODE_PUBLIC

    async def test_what_worked_is_tried_first_and_once(self) -> None:
        script = Script(None, down(), None)
        script.carrier = "websocket"
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            for count in (1, 2):
                await until(lambda count=count: len(script.far) == count)
                await script.far[-1].close()
            await asyncio.wait_for(script.done.wait(), 5)
        tried = [call["transport"] for call in script.calls]
        assert tried == ["auto", "websocket", "auto", "websocket"]

    async def test_quic_as_a_guess_fails_without_anybody_noticing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The link stalled, so QUIC is tried next; UDP is blocked, so the usual ways follow."""
        monkeypatch.setattr("underpass.agent.link_keeper.PathQuality.poor", True)
        script = Script(None, down(), None)
        script.carrier = "tcp"
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper().run(), "keeper")
            for count in (1, 2):
                await until(lambda count=count: len(script.far) == count)
                await script.far[-1].close()
            await asyncio.wait_for(script.done.wait(), 5)
        # Left alone after that, though the link stalls again.
        assert [call["transport"] for call in script.calls] == ["auto", "quic", "auto", "auto"]
        # One anew after the first link, none between the guess and the usual ways.
        assert len(script.waits) == 4

    async def test_quic_is_measured_and_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.agent.link_keeper.MEASURE_EVERY", 0.001)
        script = Script(None, None)
        script.carrier = "tcp"
        async with Supervisor("t") as supervisor:
            keeper = script.keeper()
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: keeper.link)
            assert keeper.link is not None
            pulse = keeper.link._mux.pulse
            for trip in (0.02, 0.9, 0.02, 0.9, 0.02, 0.9, 0.02, 0.9):
                pulse.rtt = trip
                await asyncio.sleep(0.01)
            await script.far[0].close()
            await until(lambda: len(script.calls) == 2)
        assert script.calls[1]["transport"] == "quic"

    async def test_a_better_way_is_taken_while_nothing_is_carried(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.agent.link_keeper.BETTER_EVERY", 0.01)
        script = Script(None, None)
        script.carrier = "websocket"
        tried: list[str] = []

        async def probe(server: str, identity: AgentIdentity, way: str, **_: Any) -> float:
            tried.append(way)
            if len(tried) < 3:
                raise down()
            return 0.01

        async with Supervisor("t") as supervisor:
            keeper = script.keeper(probe=probe)
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: script.far)
            script.far[0].on_open(lambda opening: _accepted(opening))
            assert keeper.link is not None
            stream = await keeper.link.open("x")
            await asyncio.sleep(0.1)
            assert not tried  # never under somebody's hands
            await stream.close()
            stream.abort()
            await until(lambda: len(script.calls) == 2)
        assert tried[:3] == ["tcp", "tcp", "tcp"]
        assert [call["transport"] for call in script.calls[:2]] == ["auto", "tcp"]

    async def test_quic_that_falls_silent_is_followed_by_the_usual_ways(self) -> None:
        script = Script(None, None)
        script.carrier = "quic"
        async with Supervisor("t") as supervisor:
            keeper = script.keeper()
            supervisor.start(keeper.run(), "keeper")
            await until(lambda: keeper.link)
            assert keeper.link is not None
            keeper._dialled_in = 9.0  # found late, so it would be tried first again
            keeper.link._mux.ended(LinkEnd("peer_silent", "Nothing came."))
            await until(lambda: len(script.calls) == 2)
        assert script.calls[1]["transport"] == "auto"
        assert keeper._choice.why == "quic fell silent"

    async def test_a_fixed_transport_stays(self) -> None:
        script = Script(None, None)
        async with Supervisor("t") as supervisor:
            supervisor.start(script.keeper(transport="tcp").run(), "keeper")
            await until(lambda: script.far)
            await script.far[0].close()
            await until(lambda: len(script.far) == 2)
        assert {call["transport"] for call in script.calls} == {"tcp"}


async def test_two_hundred_agents_are_back_after_a_restart() -> None:
    """Spec: a gateway restart with 200 linked agents, all back within 15 s.

    The gateway is away for 3 s here, so that the waits have grown by then.
    """
    count = 200
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(count)]
    async with Supervisor("agents") as supervisor:
        async with gateway() as first:
            first.secrets.known = dict.fromkeys(ids, b"s" * 32)
            port = first.front.port
            for agent_id in ids:
                keeper = LinkKeeper(
                    first.url, AgentIdentity(agent_id, b"s" * 32), pinned_key=NODE_PUBLIC
                )
                supervisor.start(keeper.run(), agent_id)
            await until(lambda: first.registry.agent_count == count, 30)
        await asyncio.sleep(3)
        second = Gateway()
        second.secrets.known = dict.fromkeys(ids, b"s" * 32)
        second.front = second.make_front(port)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await second.front.start()
        try:
            await until(lambda: second.registry.agent_count == count, 15)
            print(f"{count} agents back after {loop.time() - began:.1f} s")
            assert not second.events.named("agent.displaced")
        finally:
            await supervisor.close()
            await second.stop()
        assert second.registry.agent_count == 0


async def test_against_a_real_gateway() -> None:
    async with gateway() as node, Supervisor("t") as supervisor:
        keeper = LinkKeeper(node.url, agent_identity(), dial=dial)
        supervisor.start(keeper.run(), "keeper")
        await until(lambda: keeper.link is not None and node.router.is_linked(AGENT_ID))
        link = node.registry.agent(AGENT_ID)
        assert link is not None
        await link.close("going_away", "restart")
        await until(lambda: node.registry.agent(AGENT_ID) not in (None, link))
