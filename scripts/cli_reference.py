"""Write docs/reference/cli.md from the commands themselves: ``python scripts/cli_reference.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from underpass.cli.main import app

PATH = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
HEAD = """\
# Command line

Written by `scripts/cli_reference.py` from what `underpass COMMAND --help` says.

Options that every command takes stand before it: `--server`, `--token`, `--fingerprint`,
`--transport`, `--json` (which may stand anywhere before `--`, except after `serve`, `agent`,
`shell`, `exec` and `ssh-proxy`). They come from `UNDERPASS_SERVER`, `UNDERPASS_TOKEN`,
`UNDERPASS_FINGERPRINT` and `UNDERPASS_TRANSPORT` when not given, then from what `underpass login`
stored in `~/.config/underpass/credentials.json` (`UNDERPASS_CONFIG_DIR`, `XDG_CONFIG_HOME`).
`SSL_CERT_FILE` adds an authority of your own.

Completion, machine names included: `underpass --install-completion` (bash, zsh, fish).
[Exit statuses](exit-codes.md) are documented apart.
"""


def sections(command: Any, path: str, parent: Any = None) -> list[str]:
    """One section for *command*, then its subcommands'."""
    context = typer.Context(command, info_name=path if parent is None else command.name,
                            parent=parent, terminal_width=88)  # fmt: skip
    text = command.get_help(context).replace("\b\n", "").rstrip()
    found = [f"{'#' * (1 + len(path.split()))} {path}\n\n```text\n{text}\n```\n"]
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    for name in names:
        found += sections(command.get_command(context, name), f"{path} {name}", context)
    return found


def reference() -> str:
    """The whole page."""
    return HEAD + "\n" + "\n".join(sections(get_command(app), "underpass"))


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PATH.read_text(encoding="utf-8") == reference() else f"{PATH} is old")
    PATH.write_text(reference(), encoding="utf-8")
