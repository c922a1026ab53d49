"""Who behind a shared port gets what comes in, and the port given back."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Any

import pytest

from tests.gateway.entrypoints.world import mapping, until
from underpass.control.mapping import Balancing
from underpass.core.errors import Conflict
from underpass.gateway.entrypoints.doorway import Doorway


class Entry:
    """Takes what it gets."""

    def __init__(self, agent_id: str, **more: Any) -> None:
        self.mapping = mapping("tcp", 9, target_agent_id=agent_id, **more)
        self.active = 0
        self.got = 0

    def accepted(self, sock: socket.socket, address: Any) -> None:
        self.got += 1
        sock.close()


async def knock(door: Doorway, entries: list[Entry], times: int) -> list[int]:
    """Connect so often, one after the other; what each entry got."""
    for _ in range(times):
        before = sum(each.got for each in entries)
        socket.create_connection(("127.0.0.1", door.port)).close()
        await until(lambda before=before: sum(each.got for each in entries) > before)
    return [each.got for each in entries]


def opened(entries: list[Entry], linked: set[str], down: Collection[str] = ()) -> Doorway:
    door = Doorway(entries[0].mapping, ("127.0.0.1",), linked.__contains__, down.__contains__)
    for each in entries:
        door.add(each)  # type: ignore[arg-type]
    return door


async def test_in_turn_passing_over_who_is_away() -> None:
    entries = [Entry("a"), Entry("b"), Entry("c")]
    linked = {"a", "b", "c"}
    door = opened(entries, linked)
    assert await knock(door, entries, 6) == [2, 2, 2]
    linked.remove("b")
    assert await knock(door, entries, 4) == [4, 2, 4]
    linked.clear()
    await knock(door, entries, 3)
    assert entries[1].got == 3  # when all are away, each gets to say so
    door.close()


async def test_what_is_down_is_passed_over_unless_all_are() -> None:
    entries = [Entry(name, id=f"m-{name}") for name in "abc"]
    linked, down = {"a", "b", "c"}, {"m-a"}
    door = opened(entries, linked, down)
    assert await knock(door, entries, 4) == [0, 2, 2]
    down.clear()
    await knock(door, entries, 3)
    assert [each.got for each in entries] == [1, 3, 3]
    down |= {"m-a", "m-b", "m-c"}
    await knock(door, entries, 3)
    assert [each.got for each in entries] == [2, 4, 4]
    linked.remove("c")  # away is worse than down
    await knock(door, entries, 2)
    assert [each.got for each in entries] == [3, 5, 4]
    door.close()


async def test_least_connections() -> None:
    entries = [Entry(name, balancing=Balancing("least_connections")) for name in "ab"]
    door = opened(entries, {"a", "b"})
    entries[0].active = 5
    assert await knock(door, entries, 3) == [0, 3]
    door.close()


async def test_the_last_one_gone_and_the_port_given_back() -> None:
    (entry,) = entries = [Entry("a")]
    door = opened(entries, {"a"})
    assert len(door) == 1
    with pytest.raises(Conflict):
        Doorway(entry.mapping.at_port(door.port), ("127.0.0.1",), {"a"}.__contains__)
    door.remove(entry)  # type: ignore[arg-type]
    with socket.create_connection(("127.0.0.1", door.port)) as sock:
        sock.settimeout(0)
        await until(lambda: _ended(sock))
    door.close()
    door.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", door.port))


def _ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
