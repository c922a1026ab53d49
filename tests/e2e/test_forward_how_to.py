"""docs/how-to/forward-a-port.md works as typed: its commands run in one shell, in order."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, environment, eventually, free_port
from tests.e2e.test_exec import token_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "forward-a-port.md"
pytestmark = pytest.mark.needs("curl")


def test_the_page_works_as_typed(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    for port in ("8000", "8080", "1080"):
        text = re.sub(rf"(?<=[ :]){port}(?=[ :/\n])", str(free_port()), text)
    commands: list[str] = []
    promised: list[str] = []
    on_the_machine = ""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            prompt, dollar, command = line.partition("$ ")
            if not dollar:
                promised.append(line)
            elif prompt:
                on_the_machine = command  # which is this one, too
            elif command.endswith(" &"):
                # A person waits for the line; so do we.
                commands += [f"{command[:-1]} >> out &", "for i in $(seq 300); do"
                             " [ -s out ] && break; sleep 0.1; done; cat out; rm out"]  # fmt: skip
            else:
                commands.append(command)
    web = subprocess.Popen(
        shlex.split(on_the_machine),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = int(on_the_machine.split()[3])
        eventually(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
        done = subprocess.run(
            ["timeout", "90", "bash", "-c", "\n".join([*commands, "wait"])],
            cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
            env=environment(
                tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin),
                PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            ),
        )  # fmt: skip
    finally:
        web.terminate()
        web.wait(10)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == promised, done.stderr
