"""One gateway with two machines and its people, shared by the tests of a module."""

from __future__ import annotations

import contextlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, Response

from tests.e2e.browser import sign_in
from tests.e2e.programs import ADMIN, PASSWORD, AgentProgram, GatewayProgram, unique

__all__ = ["BOX", "CRATE", "Visitor", "World"]

BOX = "box"
CRATE = "crate"
_LABELS = {BOX: {"env": "dev", "role": "build"}, CRATE: {"env": "prod"}}
_EXPECTED_NOISE = re.compile(r"status of 40[0-9]|status of 429|ERR_|GPU stall|WebSocket connection")


class Visitor:
    """A browser context of one person, which notes what went wrong in its pages.

    Args:
        user: signed in already as this person; None: nobody yet.
        options: of Playwright's ``new_context``.
    """

    def __init__(self, world: World, browser: Browser, user: str | None, **options: Any) -> None:
        self.world = world
        self.problems: list[str] = []
        options.setdefault("viewport", {"width": 1280, "height": 800})
        if user is not None:
            options["storage_state"] = world.signed_in(browser, user)
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(20_000)

    def page(self, path: str = "/") -> Page:
        """A new page at *path* of the console."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.problems.append(message.text)
                if message.type == "error" and not _EXPECTED_NOISE.search(message.text)
                else None
            ),
        )
        page.on("response", self._look_at)
        page.goto(self.world.gateway.url + path)
        return page

    def _look_at(self, response: Response) -> None:
        if response.status == 500:
            self.problems.append(f"500 from {response.url}")

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the browser may be gone, which the test has said
            self.context.close()


class World:
    """The programs of a module; everything in it is ended by :meth:`close`.

    Args:
        directory: for state and logs.
        labels: of machines, by name.
    """

    def __init__(self, directory: Path, labels: dict[str, dict[str, str]] | None = None) -> None:
        self.directory = directory
        self.labels = _LABELS if labels is None else labels
        self.gateway = GatewayProgram(directory)
        self.agents: list[AgentProgram] = []
        self._states: dict[str, Any] = {}

    @cached_property
    def admin(self) -> httpx.Client:
        return self.gateway.login()

    def start(self, *names: str) -> World:
        """Start the gateway and, all at once, an agent for each of *names*."""
        self.gateway.start()
        for name in names:
            self.add_agent(name, **self.labels.get(name, {}))
        for name in names:
            self.machine(name)
        return self

    def add_agent(self, name: str, **labels: str) -> AgentProgram:
        """An agent that joins by token; not awaited."""
        token = self.gateway.join_token(self.admin, uses=1, **labels)
        agent = AgentProgram(self.directory, self.gateway, name, token=token)
        self.agents.append(agent.start())
        return agent

    def machine(self, name: str) -> dict[str, Any]:
        """The machine of that name, once it is online and linked."""
        return self.gateway.machine(self.admin, name)

    def person(self, role: str, *machines: str) -> str:
        """A new user who may use *machines*; their name."""
        name = unique(role)
        answer = self.admin.post(
            "/api/v1/users", json={"username": name, "password": PASSWORD, "role": role}
        )
        assert answer.status_code in (200, 201), answer.text
        user_id = answer.json()["data"]["id"]
        for machine in machines:
            record = self.machine(machine)
            answer = self.admin.patch(
                f"/api/v1/assets/{record['id']}",
                json={"allowed_users": [*record["allowed_users"], user_id]},
            )
            assert answer.status_code == 200, answer.text
        return name

    def signed_in(self, browser: Browser, user: str = ADMIN) -> Any:
        """Cookies and storage of *user*, who signs in through the form once per module."""
        if user not in self._states:
            context = browser.new_context()
            try:
                sign_in(context.new_page(), self.gateway, user)
                self._states[user] = context.storage_state()
            finally:
                context.close()
        return self._states[user]

    def close(self) -> None:
        for agent in reversed(self.agents):
            if agent.alive:
                with contextlib.suppress(AssertionError):
                    agent.stop()
        self.gateway.close()
