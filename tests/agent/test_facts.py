"""Facts: the shapes the console draws, never from the event loop's own thread, never hanging it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from underpass.agent import facts
from underpass.agent.facts import Facts, container_engine, dynamic_info, static_info


def test_the_shapes() -> None:
    static, dynamic = static_info(), dynamic_info()
    assert {
        "os", "os_version", "kernel", "arch", "cpu_model", "cpu_count", "memory_total", "disks",
        "interfaces", "agent_version", "container_engine",
    } <= set(static)  # fmt: skip
    assert {
        "cpu_percent", "load", "memory_used", "memory_total", "memory_percent", "disks", "uptime",
        "container_engine",
    } == set(dynamic)  # fmt: skip
    assert len(dynamic["load"]) == 3
    assert dynamic["uptime"] > 0
    assert {"mount", "used", "total", "percent"} == set(dynamic["disks"][0])
    assert {"mount", "total"} == set(static["disks"][0])
    assert any("127.0.0.1" in card["addresses"] for card in static["interfaces"])
    json.dumps([static, dynamic]).encode()


async def test_they_are_read_in_a_thread_and_static_ones_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []

    def fake() -> dict[str, object]:
        threads.append(threading.current_thread())
        return {"n": len(threads)}

    monkeypatch.setattr(facts, "static_info", fake)
    reader = Facts()
    assert (await reader.read())[0] == {"n": 1}
    assert (await reader.read())[0] == {"n": 1}
    assert threads[0] is not threading.main_thread()
    assert "cpu_percent" in await reader.dynamic()


async def test_a_hanging_disk_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    calls = 0

    def hang() -> dict[str, object]:
        nonlocal calls
        calls += 1
        release.wait(20)
        return {}

    monkeypatch.setattr(facts, "READ_TIMEOUT", 0.05)
    monkeypatch.setattr(facts, "dynamic_info", hang)
    reader = Facts()
    try:
        for _ in range(3):
            async with asyncio.timeout(5):
                assert await reader.dynamic() == {}
        assert calls == 1, "one reading at a time, however long it hangs"
    finally:
        release.set()
    assert reader._reading is not None
    await reader._reading


async def test_a_failing_read_keeps_the_older_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Facts()
    before = await reader.dynamic()

    def broken() -> dict[str, object]:
        raise PermissionError("no /proc")

    monkeypatch.setattr(facts, "dynamic_info", broken)
    assert await reader.dynamic() == before


def test_container_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "podman.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert container_engine() is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert container_engine() == "podman"
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert container_engine() == "docker"
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        assert container_engine() in {"docker", "podman"}


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts.platform, "system", lambda: "Darwin")
    assert facts._system()[0] == "macOS"
    monkeypatch.setattr(facts.platform, "system", lambda: "FreeBSD")
    assert facts._system()[0] == "FreeBSD"
    monkeypatch.setattr(facts.psutil, "disk_partitions", lambda **_: [])
    assert [mount for mount, _ in facts._disks()] == ["/"]
