"""Recordings and their sessions: a disk that fails in the middle, and lines longer than a block."""

from __future__ import annotations

import pytest

from tests.gateway.terminals.house import House, Machine, Person, eventually
from underpass.gateway.terminals.live_view import LiveView
from underpass.store.files.recording_file import RecordingFile, RecordingLost


async def test_a_disk_that_fails_alerts_and_the_shell_goes_on(
    home: House, ada: Person, box: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, session_id = await ada.shell(box.id)

    def full(_self: RecordingFile) -> None:
        raise RecordingLost("No space left on device.")

    monkeypatch.setattr(RecordingFile, "flush", full)
    screen.socket.type("echo go''es-on\n")
    await screen.until(b"goes-on")
    hub = home.services.terminals.hubs[session_id]
    assert hub.recorder is not None
    await eventually(lambda: hub.recorder and hub.recorder.failed)
    # With nobody there, and no recorder, the shell is still not held up.
    screen.socket.type("head -c 2000000 /dev/zero | tr '\\0' x; echo do''ne\n")
    screen.socket.drop()
    await eventually(lambda: hub.core.log.end > 2_000_000)
    back = await ada.resume(box.id, session_id, 0)
    await back.until(b"done")
    back.socket.type("exit\n")
    await back.end()
    row = await ada.data(f"/api/v1/sessions/{session_id}")
    assert row["status"] == "closed"
    recording = await ada.data(f"/api/v1/recordings/{row['recording']}")
    assert recording["status"] == "interrupted"
    assert (await ada.data("/api/v1/events", type="recording.failed"))["total"] >= 1


async def test_a_line_longer_than_a_block_is_sent_whole(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.type("exit\n")
    await screen.end()
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    desk = home.services.terminals.desk
    path = next(desk.store.root.rglob(f"{recording}.cast"))
    with path.open("a") as file:
        file.write('[99.0,"o","' + "z" * 700_000 + '"]\n')
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    async def allowed() -> bool:
        return True

    await LiveView(desk, recording, 0).send(send, allowed)
    assert "".join(sent) == path.read_text()
    assert all(text.endswith("\n") for text in sent)
    await LiveView(desk, "00000000-0000-4000-8000-000000000000", 0).send(send, allowed)


async def test_sizes_of_recordings_under_way_are_noted(
    home: House, ada: Person, box: Machine
) -> None:
    _, session_id = await ada.shell(box.id)
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    desk = home.services.terminals.desk

    async def noted() -> bool:
        await desk.note_sizes()
        row = await ada.data(f"/api/v1/recordings/{recording}")
        return row["size"] > 150 and row["status"] == "recording"

    await eventually(noted)
