"""Both ends of a resumable stream and owners that note what happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.memory import memory_pair
from underpass.links.resumable import ResumableStream
from underpass.links.stream import Stream

__all__ = ["Owner", "Resumed", "resumed"]


class Owner:
    """Keeps one stream and notes what it is told."""

    def __init__(self) -> None:
        self.supervisor = Supervisor("test owner")
        self.lost_paths: list[str] = []
        self.ends: list[UnderpassError | None] = []
        self.ended = asyncio.Event()

    def detached(self, stream: ResumableStream, error: UnderpassError) -> None:
        self.lost_paths.append(error.code)

    def over(self, stream: ResumableStream, error: UnderpassError | None) -> None:
        self.ends.append(error)
        self.ended.set()

    def spawn(self, coroutine: Any, name: str) -> object:
        return self.supervisor.start(coroutine, name)


class Resumed:
    """A client's and an agent's end, joined by paths in memory that can be cut."""

    def __init__(self) -> None:
        self.owners = Owner(), Owner()
        self.client = ResumableStream(self.owners[0])
        self.agent = ResumableStream(self.owners[1])
        self.path: Stream | None = None

    def join(self) -> None:
        """Put a new path in."""
        near, far = memory_pair()
        self.path = near
        self.agent.accepted(lambda: far, self.client.received)
        self.client.dialled(near)

    def cut(self, code: str = "link_lost") -> None:
        assert self.path is not None
        # As when a link is lost: both ends of the path hear of it.
        self.path._lost(UnderpassError("cut", code=code))  # type: ignore[attr-defined]
        self.path.other._lost(UnderpassError("cut", code=code))  # type: ignore[attr-defined]

    async def over(self) -> tuple[UnderpassError | None, UnderpassError | None]:
        """Wait until both ends are; how each ended."""
        async with asyncio.timeout(20):
            for owner in self.owners:
                await owner.ended.wait()
        assert [len(owner.ends) for owner in self.owners] == [1, 1]
        return self.owners[0].ends[0], self.owners[1].ends[0]


@asynccontextmanager
async def resumed() -> AsyncIterator[Resumed]:
    """Joined ends; nothing may be left of them afterwards."""
    pair = Resumed()
    pair.join()
    yield pair
    for end in (pair.client, pair.agent):
        end.abort()
        end.give_up(UnderpassError("the test is over"))
    for owner in pair.owners:
        for _ in range(100):
            if not len(owner.supervisor):
                break
            await asyncio.sleep(0)
        assert len(owner.supervisor) == 0
        await owner.supervisor.close()
    for end in (pair.client, pair.agent):
        assert end.held == 0
        assert not end.has_path
        assert end._ack_timer is None
        assert end._linger is None or end._linger.cancelled()
