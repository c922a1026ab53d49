"""How long a change of a mapping takes to have effect at the agent that listens for it.

A real gateway and a real agent, both as programs on this machine. A mapping is made over the HTTP
API and connected to at the agent; then it is deleted, and refused connections there are waited for.
So each time holds the request, the database, the push and the agent's socket. The same is done
with ports of the gateway, where nothing is pushed: the difference is the push. Bounded: at most
``--changes`` changes of each kind, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.report import machine, write
from tests.e2e.programs import AgentProgram, GatewayProgram, killing

__all__ = ["main"]

MOST = 500


def main(arguments: list[str] | None = None) -> int:
    """Measure and print one line of JSON; 1 when p99 is not below the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench config_push", description=__doc__)
    parser.add_argument("--changes", type=int, default=200, help=f"at most {MOST}")
    parser.add_argument("--goal", type=float, default=100.0, help="p99 in ms")
    parser.add_argument("--quick", action="store_true", help="twenty changes of each kind")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    wanted = parser.parse_args(arguments)
    changes = 20 if wanted.quick else min(max(wanted.changes, 10), MOST)
    with tempfile.TemporaryDirectory() as directory:
        at_agent, at_gateway = _measure(Path(directory), changes)
    result: dict[str, Any] = {
        "at_agent": _summary(at_agent),
        "at_gateway": _summary(at_gateway),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result))
    if wanted.write:
        write("config_push", _table(result, wanted.goal))
    return 0 if result["at_agent"]["p99_ms"] < wanted.goal else 1


def _table(result: dict[str, Any], goal: float) -> str:
    day, changes = time.strftime("%Y-%m-%d"), result["at_agent"]["changes"]
    lines = [
        f"{day}, {changes} changes of each kind, one after the other. {machine()}",
        "",
        "| where the port is | p50, ms | p99, ms | largest, ms | asked |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title, asked in (
        ("at_agent", "at an agent", f"p99 ≤ {goal:g} ms"),
        ("at_gateway", "at the gateway", ""),
    ):
        took = result[name]
        figures = f"{took['p50_ms']} | {took['p99_ms']} | {took['max_ms']}"
        lines.append(f"| {title} | {figures} | {asked} |")
    return "\n".join(lines)


def _summary(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    return {
        "changes": len(took),
        "p50_ms": round(statistics.median(took), 1),
        "p99_ms": round(took[min(len(took) - 1, int(len(took) * 0.99))], 1),
        "max_ms": round(took[-1], 1),
    }


def _measure(directory: Path, changes: int) -> tuple[list[float], list[float]]:
    """Milliseconds from asking for a change to its effect, at the agent and at the gateway."""
    gateway = GatewayProgram(directory)
    with killing(gateway), contextlib.closing(gateway):
        admin = gateway.start().login()
        agent = AgentProgram(directory, gateway, "box", token=gateway.join_token(admin)).start()
        with killing(agent):
            machine = str(gateway.machine(admin, "box")["id"])
            at_agent: list[float] = []
            at_gateway: list[float] = []
            for _ in range(changes // 2):
                at_agent += _made_and_deleted(admin, machine, {"client_id": machine})
                at_gateway += _made_and_deleted(admin, machine, {})
            return at_agent, at_gateway


def _made_and_deleted(
    admin: httpx.Client, machine: str, place: dict[str, str]
) -> tuple[float, float]:
    source = {**place, "port": _free_port()} if place else {"port": 0}
    body = {"protocol": "tcp", "target_client_id": machine, "target_port": 9, "source": source}
    began = time.perf_counter()
    answer = admin.post("/api/v1/mappings", json=body)
    answer.raise_for_status()
    made = answer.json()["data"]
    assert _listens(made["source"]["port"])
    listening = time.perf_counter()
    admin.delete(f"/api/v1/mappings/{made['id']}").raise_for_status()
    while _listens(made["source"]["port"]):
        time.sleep(0.0005)
    return (listening - began) * 1000, (time.perf_counter() - listening) * 1000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionError:  # refused, or reset by a port that is being given back
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
