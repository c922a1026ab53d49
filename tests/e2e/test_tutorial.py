"""docs/tutorial.md works as typed: its commands run in one shell, in order, with its output."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.programs import environment, free_port

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def script(port: int) -> tuple[str, list[str]]:
    """The page as a shell script, and the lines it promises (``…`` stands for anything)."""
    commands: list[str] = []
    promised: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL):
        for line in block.splitlines():
            if not line.startswith("$ "):
                promised.append(line.strip())
                continue
            command = line[2:].replace("3100", str(port))
            if command in ("make setup", ". .venv/bin/activate"):
                continue  # the tests run in such an environment already
            commands.append(command)
            if command.startswith("underpass serve"):
                commands.append(
                    f"for i in $(seq 150); do python -c 'import httpx, sys;"
                    f' sys.exit(httpx.get("http://localhost:{port}/ready", trust_env=False)'
                    f".status_code != 200)' 2>/dev/null && break; sleep 0.2; done"
                )
            if command.startswith("underpass agent"):
                # "After a second or two": wait for it instead.
                commands.append(
                    "for i in $(seq 150); do underpass machines | grep -q online && break;"
                    " sleep 0.2; done"
                )
    return "set -m\n" + "\n".join(commands) + "\nwait\n", [p for p in promised if p]


def test_the_tutorial_works_as_typed(tmp_path: Path) -> None:
    port = free_port()
    text, promised = script(port)
    (tmp_path / "home").mkdir()
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
        env=environment(tmp_path / "home", PATH=path),
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    for line in promised:
        expected = ".*".join(re.escape(part) for part in line.replace("3100", str(port)).split("…"))
        assert re.search(expected, done.stdout), f"the page promises {line!r}:\n{output}"
    assert re.search(r"^box +online", done.stdout, re.MULTILINE), output
    assert "fail " not in done.stdout, output
    assert not (tmp_path / "tutorial").exists()
