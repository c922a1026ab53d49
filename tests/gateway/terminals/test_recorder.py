"""The recorder: nobody waits for it, and it says what it had to leave out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from underpass.core.clock import ManualClock
from underpass.core.ids import new_id
from underpass.core.supervisor import Supervisor
from underpass.gateway.terminals.recorder import QUEUE_BYTES, QUEUE_ITEMS, Recorder
from underpass.store.files.recording_file import RecordingFile, RecordingLost
from underpass.store.files.recordings import LocalRecordings
from underpass.wire.asciicast import CastHeader, CastReader


class Desk:
    def __init__(self, root: Path, clock: ManualClock) -> None:
        self.store = LocalRecordings(root)
        self.executor = ThreadPoolExecutor(1)
        self.clock = clock
        self.supervisor = Supervisor("test")
        self.progress = 0
        self.failures: list[RecordingLost] = []

    def recorder(self) -> Recorder:
        file = self.store.create(new_id(), CastHeader(80, 24))
        recorder = Recorder(new_id(), file, executor=self.executor, clock=self.clock)
        recorder.watch(self._progress, self.failures.append)
        return recorder

    def _progress(self) -> None:
        self.progress += 1


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, ManualClock())
    yield desk
    await desk.supervisor.close()
    desk.executor.shutdown()


def events(recorder: Recorder) -> list[tuple[int, str, str]]:
    found = CastReader().feed(recorder._file.where.cast.read_bytes())
    return [(event.time_us, event.code, event.data) for event in found]


async def test_what_happens_is_flushed_within_a_second(desk: Desk) -> None:
    recorder = desk.recorder()
    desk.supervisor.start(recorder.run(), "run")
    recorder.output(b"a")
    recorder.output(b"b")
    desk.clock.advance(1.5)
    recorder.marker("detached: ann")
    recorder.resize(90, 33)
    recorder.output(b"c")
    await recorder.more(recorder.size, 1.0)
    assert events(recorder) == [
        (0, "o", "ab"), (1_500_000, "m", "detached: ann"), (1_500_000, "r", "90x33"),
        (1_500_000, "o", "c"),
    ]  # fmt: skip
    assert recorder.position == 3
    assert desk.progress == 1
    assert recorder.duration == 1.5
    finished = await recorder.finish("0")
    assert finished is not None
    assert await recorder.finish("0") == finished
    recorder.output(b"too late")
    recorder.marker("too late")
    await recorder.more(0, 0.01)


async def test_a_slow_disk_costs_output_never_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = desk.recorder()
    gate = threading.Event()
    real = RecordingFile.flush

    def slow(self: RecordingFile) -> None:
        gate.wait(10)
        real(self)

    monkeypatch.setattr(RecordingFile, "flush", slow)
    desk.supervisor.start(recorder.run(), "run")
    recorder.output(b"x" * 65536)
    await asyncio.sleep(0.05)  # the thread is stuck now
    for _ in range(100):
        recorder.output(b"y" * 65536)
    assert recorder._queued <= QUEUE_BYTES
    gate.set()
    finished = await recorder.finish()
    assert finished is not None
    kept = sum(len(data) for _, code, data in events(recorder) if code == "o")
    marks = [data for _, code, data in events(recorder) if code == "m"]
    skipped = 101 * 65536 - kept
    assert skipped > 0
    assert marks == [f"[output skipped {skipped} bytes]"]
    assert recorder.position == 101 * 65536


async def test_a_flood_of_tiny_events_is_bounded(desk: Desk) -> None:
    recorder = desk.recorder()
    for _ in range(QUEUE_ITEMS + 100):
        desk.clock.advance(0.02)
        recorder.output(b"z")
    for _ in range(3 * QUEUE_ITEMS):
        recorder.marker("m")
    assert len(recorder._queue) <= 2 * QUEUE_ITEMS + 1
    await recorder.finish()


async def test_a_full_disk_is_told_once_and_nothing_waits_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = desk.recorder()

    def full(_self: RecordingFile) -> None:
        raise RecordingLost("No space left on device.")

    monkeypatch.setattr(RecordingFile, "flush", full)
    desk.supervisor.start(recorder.run(), "run")
    recorder.output(b"x" * 65536)
    async with asyncio.timeout(5):
        while recorder.failed is None:
            await asyncio.sleep(0.01)
    recorder.output(b"more")
    assert len(desk.failures) == 1
    assert await recorder.finish() is None
    await recorder.pause()


async def test_what_the_agent_no_longer_has_is_marked(desk: Desk) -> None:
    recorder = desk.recorder()
    recorder.skip(500)
    recorder.output(b"after")
    await recorder.pause()
    assert [event[1:] for event in events(recorder)] == [
        ("m", "[output skipped 500 bytes]"), ("o", "after"),
    ]  # fmt: skip
    assert recorder.position == 505
