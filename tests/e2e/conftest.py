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
    arguments = getattr(item, "funcargs", {})
    places = [
        arguments.get("tmp_path"),
        *(getattr(a, "directory", None) for a in arguments.values()),
    ]
    logs = {log for place in places if isinstance(place, Path) for log in place.rglob("*.log")}
    for log in sorted(logs):
        report.sections.append((f"log {log.name}", log.read_text(errors="replace")[-6000:]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


class Standing:
    """A gateway and an agent ``box`` that many tests share, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gateway = GatewayProgram(directory)
        self._agent: AgentProgram | None = None

    def agent(self) -> AgentProgram:
        """The agent, online and linked."""
        admin = self.gateway.login()
        if self._agent is None:
            token = self.gateway.join_token(admin, uses=1)
            self._agent = AgentProgram(self.directory, self.gateway, "box", token=token)
        if not self._agent.alive:
            self._agent.start()
        self.gateway.machine(admin, "box")
        return self._agent

    def tidy(self) -> None:
        """Mend what a test broke, and take away what it made."""
        if not self.gateway.alive:
            self.gateway.start()
        admin = self.gateway.login()
        listed = admin.get("/api/v1/mappings", params={"page_size": 500}).json()
        for mapping in listed["data"]["items"]:
            assert admin.delete(f"/api/v1/mappings/{mapping['id']}").status_code == 200
        live = admin.get("/api/v1/sessions", params={"status": "live", "page_size": 500}).json()
        for session in live["data"]["items"]:
            admin.delete(f"/api/v1/sessions/{session['id']}")

    def close(self) -> None:
        if self._agent is not None and self._agent.alive:
            self._agent.stop()
        self.gateway.close()


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """What tests of modules with ``STANDING = True`` get as their ``gateway`` and ``agent``.

    Starting two programs for each of a hundred tests would be most of what the tests take. Such
    tests use names of their own (:func:`tests.e2e.programs.unique`) and count from where they
    began.
    """
    world = Standing(tmp_path_factory.mktemp("standing"))
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GatewayProgram]:
    """A gateway on SQLite with an admin and no built-in agent."""
    if getattr(request.module, "STANDING", False):
        world: Standing = request.getfixturevalue("standing")
        world.tidy()
        yield world.gateway
        return
    program = GatewayProgram(tmp_path)
    try:
        yield program.start()
    finally:
        program.close()


@pytest.fixture
def admin(gateway: GatewayProgram) -> httpx.Client:
    return gateway.login()


@pytest.fixture
def agent(
    gateway: GatewayProgram,
    admin: httpx.Client,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[AgentProgram]:
    """An agent named ``box`` that joined by token, online and linked."""
    if getattr(request.module, "STANDING", False):
        yield request.getfixturevalue("standing").agent()
        return
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
