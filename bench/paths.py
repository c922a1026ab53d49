"""Part "paths": the same tunnels when the agent is far away: delay and loss between it and us.

The gateway and whoever uses the published port are in one network namespace, the agent and the
services in another, and between them is a cable that delays and loses packets
(``bench/laboratory.py``). *direct* crosses the same cable without a tunnel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.laboratory import FAR, FAR_ADDRESS, NEAR, NEAR_ADDRESS, Laboratory, available, inside
from bench.measures import bulk, round_trips
from bench.report import Results, cell, describe_machine, write
from bench.rivals import TUNNELS, Place, Tunnel, underpass
from bench.services import Children, free_port, start_echo

DELAYS = (0.0, 0.025, 0.1)
"""Seconds one way."""
LOSSES = (0.0, 0.001, 0.01)
QUIC = Tunnel("quic", "Underpass, QUIC", underpass(carrier="auto", transport="quic"))
WAYS = [
    tunnel for tunnel in TUNNELS if tunnel.name in ("mux", "dedicated", "rathole", "bore", "ssh")
] + [QUIC]
PLACE = Place(NEAR_ADDRESS, partial(inside, FAR))


def measure(path: str, tunnels: list[Tunnel], seconds: float, results: Results) -> None:
    """Bulk and round trips over one kind of path, on every way."""
    with Children() as children, tempfile.TemporaryDirectory(prefix="underpass-bench-") as state:
        with inside(FAR):
            iperf, echo = free_port(), start_echo(children, "0.0.0.0")
            children.start("iperf3", "-s", "-p", str(iperf))
            time.sleep(0.3)
        with inside(NEAR):
            take(path, "direct", FAR_ADDRESS, iperf, echo, seconds, results)
            for tunnel in tunnels:
                place = Path(state) / tunnel.name
                place.mkdir()
                try:
                    ports = tunnel.start(children, place, [iperf, echo], PLACE).ports
                    take(path, tunnel.name, "127.0.0.1", *ports, seconds, results)
                except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                    print(f"  {path:24} {tunnel.name:10} FAILED: {error}", flush=True)


def take(
    path: str, name: str, host: str, iperf: int, echo: int, seconds: float, results: Results
) -> None:
    """Both figures of one way."""
    rate = bulk(iperf, 1, seconds, host) * 1000
    p50, p99 = round_trips(echo, min(seconds, 4.0), host=host)
    titles = (f"{path}: Mbit/s", f"{path}: p50, ms", f"{path}: p99, ms")
    for title, value in zip(titles, (rate, p50 / 1000, p99 / 1000), strict=True):
        results.setdefault((title, name), []).append(value)
    print(f"  {path:24} {name:10} {rate:,.0f} Mbit/s, {p50 / 1000:.1f} ms", flush=True)


def table(results: Results, tunnels: list[Tunnel]) -> str:
    """A row for each kind of path and figure, a column for each way."""
    ways = [("direct", "direct"), *((tunnel.name, tunnel.title) for tunnel in tunnels)]
    lines = [
        "| path | " + " | ".join(title for _, title in ways) + " |",
        "| --- |" + " --- |" * len(ways),
    ]
    for title in dict.fromkeys(title for title, _ in results):
        cells = [cell(results, title, name) for name, _ in ways]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the part."""
    parser = argparse.ArgumentParser(prog="python -m bench paths", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="per figure")
    parser.add_argument("--quick", action="store_true", help="one round of three seconds each")
    parser.add_argument("--only", help="names of ways, with commas; default: all that are found")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    asked = parser.parse_args(arguments)
    if not available():
        print("Part paths needs root and /dev/net/tun, for network namespaces; left out.")
        return 0
    rounds, seconds = (1, 3.0) if asked.quick else (asked.rounds, asked.seconds)
    only = set(asked.only.split(",")) if asked.only else None
    tunnels = [t for t in WAYS if t.available and (only is None or t.name in only)]
    results: Results = {}
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}", flush=True)
        for delay in DELAYS:
            for loss in LOSSES:
                path = f"{delay * 2000:.0f} ms, {loss * 100:g} % lost"
                with Children() as children, Laboratory(children, delay, loss):
                    measure(path, tunnels, seconds, results)
    text = f"{describe_machine(rounds, seconds)}\n\n{table(results, tunnels)}"
    print(f"\n{text}")
    if asked.write:
        write("paths", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
