"""The documentation keeps to what exists: links, commands, options, make targets, versions."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import underpass
from underpass.cli.main import app

from .files import ROOT, repository_files

PAGES = [path for path in repository_files() if path.suffix == ".md" and path.parts[0] != "web"]


def typed(page: Path) -> list[str]:
    """Every command line behind ``$`` in the page's console blocks."""
    blocks = re.findall(r"```(?:console|text)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [
        match[1].partition("  #")[0].strip()
        for block in blocks
        for match in re.finditer(r"^\s*\$ (.+)$", block, re.MULTILINE)
    ]


def commands(program: str) -> list[tuple[Path, str]]:
    """(page, command line from *program* on) for each use of it in the documentation."""
    found = []
    for page in PAGES:
        for line in typed(page):
            for part in re.split(r"\|\||&&|[|;&]| -- |\$\(", line):
                words = re.sub(r"^\s*(sudo|[A-Z_]+=\S+)\s+", "", part.strip())
                if words.split()[:1] == [program]:
                    found.append((page, words.rstrip(")")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            continue
        place = (ROOT / page).parent / path
        if not place.exists():
            broken.append(target)
        elif anchor and place.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
            if anchor not in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}:
                broken.append(target)
    assert not broken


def known_options(words: list[str]) -> tuple[list[str], set[str]]:
    """The subcommands in *words* and every option that may stand among them.

    Raises:
        AssertionError: there is no such command.
    """
    command: Any = get_command(app)
    context = typer.Context(command, info_name="underpass")
    options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    path: list[str] = []
    valued = {"--server", "--token", "--fingerprint"}
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = not path and word in valued
        elif hasattr(command, "list_commands"):
            following = command.get_command(context, word)
            if following is None:
                if path:
                    break
                raise AssertionError(f"no command {word!r}")
            command, path = following, [*path, word]
            context = typer.Context(command, info_name=word, parent=context)
            options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        else:
            break
    return path, options | {"--help", "-h"}


@pytest.mark.parametrize(("page", "line"), commands("underpass"), ids=str)
def test_commands_and_options_exist(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    _, options = known_options(words)
    unknown = [w for w in words if w.startswith("--") and w.partition("=")[0] not in options]
    assert not unknown


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {line.split()[1] for _, line in commands("make") if len(line.split()) > 1}
    assert used
    assert used <= targets


def test_the_command_reference_is_what_help_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/cli_reference.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr} run: python scripts/cli_reference.py"


def test_the_changelog_has_this_version() -> None:
    assert f"## {underpass.__version__}" in (ROOT / "CHANGELOG.md").read_text()
