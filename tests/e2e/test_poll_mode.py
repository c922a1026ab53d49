"""Where only short HTTPS requests get through, a shell still opens: poll mode, no link at all."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, killing
from tests.e2e.terminal import Terminal


def test_a_prompt_within_eight_seconds_without_any_link(
    gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path
) -> None:
    agent = AgentProgram(
        tmp_path, gateway, "shy", token=gateway.join_token(admin), arguments=["--mode", "poll"]
    ).start()
    with killing(agent):

        def online() -> str | None:
            for item in admin.get("/api/v1/assets").json()["data"]["items"]:
                if item["name"] == "shy" and item["status"] == "online":
                    assert not item["linked"]
                    return str(item["id"])
            return None

        machine = eventually(online, 30, "the polling agent online")
        started = time.monotonic()
        terminal = Terminal.open(admin, machine)
        terminal.until(r"[$#] ", 12)
        assert time.monotonic() - started < 8
        assert b"42" in terminal.run("echo $((6*7))")
        terminal.type("exit 5\n")
        assert terminal.until_control("exit")["code"] == 5
