"""docs/how-to/declare-mappings-in-a-file.md works as typed: its files and commands, in order."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.e2e.programs import AgentProgram, GatewayProgram, environment, eventually
from tests.e2e.test_exec import token_of
from tests.e2e.tunnelled import tcp_server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "declare-mappings-in-a-file.md"
pytestmark = pytest.mark.needs("curl")


def page_server(sock: Any) -> None:
    """What ``python3 -m http.server`` would say, as far as the page looks."""
    sock.recv(4096)
    sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n<h1>Directory listing for /</h1>\n")


def test_the_page_works_as_typed(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, tmp_path: Path
) -> None:
    first = 21_000 + secrets.randbelow(8_000)
    file = agent.state / "underpass.yaml"

    def declared(names: set[str]) -> bool:
        items = admin.get("/api/v1/mappings").json()["data"]["items"]
        return {one["name"] for one in items if one["declared_by"]} == names

    with tcp_server(page_server) as web:
        text = PAGE.read_text().replace("gw.example.org", str(urlsplit(gateway.url).hostname))
        text = text.replace("~/.underpass", str(agent.state)).replace("8000", str(web))
        text = text.replace("20080", str(first)).replace("20090", str(first + 1))
        ran = 0
        for kind, block in re.findall(r"```(yaml|console)\n(.*?)```", text, re.DOTALL):
            if kind == "yaml":
                file.write_text(block)
                names = {each["name"] for each in yaml.safe_load(block)["mappings"]}
                eventually(lambda names=names: declared(names), 20, f"{names} declared")
                continue
            commands: list[str] = []
            promised: list[str] = []
            for line in block.splitlines():
                prompt, dollar, command = line.partition("$ ")
                if not dollar:
                    promised.append(line)
                elif prompt in {"", "box"}:
                    commands.append(command)
                    if command.startswith("rm "):
                        commands.append("sleep 5")  # the person reads on
            if any("http.server" in command for command in commands):
                continue
            done = subprocess.run(
                ["bash", "-c", "\n".join(commands)],
                cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                env=environment(
                    tmp_path, UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token_of(admin),
                    PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                ),
            )  # fmt: skip
            assert "Traceback" not in done.stderr, done.stderr
            assert done.stdout.splitlines() == promised, f"{commands}\n{done.stderr}"
            ran += len(commands)
        assert ran >= 8
    assert declared(set())
