"""The live view by itself: a reader that is never up to date loses its right like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from underpass.gateway.terminals import live_view
from underpass.gateway.terminals.live_view import LiveView


class LongRecording:
    """As much of a desk and its store as a view needs; the recording is 64 MiB of short lines."""

    recorders: dict[str, Any] = {}  # noqa: RUF012 - never written to

    @property
    def store(self) -> LongRecording:
        return self

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        return work()

    def whole_size(self, _recording_id: str) -> int:
        return 64 << 20

    def read(self, _recording_id: str, _offset: int, count: int) -> bytes:
        return b"x" * (count - 1) + b"\n"


async def test_a_slow_reader_of_a_long_recording_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "_LOOK_SECONDS", 0.05)
    pieces = 0

    async def send(_text: str) -> None:
        nonlocal pieces
        pieces += 1
        await asyncio.sleep(0.02)

    async def allowed() -> bool:
        return False

    view = LiveView(LongRecording(), "a recording", 0)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await view.send(send, allowed)
    assert view.close_code == 4403
    assert pieces < 50
