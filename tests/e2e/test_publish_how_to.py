"""docs/how-to/publish-a-port.md works as typed: its commands run in one shell, in order."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e import programs
from tests.e2e.programs import AgentProgram, GatewayProgram, environment, free_port
from tests.e2e.test_exec import token_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "publish-a-port.md"
pytestmark = pytest.mark.needs("curl")


def test_the_page_works_as_typed(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str, tmp_path: Path
) -> None:
    text = PAGE.read_text().replace("gw.example.org", str(urlsplit(gateway.url).hostname))
    text = re.sub(r"(?<=[ :])8000(?=[ :/\n])", str(free_port()), text)
    # Ports of the range that another program of this machine hardly has.
    first = 21000 + secrets.randbelow(8000)
    for number, port in enumerate(("20053", "20080", "20081", "20082", "20090")):
        text = re.sub(rf"(?<=[ :]){port}(?=[ /\n])", str(first + number), text)
    commands = ["set -m"]
    promised: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            prompt, dollar, command = line.partition("$ ")
            if not dollar:
                promised.append(line)
            elif prompt:  # on the machine, which is this one, too
                commands += [f"{command} >/dev/null 2>&1 & WEB=$!; disown", "sleep 1"]
            elif command.endswith(" &"):
                # A person waits for the line; so do we.
                commands += [f"{command[:-1]} >> out &", "for i in $(seq 300); do"
                             " [ -s out ] && break; sleep 0.1; done; cat out; rm out"]  # fmt: skip
            elif command.startswith("kill"):
                commands += [command, "wait %1"]
            else:
                commands.append(command)
    done = subprocess.run(
        ["bash", "-c", "\n".join([*commands, "kill $WEB"])],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
        env=environment(
            tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin),
            PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        ),
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    pattern = "\n".join(
        r"\d+".join(re.escape(part) for part in line.split("…")) for line in promised
    )
    assert re.fullmatch(pattern, done.stdout.strip()), f"{done.stdout}\n{done.stderr}"
    left = {one["name"] for one in admin.get("/api/v1/mappings").json()["data"]["items"]}
    # Expose took its own along.
    assert left == {"box-web", "box-dns", "box-proxy", "box-app", "web-a", "web-b"}


def test_on_the_machine_itself_whatever_its_agent_was_named(
    gateway: GatewayProgram,
    admin: httpx.Client,
    agent: AgentProgram,
    machine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It is found among the running programs, by its command line: one that is forked has none.
    monkeypatch.setattr(programs, "FORKED", False)
    agent.stop()
    agent.start()
    home = tmp_path / "ann"
    home.mkdir()
    env = environment(home, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin))
    command = subprocess.Popen(
        [sys.executable, "-m", "underpass.cli.main", "expose", "tcp", "22"],
        stdout=subprocess.PIPE, env=env,
    )  # fmt: skip
    try:
        assert command.stdout is not None
        assert re.fullmatch(rb"localhost:2\d{4}\n", command.stdout.readline())
        (made,) = admin.get("/api/v1/mappings").json()["data"]["items"]
        assert made["target_client_id"] == machine
    finally:
        command.terminate()
        command.wait(15)
