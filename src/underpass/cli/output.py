"""Printing: tables for people, one JSON value for scripts, failures in one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from underpass.core.errors import UnderpassError

__all__ = ["Output", "ago", "plain", "size"]


class Output:
    """Where a command's result goes.

    Args:
        json: print results as JSON, and nothing else on stdout.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json

    def value(self, value: Any, text: str | None = None) -> None:
        """The result: *value* for scripts, *text* for people (default: nothing)."""
        if self.json:
            print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)
        elif text:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Something to know, on stderr."""
        print(text, file=sys.stderr, flush=True)

    def failure(self, error: UnderpassError) -> None:
        """One line on stderr: what, why, what next; for scripts the same on stdout as JSON."""
        if self.json:
            described: dict[str, Any] = {"code": error.code, "message": error.message}
            if error.hint:
                described["hint"] = error.hint
            self.value({"error": described})
        self.note(f"underpass: {' '.join(plain(str(error)).split())}")

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        value: Any,
        empty: str = "Nothing.",
    ) -> None:
        """Rows under *columns*; *value* is what ``--json`` prints instead, *empty* what no rows do.

        On a terminal a rich table, cut to its width; elsewhere aligned plain text, never cut.
        """
        if self.json:
            self.value(value)
            return
        cells = [[plain("" if cell is None else str(cell)) for cell in row] for row in rows]
        if not cells:
            self.note(empty)
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            _rich_table(columns, cells)
        else:
            _plain_table(columns, cells)


def plain(text: str) -> str:
    """*text* without control characters: what a machine calls itself must not drive a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _rich_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


_STYLES = {
    "online": "green", "ok": "green", "active": "green", "finished": "green",
    "offline": "red", "fail": "red", "error": "red", "rejected": "red", "interrupted": "red",
    "degraded": "yellow", "maintenance": "yellow", "pending": "yellow", "detached": "yellow",
}  # fmt: skip


def _plain_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
    sys.stdout.flush()


def ago(then: str | None, now: float) -> str:
    """How long ago *then* (RFC 3339) was, in one unit: ``12 s``, ``3 min``, ``2 h``, ``5 d``."""
    if not then:
        return ""
    from datetime import datetime

    seconds = max(0.0, now - datetime.fromisoformat(then.replace("Z", "+00:00")).timestamp())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def size(count: float | None) -> str:
    """Bytes for people: ``1.5 MiB``."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
