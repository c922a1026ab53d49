"""Recordings made without waiting for them: written by the store, as the recorder does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.console.world import World
from underpass.control.recordings import Recordings
from underpass.core.clock import SystemClock
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import RecordingRow
from underpass.store.files.places import places
from underpass.store.files.recording_file import Item, Output, RecordingFile
from underpass.wire.asciicast import CastHeader

__all__ = ["output", "place_recording"]


def output(seconds: float, text: str) -> Output:
    """*text* on the screen at *seconds*."""
    return Output(int(seconds * 1e6), text.encode())


def place_recording(world: World, machine: str, items: Iterable[Item], title: str) -> str:
    """A finished recording of a session on *machine*; its id."""
    recording_id, session_id = new_id(), new_id()
    agent = world.machine(machine)
    admin = world.admin.get("/api/v1/auth/me").json()["data"]["user"]
    root = (world.gateway.state / "recordings").resolve()
    started = time.time() - 86_400
    header = CastHeader(80, 24, int(started), title=title)
    file = RecordingFile.create(places(root, recording_id), header)
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) >= 50:  # a flush makes a checkpoint, of which some become keyframes
            file.write(batch)
            file.flush()
            batch.clear()
    file.write(batch)
    done = file.finish()
    row = RecordingRow(
        id=recording_id, session_id=session_id, asset_id=agent["id"], user_id=admin["id"],
        username=admin["username"], title=title, status="finished", started_at=started,
        duration=done.duration, size=done.size, sha256=done.sha256, width=80, height=24,
    )  # fmt: skip

    async def store() -> None:
        path = next(world.gateway.state.glob("*.db"))
        database = await Database.open(f"sqlite:///{path}", migrations=False)
        try:
            await Recordings(database, SystemClock()).create(row)
        finally:
            await database.close()

    _elsewhere(lambda: asyncio.run(store()))
    return recording_id


def _elsewhere(work: Callable[[], None]) -> None:
    """In a thread of its own: Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(30)
