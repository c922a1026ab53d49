"""Part "tunnels": published ports of the whole product, beside rivals and the direct connection.

Every tunnel found (``bench/rivals.py``) carries the same services on loopback. Each measure is
taken once per round on each way, interleaved, so that ratios compare neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.measures import bulk, bulk_beside, requests, round_trips
from bench.report import Results, cell, describe_machine, write
from bench.rivals import TUNNELS, Place, Tunnel
from bench.services import Children, start_echo, start_iperf, start_nginx

IDLE = 1000
"""Connections held while memory is measured."""


@dataclass
class Way:
    """One way to the services, and the programs that carry it."""

    iperf: int
    nginx: int
    echo: int
    programs: list[psutil.Process] = field(default_factory=list[psutil.Process])

    def family(self) -> list[psutil.Process]:
        """The programs and what they started (sshd makes a process for each login)."""
        found: dict[int, psutil.Process] = {}
        for program in self.programs:
            for one in (program, *program.children(recursive=True)):
                found[one.pid] = one
        return list(found.values())

    def cpu(self) -> float:
        """Processor seconds spent so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.family())

    def memory(self) -> int:
        """Resident bytes."""
        return sum(one.memory_info().rss for one in self.family())


@dataclass(frozen=True)
class Measure:
    """One row of numbers, or two (``p50|p99``), or bulk with its CPU (``bulk|cpu``)."""

    titles: tuple[str, ...]
    take: Callable[[Way, float], tuple[float, ...]]
    asked: str = ""
    direct: bool = True
    every_round: bool = True
    slices: int = 1
    """Into how many short turns its time in a round is cut; each gives a figure and a ratio."""


def bulk_with_cpu(streams: int) -> Callable[[Way, float], tuple[float, ...]]:
    """Gbit/s, and processor seconds of the tunnel's programs for each GiB."""

    def take(way: Way, seconds: float) -> tuple[float, ...]:
        before = way.cpu()
        rate = bulk(way.iperf, streams, seconds)
        gib = rate * 1e9 / 8 * seconds / (1 << 30)
        return rate, (way.cpu() - before) / gib

    return take


def beside_bulk(way: Way, seconds: float) -> tuple[float, ...]:
    """A 64-byte round trip beside four bulk streams through the same tunnel."""
    busy = bulk_beside(way.iperf, 4, seconds + 1.0)
    try:
        time.sleep(0.6)
        return round_trips(way.echo, seconds, pause=0.003)
    finally:
        busy.communicate(timeout=seconds + 20)


def idle_memory(way: Way, _seconds: float) -> tuple[float, ...]:
    """MiB of resident memory that a thousand idle connections add."""
    before = way.memory()
    with ExitStack() as stack:
        held: list[socket.socket] = []
        for _ in range(IDLE):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", way.echo), 10))
            one.sendall(b"x")
            held.append(one)
        for one in held:
            one.settimeout(20)
            one.recv(1)
        time.sleep(0.5)
        return ((way.memory() - before) / (1 << 20),)


MEASURES = [
    Measure(("bulk, 1 stream, Gbit/s", "processor seconds per GiB"), bulk_with_cpu(1),
            "dedicated ≥ 0.45 ×; mux ≥ 0.30 ×; TLS ≥ 0.18 ×"),
    Measure(("bulk, 8 streams, Gbit/s",), lambda way, s: (bulk(way.iperf, 8, s),)),
    Measure(("requests, 100 connections, 1/s",), lambda way, s: (requests(way.nginx, s),),
            "≥ 0.35 ×"),
    Measure(("new connections, 1/s",),
            lambda way, s: (requests(way.nginx, s, new_connections=True),), "≥ 0.20 ×",
            slices=2),
    Measure(("64 bytes there and back, p50, µs", "64 bytes there and back, p99, µs"),
            lambda way, s: round_trips(way.echo, s), "p50 ≤ 3.5 ×", slices=6),
    Measure(("64 bytes beside 4 bulk streams, p50, µs", "64 bytes beside 4 bulk streams, p99, µs"),
            beside_bulk, "mux p50 ≤ 500 µs"),
    Measure(("1,000 idle connections, MiB",), idle_memory, direct=False, every_round=False),
]  # fmt: skip


