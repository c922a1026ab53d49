"""A gateway, agents on it, and what they printed when a test fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not report.failed:
        return
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    for log in sorted(directory.rglob("*.log")) if directory else []:
        report.sections.append((f"log {log.name}", log.read_text(errors="replace")[-6000:]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProgram]:
    """A gateway on SQLite with an admin and no built-in agent."""
    program = GatewayProgram(tmp_path)
    try:
        yield program.start()
    finally:
        program.close()


@pytest.fixture
def admin(gateway: GatewayProgram) -> httpx.Client:
    return gateway.login()


@pytest.fixture
def agent(gateway: GatewayProgram, admin: httpx.Client, tmp_path: Path) -> Iterator[AgentProgram]:
    """An agent named ``box`` that joined by token, online and linked."""
    program = AgentProgram(tmp_path, gateway, "box", token=gateway.join_token(admin)).start()
    try:
        gateway.machine(admin, "box")
        yield program
    finally:
        if program.alive:
            program.stop()


@pytest.fixture
def machine(gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram) -> str:
    """The id of the online machine ``box``."""
    return str(gateway.machine(admin, "box")["id"])
