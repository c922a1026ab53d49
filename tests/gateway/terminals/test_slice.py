"""From authorise to exit code, over a real shell on a link in memory."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.gateway.terminals.house import House, Machine, Person, eventually


async def test_a_prompt_a_command_and_the_exit_code(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)

    async def active() -> Any:
        live = await ada.data(f"/api/v1/sessions/{session_id}")
        return live if live["status"] == "active" else None

    live = await eventually(active)  # the prompt does not wait for the database
    assert live["agent_ip"] == "198.51.100.9"
    screen.socket.type("echo $((6*7))\n")
    await screen.until(b"\r42\r\n")
    screen.socket.type("exit 3\n")
    assert (await screen.control("exit"))["code"] == 3
    assert (await screen.end()).code == 1000
    over = await ada.data(f"/api/v1/sessions/{session_id}")
    assert (over["status"], over["exit_code"]) == ("closed", 3)
    recording = await ada.data(f"/api/v1/recordings/{over['recording']}")
    assert recording["status"] == "finished"
    cast = await ada.http.get(f"/api/v1/recordings/{over['recording']}/cast")
    assert hashlib.sha256(cast.content).hexdigest() == recording["sha256"]
    shown = "".join(
        event[2] for event in map(json.loads, cast.text.splitlines()[1:]) if event[1] == "o"
    )
    assert shown.encode() == bytes(screen.output)
    await eventually(lambda: not box.host.announce())
