"""After a restart: what waits for its machine, what is told it is over, what is lost for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.terminals.house import House, Machine, Person, eventually, house
from tests.gateway.terminals.test_agent_relay import fetch
from underpass.core.ids import new_id
from underpass.gateway.terminals import takeover
from underpass.store.db.models import TtySession


async def leave_a_shell(tmp_path: Path) -> tuple[Machine, str, int]:
    """A gateway that stops with a shell running; the machine, the session, what was seen."""
    async with house(tmp_path) as first:
        ada = await first.setup()
        box = await first.machine()
        screen, session_id = await ada.shell(box.id)
        return box, session_id, screen.offset


async def come_back(second: House, box: Machine) -> Person:
    ada = await second.sign_in("ada")
    second.boss = (await second.services.sign_in.identify(ada.token)).subject
    box.house = second
    second.machines.append(box)
    return ada


async def test_who_comes_before_their_machine_is_told_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "WAIT_SECONDS", 0.05)
    box, session_id, offset = await leave_a_shell(tmp_path)
    async with house(tmp_path) as second:
        ada = await come_back(second, box)
        early = await ada.resume(box.id, session_id, offset)
        assert (await early.end()).code == 1013
        assert early.controls[-1]["code"] == "agent_away"
        await box.connect()
        back = await ada.resume(box.id, session_id, offset)
        assert (await back.control("resumed"))["offset"] == offset
        await box.host.close()


async def test_a_polling_machine_takes_its_session_up_again(tmp_path: Path) -> None:
    box, session_id, offset = await leave_a_shell(tmp_path)
    async with house(tmp_path) as second:
        ada = await come_back(second, box)
        box.link = None
        await fetch(second, box)
        back = await ada.resume(box.id, session_id, offset)
        back.socket.type("echo sa''me\n")
        await back.until(b"same")
        await box.host.close()


async def test_grace_ends_what_does_not_come_back(tmp_path: Path) -> None:
    box, session_id, offset = await leave_a_shell(tmp_path)
    async with house(tmp_path, terminal_grace=0.2) as second:
        ada = await come_back(second, box)

        async def over() -> bool:
            row = await ada.data(f"/api/v1/sessions/{session_id}")
            return row["status"] == "error"

        await eventually(over)
        gone = await ada.resume(box.id, session_id, offset)
        assert (await gone.end()).code == 4404
        assert "did not come back" in gone.controls[-1]["message"]
        await box.host.close()


@pytest.mark.parametrize("who", ["agent", "user"])
async def test_lost_rights_end_what_waits(tmp_path: Path, who: str) -> None:
    box, session_id, _ = await leave_a_shell(tmp_path)
    async with house(tmp_path) as second:
        ada = await come_back(second, box)
        if who == "agent":
            assert await second.services.terminals.close_for_agent(box.id, "Deleted.") == 1
        else:
            assert await second.services.terminals.close_for_user(ada.id, "disabled") == 1
        row = await ada.data(f"/api/v1/sessions/{session_id}")
        assert row["status"] == "closed"
        assert row["error_message"] in ("Deleted.", "This user was disabled.")
        await box.host.close()


async def test_programs_of_before_are_errors_and_rows_never_stay_active(tmp_path: Path) -> None:
    box, session_id, _ = await leave_a_shell(tmp_path)
    async with house(tmp_path) as again:
        program = new_id()
        await again.services.sessions.create(
            TtySession(
                id=program, asset_id=box.id, user_id="u", username="u", kind="exec",
                status="active", command="ls", cols=80, rows=24, created_at=0.0,
            )
        )  # fmt: skip
        await again.services.sessions.change(session_id, status="active")
    async with house(tmp_path) as second:
        row = await second.services.sessions.get(program)
        assert row is not None
        assert (row.status, bool(row.error_message)) == ("error", True)
        row = await second.services.sessions.get(session_id)
        assert row is not None
        assert row.status == "detached"
    await box.host.close()


async def test_a_lost_recording_does_not_lose_the_session(tmp_path: Path) -> None:
    box, session_id, offset = await leave_a_shell(tmp_path)
    for path in (tmp_path / "state").rglob("*.cast"):
        path.unlink()
    async with house(tmp_path) as second:
        ada = await come_back(second, box)
        await box.connect()
        back = await ada.resume(box.id, session_id, offset)
        back.socket.type("echo sti''ll\n")
        await back.until(b"still")
        assert (await ada.data("/api/v1/events", type="recording.failed"))["total"] >= 1
        await box.host.close()