def start(children: Children, state: Path, tunnels: list[Tunnel]) -> dict[str, Way]:
    """Start the services and every tunnel that is to be measured."""
    services = [start_iperf(children), start_nginx(children, state), start_echo(children)]
    ways = {"direct": Way(services[0], services[1], services[2])}
    for tunnel in tunnels:
        place = state / tunnel.name
        place.mkdir()
        running = tunnel.start(children, place, services, Place())
        programs = [psutil.Process(process.pid) for process in running.processes]
        iperf, nginx, echo = running.ports
        ways[tunnel.name] = Way(iperf, nginx, echo, programs)
    return ways


def run_round(first: bool, ways: dict[str, Way], seconds: float, results: Results) -> None:
    """Take every measure once on every way; a way that fails loses that figure, aloud."""
    for measure in MEASURES:
        if not (measure.every_round or first):
            continue
        for name, way in list(ways.items()) * measure.slices:
            if name == "direct" and not measure.direct:
                continue
            try:
                values = measure.take(way, seconds / measure.slices)
            except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
                print(f"  {measure.titles[0]:42} {name:10} FAILED: {error}", flush=True)
                values = tuple(float("nan") for _ in measure.titles)
            for title, value in zip(measure.titles, values, strict=True):
                if name != "direct" or "processor" not in title:
                    results.setdefault((title, name), []).append(value)
            shown = " ".join(f"{value:,.4g}" for value in values)
            print(f"  {measure.titles[0]:42} {name:10} {shown}", flush=True)
            time.sleep(0.2)


def table(results: Results, tunnels: list[Tunnel]) -> str:
    """The results in Markdown: a row for each way, medians with the ratio to direct."""
    titles = [title for measure in MEASURES for title in measure.titles]
    rows = [("direct", "direct"), *((tunnel.name, tunnel.title) for tunnel in tunnels)]
    lines = ["| way | " + " | ".join(titles) + " |", "| --- |" + " --- |" * len(titles)]
    for name, title in rows:
        cells = [cell(results, measured, name) for measured in titles]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    asked = [
        measure.asked if index == 0 else ""
        for measure in MEASURES
        for index in range(len(measure.titles))
    ]
    lines.append(f"| *asked of Underpass* | {' | '.join(asked)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the part."""
    parser = argparse.ArgumentParser(prog="python -m bench tunnels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measure")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--only", help="names of ways, with commas; default: all that are found")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    parser.add_argument("--json", type=Path, help="put every single figure into this file")
    asked = parser.parse_args(arguments)
    rounds, seconds = (1, 1.0) if asked.quick else (asked.rounds, asked.seconds)
    only = set(asked.only.split(",")) if asked.only else None
    tunnels = [t for t in TUNNELS if t.available and (only is None or t.name in only)]
    missing = sorted({p for t in TUNNELS if not t.available for p in t.needs})
    if missing:
        print(f"not found on PATH, so not measured: {', '.join(missing)}", flush=True)
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="underpass-bench-") as state, Children() as children:
        ways = start(children, Path(state), tunnels)
        for index in range(rounds):
            print(f"round {index + 1} of {rounds}", flush=True)
            run_round(index == 0, ways, seconds, results)
    text = describe_machine(rounds, seconds)
    if missing:
        text += f" Not on this machine, so not measured: {', '.join(missing)}."
    text += f"\n\n{table(results, tunnels)}"
    print(f"\n{text}")
    if asked.write:
        write("tunnels", text)
    if asked.json:
        figures = [{"measure": m, "way": w, "values": v} for (m, w), v in results.items()]
        asked.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
