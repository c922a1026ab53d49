"""Programs leave a record: row, events, recording; whatever happens to the stream."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.gateway.terminals.house import House, Machine, Person
from underpass.control.subject import Subject
from underpass.core.errors import InvalidRequest
from underpass.gateway.terminals.exec_audit import ExecAudit, ExecTap, command_text
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.wire.terminal import Exit, FrameType, encode_control, frame


@dataclass
class Row:
    id: str
    name: str = "box"


@pytest.fixture
def audit(home: House) -> ExecAudit:
    services = home.services
    return ExecAudit(
        sessions=services.sessions,
        desk=services.terminals.desk,
        events=services.events,
        clock=services.clock,
    )


async def test_a_program_is_recorded(
    home: House, ada: Person, box: Machine, audit: ExecAudit
) -> None:
    subject = Subject(ada.id, "ada", "admin", ip="192.0.2.1")
    async with audit(subject, Row(box.id), ["printf", "%s", "a b"]) as record:
        live = await ada.data(f"/api/v1/sessions/{record.session_id}")
        assert (live["kind"], live["status"], live["command"]) == (
            "exec", "active", "printf %s 'a b'",
        )  # fmt: skip
        stream = await home.services.router.open(
            box.id, "exec", on_behalf_of=subject,
            meta={"session_id": record.session_id, "command": "echo out; echo err >&2; exit 6"},
        )  # fmt: skip
        near, far = memory_pair()
        near.finish()
        await relay(far, stream, tap=record.tap)
    row = await ada.data(f"/api/v1/sessions/{record.session_id}")
    assert (row["status"], row["exit_code"]) == ("closed", 6)
    cast = await ada.http.get(f"/api/v1/recordings/{row['recording']}/cast")
    shown = "".join(json.loads(line)[2] for line in cast.text.splitlines()[1:])
    assert sorted(shown.split()) == ["err", "out"]
    ended = (await ada.data("/api/v1/events", type="session.ended"))["items"][0]
    recording = await ada.data(f"/api/v1/recordings/{row['recording']}")
    assert ended["details"]["sha256"] == recording["sha256"]
    assert (ended["details"]["stdout"], ended["details"]["stderr"]) == (4, 4)


async def test_a_stream_that_fails_is_an_error_in_the_row(
    home: House, ada: Person, box: Machine, audit: ExecAudit
) -> None:
    subject = Subject(ada.id, "ada", "admin")
    with pytest.raises(InvalidRequest):
        async with audit(subject, Row(box.id), "true") as record:
            raise InvalidRequest("The agent does not like it.")
    row = await ada.data(f"/api/v1/sessions/{record.session_id}")
    assert (row["status"], row["error_message"]) == ("error", "The agent does not like it.")
    async with audit(subject, Row(box.id), "true") as record:
        pass
    row = await ada.data(f"/api/v1/sessions/{record.session_id}")
    assert row["status"] == "error"


def test_frames_that_make_no_sense_stop_the_recording_only() -> None:
    tap = ExecTap(None)
    tap.a_to_b(b"anything")
    tap.b_to_a(frame(FrameType.BYTES, b"ok"))
    tap.b_to_a(b"\0\xff\xff\xff")
    tap.b_to_a(frame(FrameType.CONTROL, encode_control(Exit(0))))
    assert (tap.stdout, tap.exit) == (2, None)


def test_commands_as_people_read_them() -> None:
    assert command_text("ls -l") == "ls -l"
    assert command_text(["rm", "a b"]) == "rm 'a b'"
    for bad in (None, "", [], [5], [""], {"a": 1}):
        with pytest.raises(InvalidRequest):
            command_text(bad)
