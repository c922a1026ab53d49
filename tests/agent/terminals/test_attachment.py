"""One trunk's time: a peer that never ends its side, and one that is replaced in mid-send."""

from __future__ import annotations

import asyncio

import pytest

from tests.agent.terminals.recording_trunk import RecordingTrunk
from underpass.agent.terminals import attachment as attachments
from underpass.agent.terminals.attachment import Attachment
from underpass.agent.terminals.flow import SessionFlow
from underpass.core.clock import ManualClock
from underpass.wire.terminal import Attached, Control, Exit, Failure, Ping, Resize, Terminate


class FakeTerminal:
    """A session without a pty."""

    def __init__(self) -> None:
        self.flow = SessionFlow(grace=1.0, now=0.0)
        self.flow.attach(0)
        self.sizes: list[tuple[int, int]] = []
        self.reasons: list[str] = []

    def input_came(self) -> None:
        self.flow.took(len(self.flow.next_input()))

    async def input_room(self) -> None:
        await asyncio.sleep(0)

    def output_wanted(self) -> None:
        return None

    def resize(self, cols: int, rows: int) -> None:
        self.sizes.append((cols, rows))

    def terminated(self, reason: str) -> None:
        self.reasons.append(reason)

    def last_word(self) -> Exit | Failure | None:
        return self.flow.due_exit()


class SilentTrunk(RecordingTrunk):
    """A gateway that reads the exit and then neither closes nor says anything."""

    async def send(self, message: bytes | Control) -> None:
        if isinstance(message, Exit):
            self.controls.append(message)
        else:
            await super().send(message)


async def test_what_comes_goes_to_the_terminal() -> None:
    terminal, trunk = FakeTerminal(), RecordingTrunk()
    trunk.give(b"abc", Resize(5, 6), Terminate("why"), Ping(1))
    terminal.flow.output(b"hello")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(Attachment(trunk, terminal, ManualClock()).run(Attached("s", 0, 0)))
        await trunk.until(lambda: trunk.pongs == [1] and trunk.output == b"hello")
        trunk.end()
    assert not run.result()
    assert terminal.flow.input_offset == 3
    assert (terminal.sizes, terminal.reasons) == ([(5, 6)], ["why"])


async def test_a_peer_that_does_not_end_its_side_has_not_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attachments, "_FAREWELL", 0.05)
    terminal, trunk = FakeTerminal(), SilentTrunk()
    terminal.flow.end(0, None)
    async with asyncio.timeout(10):
        assert not await Attachment(trunk, terminal, ManualClock()).run(Attached("s", 0, 0))
    assert trunk.controls[-1] == Exit(code=0, offset=0)


async def test_a_peer_that_ends_its_side_has_read_it() -> None:
    terminal, trunk = FakeTerminal(), RecordingTrunk()
    terminal.flow.output(b"bye")
    terminal.flow.end(4, None)
    async with asyncio.timeout(10):
        assert await Attachment(trunk, terminal, ManualClock()).run(Attached("s", 0, 0))
    assert trunk.output == b"bye"


async def test_a_replaced_one_sends_nothing_more() -> None:
    terminal, trunk = FakeTerminal(), RecordingTrunk()
    mine = Attachment(trunk, terminal, ManualClock())
    async with asyncio.TaskGroup() as group:
        run = group.create_task(mine.run(Attached("s", 0, 0)))
        await trunk.until(lambda: bool(trunk.controls))
        mine.replace()
        terminal.flow.output(b"for the newer one")
    assert not run.result()
    assert trunk.aborted == "replaced"
    assert terminal.flow.next_output() == b"for the newer one"
