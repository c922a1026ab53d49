"""Part "links": what two hops over a link cost, against the direct connection of the same round.

User → gateway → agent → service on loopback, every program a process of its own. Everything is
measured once per round and carrier, interleaved, so that a ratio compares neighbours in time; a
table shows medians over the rounds with the smallest and the largest. ``--write`` puts the table
between the markers of ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.measures import bulk, bulk_beside, requests, round_trips
from bench.report import Results, cell, describe_machine, number, write
from bench.services import (
    Children,
    Program,
    make_certificate,
    start_echo,
    start_forwarders,
    start_iperf,
    start_nginx,
)

CARRIERS = ["tcp", "dedicated", "tls", "websocket"]
NAMES = {
    "direct": "direct",
    "bare": "two bare forwarders",
    "tcp": "link over TCP",
    "dedicated": "link over TCP, spares beside it",
    "tls": "link over TLS 1.3",
    "websocket": "link over WebSocket",
}


@dataclass
class Way:
    """One way to the services: direct, or over a link."""

    iperf: int
    nginx: int
    echo: int
    keys: int
    gateway: Program | None = None


@dataclass(frozen=True)
class Measure:
    """One row of numbers: how to take it and what is asked of it."""

    name: str
    unit: str
    take: Callable[[Way, float], float | tuple[float, float]]
    better: str = "more"  # or "less"
    floors: dict[str, float] = field(default_factory=dict)  # carrier -> ratio to direct
    limits: dict[str, float] = field(default_factory=dict)  # carrier -> absolute
    direct: bool = True
    bare: bool = False
    """Whether it says something about two bare forwarders."""
    slices: int = 1
    """Into how many short turns its time in a round is cut; each gives a figure and a ratio."""


def new_streams(way: Way, seconds: float) -> float:
    """Streams opened, accepted and closed over the link, per second."""
    assert way.gateway is not None
    return float(way.gateway.ask(f"streams {seconds}")["per_second"])


def keystrokes(way: Way, seconds: float) -> tuple[float, float]:
    """Echo of single bytes, typed with pauses, while four bulk streams use the same link."""
    beside = bulk_beside(way.iperf, 4, seconds + 1.0)
    try:
        time.sleep(0.6)
        return round_trips(way.keys, seconds, size=1, pause=0.003)
    finally:
        beside.communicate(timeout=seconds + 20)


MEASURES = [
    Measure("bulk, 1 stream", "Gbit/s", lambda way, s: bulk(way.iperf, 1, s),
            bare=True, floors={"tcp": 0.30, "tls": 0.15}),
    Measure("bulk, 8 streams", "Gbit/s", lambda way, s: bulk(way.iperf, 8, s),
            floors={"tcp": 0.30, "tls": 0.15}),
    Measure("requests, 100 connections", "1/s", lambda way, s: requests(way.nginx, s),
            floors={"tcp": 0.35}),
    Measure("new connections", "1/s",
            lambda way, s: requests(way.nginx, s, new_connections=True), floors={"tcp": 0.20},
            slices=2),
    Measure("64 bytes there and back, p50|p99", "µs", lambda way, s: round_trips(way.echo, s),
            better="less", floors={"tcp": 3.5}, slices=6, bare=True),
    Measure("keystroke beside 4 bulk streams, p50|p99", "µs", keystrokes, better="less",
            limits={"tcp": 500}),
    Measure("new streams over the link", "1/s", new_streams, direct=False,
            limits={"tcp": 10_000}),
]  # fmt: skip


def run_round(ways: dict[str, Way], seconds: float, results: Results) -> None:
    """Take every measure once on every way."""
    for measure in MEASURES:
        for _ in range(measure.slices):
            for name, way in ways.items():
                if way.gateway is not None or (measure.bare if name == "bare" else measure.direct):
                    take(measure, name, way, seconds / measure.slices, results)


def take(
    measure: Measure,
    name: str,
    way: Way,
    seconds: float,
    results: Results,
) -> None:
    """Take one measure on one way and note it."""
    taken = measure.take(way, seconds)
    values = taken if isinstance(taken, tuple) else (taken,)
    title = measure.name.removesuffix(", p50|p99")
    suffixes = (", p50", ", p99") if title != measure.name else ("",)
    for suffix, value in zip(suffixes, values, strict=True):
        results.setdefault((title + suffix, name), []).append(value)
    shown = " ".join(f"{value:,.4g}" for value in values)
    print(f"  {title:34} {name:10} {shown} {measure.unit}", flush=True)
    time.sleep(0.1)


def start(children: Children, state: Path, carriers: list[str]) -> dict[str, Way]:
    """Start the services and a gateway and an agent per carrier."""
    make_certificate(state)
    iperf, nginx, echo = start_iperf(children), start_nginx(children, state), start_echo(children)
    ways = {"direct": Way(iperf, nginx, echo, echo)}
    bare = [start_forwarders(children, port) for port in (iperf, nginx, echo)]
    ways["bare"] = Way(bare[0], bare[1], bare[2], bare[2])
    for carrier in carriers:
        targets = [iperf, nginx, echo]
        arguments = [f"--target=tcp:127.0.0.1:{port}" for port in targets]
        arguments.append(f"--target=tcp:127.0.0.1:{echo}!interactive")
        gateway = Program(children, "gateway", carrier, "--state", str(state), *arguments)
        port = gateway.hear()["link"]
        Program(children, "agent", carrier, "--state", str(state), "--port", str(port))
        ways[carrier] = Way(*gateway.hear()["ports"], gateway=gateway)
    return ways


def table(results: Results) -> str:
    """The results in Markdown: medians, and ratios to direct with their spread over the rounds."""
    ways = list(dict.fromkeys(name for _, name in results))
    lines = [
        "| measure | " + " | ".join(NAMES[name] for name in ways) + " | asked |",
        "| --- |" + " --- |" * (len(ways) + 1),
    ]
    measures = {measure.name.removesuffix(", p50|p99"): measure for measure in MEASURES}
    for title in dict.fromkeys(title for title, _ in results):
        measure = measures[title.removesuffix(", p50").removesuffix(", p99")]
        cells = [cell(results, title, name) for name in ways]
        asked = "; ".join(filter(None, (asks(measure, title, name) for name in ways)))
        lines.append(f"| {title}, {measure.unit} | {' | '.join(cells)} | {asked} |")
    return "\n".join(lines)


def asks(measure: Measure, title: str, name: str) -> str:
    """What is asked of one way in one row, in words."""
    sign = "≥" if measure.better == "more" else "≤"
    if title.endswith(", p99"):
        return f"{name} ≤ 5,000 µs" if measure.limits.get(name) else ""
    if name in measure.floors:
        return f"{name} {sign} {measure.floors[name]:.2f} ×"
    if name in measure.limits:
        return f"{name} {sign} {number(measure.limits[name])} {measure.unit}"
    return ""


def main(arguments: list[str]) -> int:
    """Run the part."""
    parser = argparse.ArgumentParser(prog="python -m bench links", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measure")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--carriers", default=",".join(CARRIERS))
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    parser.add_argument("--json", type=Path, help="put every single figure into this file")
    asked = parser.parse_args(arguments)
    rounds, seconds = (1, 1.0) if asked.quick else (asked.rounds, asked.seconds)
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="underpass-bench-") as state, Children() as children:
        ways = start(children, Path(state), asked.carriers.split(","))
        for index in range(rounds):
            print(f"round {index + 1} of {rounds}", flush=True)
            run_round(ways, seconds, results)
    text = f"{describe_machine(rounds, seconds)}\n\n{table(results)}"
    print(f"\n{text}")
    if asked.write:
        write("links", text)
    if asked.json:
        figures = [{"measure": m, "way": w, "values": v} for (m, w), v in results.items()]
        asked.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
