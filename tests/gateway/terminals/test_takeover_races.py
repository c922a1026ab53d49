"""What may happen in the middle of things: a link lost, a browser gone, a gateway stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests.gateway.terminals.house import House, Machine, Person, eventually, house


class Slow:
    """A step of the gateway that waits in its middle until it is let go."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.begun.set()
        await self.go.wait()
        return await self._real(*arguments, **named)


@asynccontextmanager
async def restarted(tmp_path: Path) -> AsyncIterator[tuple[House, Person, Machine, str, Slow]]:
    """A gateway after a restart, with one shell that still runs, whose taking over is slow."""
    async with house(tmp_path) as first:
        ada = await first.setup()
        box = await first.machine()
        _, session_id = await ada.shell(box.id)
    async with house(tmp_path) as second:
        ada = await second.sign_in("ada")
        second.boss = (await second.services.sign_in.identify(ada.token)).subject
        box.house = second
        second.machines.append(box)
        desk = second.services.terminals.desk
        slow = Slow(desk.resume)
        desk.resume = slow  # type: ignore[method-assign]
        try:
            yield second, ada, box, session_id, slow
        finally:
            slow.go.set()
            await box.host.close()


async def test_a_link_lost_while_a_session_is_taken_over_does_not_end_the_shell(
    tmp_path: Path,
) -> None:
    async with restarted(tmp_path) as (_, ada, box, session_id, slow):
        announcing = asyncio.gather(box.connect(), return_exceptions=True)
        await slow.begun.wait()
        await box.disconnect()
        await announcing
        slow.go.set()
        assert await box.connect() == {"terminate": []}
        back = await ada.resume(box.id, session_id, 0)
        back.socket.type("echo still''-here\n")
        await back.until(b"still-here")


async def test_a_session_announced_twice_at_once_is_taken_over_once(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (home, _, box, session_id, slow):
        first = asyncio.gather(box.connect())
        await slow.begun.wait()
        assert box.link is not None
        second = asyncio.gather(
            box.link.request("sessions.announce", {"sessions": box.host.announce()})
        )
        await asyncio.sleep(0.05)
        slow.go.set()
        assert await first == [{"terminate": []}]
        assert await second == [{"terminate": []}]
        assert home.services.terminals.hubs[session_id].outcome is None


async def test_whoever_comes_back_while_a_session_is_taken_over_waits_for_it(
    tmp_path: Path,
) -> None:
    async with restarted(tmp_path) as (_, ada, box, session_id, slow):
        announcing = asyncio.gather(box.connect())
        await slow.begun.wait()
        back = await ada.resume(box.id, session_id, 0)
        await asyncio.sleep(0.1)
        slow.go.set()
        await announcing
        await back.control("resumed")


async def test_a_session_can_be_terminated_while_it_is_taken_over(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (_, ada, box, session_id, slow):
        announcing = asyncio.gather(box.connect())
        await slow.begun.wait()
        ending = asyncio.gather(ada.http.delete(f"/api/v1/sessions/{session_id}"))
        await asyncio.sleep(0.05)
        slow.go.set()
        await announcing
        assert [answer.status_code for answer in await ending] == [200]

        async def closed() -> bool:
            return (await ada.data(f"/api/v1/sessions/{session_id}"))["status"] == "closed"

        await eventually(closed)


@pytest.mark.parametrize("when", ["opening", "attaching"])
async def test_a_browser_gone_while_its_shell_opens_leaves_nobody_attached(
    home: House, ada: Person, box: Machine, when: str
) -> None:
    terminals = home.services.terminals
    name = "open" if when == "opening" else "attach"
    slow = Slow(getattr(terminals, name))
    setattr(terminals, name, slow)
    screen = await ada.open(box.id)
    await slow.begun.wait()
    screen.socket.drop()
    slow.go.set()
    await screen.socket.done.wait()
    (hub,) = terminals.hubs.values()
    assert not hub.viewers
    assert hub.detached_at is not None


async def test_a_shell_shown_to_nobody_because_the_event_failed_is_detached(
    home: House, ada: Person, box: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminals = home.services.terminals
    record = terminals._journal.record

    async def failing(hub: Any, kind: str, *arguments: Any, **named: Any) -> None:
        if kind == "session.attached":
            raise SQLAlchemyError("the database is away")
        await record(hub, kind, *arguments, **named)

    monkeypatch.setattr(terminals._journal, "record", failing)
    screen = await ada.open(box.id)
    assert (await screen.end()).code == 4500
    (hub,) = terminals.hubs.values()
    assert not hub.viewers


async def test_a_stopping_gateway_sends_browsers_to_its_successor(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    fresh = await ada.ticket(box.id)
    await home.services.terminals.stop()
    assert (await screen.end()).code == 1012
    back = home.screen("/api/v1/tty/ws", fresh["token"])
    back.socket.say("resume", session_id=session_id, offset=0)
    assert (await back.end()).code == 1012
