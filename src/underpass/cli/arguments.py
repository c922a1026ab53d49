"""Arguments in the forms people type them: ``1h``, ``env=prod``, names of machines."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["MachineName", "complete_machine", "duration", "labels"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_NAMES_FOR = 60.0
"""Seconds for which machine names that completion fetched are used again."""


def duration(text: str) -> int:
    """Seconds in ``90``, ``15m``, ``1h30m``, ``7d``.

    Raises:
        typer.BadParameter: it is no such time.
    """
    plain = text.strip().lower()
    if plain.isdigit() and int(plain) > 0:
        return int(plain)
    if _DURATION.fullmatch(plain):
        total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(plain))
        if total >= 1:
            return int(total)
    raise typer.BadParameter(f"{text!r} is no time; write 90, 15m, 1h30m or 7d")


def labels(pairs: list[str] | None) -> dict[str, str]:
    """``["env=prod"]`` as a dictionary.

    Raises:
        typer.BadParameter: one is not ``KEY=VALUE``.
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{pair!r} is no label; write KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def _names_file(server: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    name = re.sub(r"[^a-z0-9.]+", "-", server.lower())
    return (Path(base) if base else Path("~/.cache").expanduser()) / "underpass" / f"{name}.json"


def complete_machine(ctx: typer.Context, incomplete: str) -> list[str]:
    """Machine names that begin with *incomplete*; nothing when the gateway can't be asked."""
    try:
        return [name for name in _machine_names(ctx) if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - an error text would end up on the command line being typed
        return []


def _machine_names(ctx: typer.Context) -> list[str]:
    from underpass.cli.options import Options

    # Completion parses the line leniently and never runs the root callback that sets `obj`.
    given = ctx.find_root().params
    options = Options(server=given.get("server"), token=given.get("token"))
    connection = options.connection()
    cache = _names_file(connection.server)
    try:
        if time.time() - cache.stat().st_mtime < _NAMES_FOR:
            return [str(name) for name in json.loads(cache.read_text())]
    except (OSError, ValueError):
        pass  # none yet, or a broken one: ask
    from underpass.cli.api import Api

    with Api(connection, timeout=2.0) as api:
        items: list[dict[str, Any]] = api.items("/api/v1/assets", limit=1000)
    names = sorted({str(item.get("name") or item["hostname"]) for item in items})
    cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache.write_text(json.dumps(names))
    cache.chmod(0o600)
    return names


MachineName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The machine: its name, host name or id.",
        autocompletion=complete_machine,
    ),
]
