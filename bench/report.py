"""Tables of a benchmark: medians over rounds, ratios to the direct connection of the same round."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import uvloop

__all__ = ["LOAD_AT_START", "Results", "cell", "describe_machine", "machine", "number", "write"]

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
LOAD_AT_START = os.getloadavg()

Results = dict[tuple[str, str], list[float]]
"""(measure's title, way) → one figure for each turn."""


def number(value: float) -> str:
    """*value* with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(results: Mapping[tuple[str, str], list[float]], title: str, name: str) -> str:
    """A median, and its ratio to direct with the spread (or the spread of the figure itself)."""
    values = results.get((title, name))
    if values is None:
        return "–"
    median = number(statistics.median(values))
    direct = results.get((title, "direct"))
    if name == "direct" or direct is None:
        return f"{median} ({number(min(values))}–{number(max(values))})"
    ratios = [value / base for value, base in zip(values, direct, strict=True)]
    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
    return f"{median} = **{statistics.median(ratios):.2f}** × ({spread})"


def describe_machine(rounds: int, seconds: float) -> str:
    """How much was measured, on what."""
    return f"{time.strftime('%Y-%m-%d')}, {rounds} rounds of {seconds:g} s per figure. {machine()}"


def machine() -> str:
    """What it ran on, without names of machines or paths."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    version = subprocess.run(
        ["iperf3", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"CPython {platform.python_version()}, uvloop {uvloop.__version__}, iperf3 {version}. "
        f"Load average before the run: {LOAD_AT_START[0]:.1f}."
    )


def write(part: str, text: str) -> None:
    """Put *text* between the markers of *part* in the docs."""
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    page = DOCS.read_text()
    before, found, rest = page.partition(begin)
    if not found:
        raise RuntimeError(f"docs/benchmarks.md has no {begin}.")
    _, _, after = rest.partition(end)
    DOCS.write_text(f"{before}{begin}\n{text}\n{end}{after}")
