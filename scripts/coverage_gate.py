"""Fail when branch coverage is below the floor: wire, links and control together, and everything.

Reads the JSON that ``coverage json`` writes. What counts is coverage.py's branch-aware figure
(lines and branches that ran, of all lines and branches); the bare branch figure stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

CORE_LAYERS = ("wire", "links", "control")
CORE_FLOOR = 90.0
OVERALL_FLOOR = 85.0


@dataclass(frozen=True, slots=True)
class Share:
    """How much of something ran."""

    lines: int
    lines_run: int
    branches: int
    branches_run: int

    @property
    def percent(self) -> float:
        """Lines and branches together, in percent; 100 when there is nothing."""
        total = self.lines + self.branches
        return 100.0 * (self.lines_run + self.branches_run) / total if total else 100.0

    @property
    def branch_percent(self) -> float:
        return 100.0 * self.branches_run / self.branches if self.branches else 100.0


def share(files: Iterable[dict[str, Any]]) -> Share:
    """Add up the summaries of *files*."""
    summaries = [file["summary"] for file in files]
    return Share(
        sum(item["num_statements"] for item in summaries),
        sum(item["covered_lines"] for item in summaries),
        sum(item["num_branches"] for item in summaries),
        sum(item["covered_branches"] for item in summaries),
    )


def in_core_layer(path: str) -> bool:
    """Whether *path* belongs to a layer with the higher floor."""
    parts = Path(path).parts
    return any(left == "underpass" and right in CORE_LAYERS for left, right in pairwise(parts))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="what `coverage json` wrote")
    options = parser.parse_args(arguments)
    files: dict[str, dict[str, Any]] = json.loads(options.report.read_text())["files"]
    if not any(in_core_layer(path) for path in files):
        print("coverage: the report names no file of wire, links or control", file=sys.stderr)
        return 2
    failed = False
    for name, floor, chosen in (
        ("wire + links + control", CORE_FLOOR, [f for p, f in files.items() if in_core_layer(p)]),
        ("everything", OVERALL_FLOOR, list(files.values())),
    ):
        measured = share(chosen)
        below = measured.percent < floor
        failed |= below
        print(
            f"coverage: {name}: {measured.percent:.2f} % with branches"
            f" (branches alone {measured.branch_percent:.2f} %), floor {floor:g} %"
            f"{'  BELOW' if below else ''}"
        )
    if failed:
        worst = sorted(files.items(), key=lambda item: -missing(item[1]))[:10]
        print("coverage: most is missing in")
        for path, file in worst:
            print(f"  {path}: {missing(file)} lines and branches")
    return int(failed)


def missing(file: dict[str, Any]) -> int:
    """How many lines and branches of *file* never ran."""
    summary = file["summary"]
    return int(summary["missing_lines"] + summary["missing_branches"])


if __name__ == "__main__":
    sys.exit(main())
