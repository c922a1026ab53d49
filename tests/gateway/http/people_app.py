"""The whole application over a database of its own, with people signed in, without a port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from tests.migrated import migrated_file
from underpass.control.passwords import Passwords
from underpass.core.clock import ManualClock
from underpass.core.settings import GatewaySettings
from underpass.gateway.app import make_app
from underpass.gateway.composition import compose
from underpass.gateway.services import Services
from underpass.store.db.models import Agent

PASSWORD = "correct horse battery staple"
ORIGIN = "http://localhost:3000"


@dataclass
class App:
    """Attributes: what routes see; ``http`` is a client without any credential."""

    services: Services
    app: FastAPI
    clock: ManualClock
    http: httpx.AsyncClient

    def client(
        self, token: str | None = None, *, address: str = "192.0.2.1", origin: str = ORIGIN
    ) -> httpx.AsyncClient:
        """A client at *address*, with a bearer token or nothing."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(self.app, client=(address, 50000))
        return httpx.AsyncClient(transport=transport, base_url=origin, headers=headers)

    async def login(self, username: str, password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.http.post(
            "/api/v1/auth/login", json={"username": username, "password": password}
        )
        self.http.cookies.clear()
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    async def person(self, username: str, role: str = "user") -> httpx.AsyncClient:
        """A new user's client (the first is made by the admin ``ada``, who exists)."""
        admin = await self.login("ada")
        answer = await self.client(admin["access_token"]).post(
            "/api/v1/users", json={"username": username, "password": PASSWORD, "role": role}
        )
        assert answer.status_code == 200, answer.text
        return self.client((await self.login(username))["access_token"])

    async def admin(self) -> httpx.AsyncClient:
        return self.client((await self.login("ada"))["access_token"])

    async def browser(self, username: str = "ada") -> tuple[httpx.AsyncClient, str]:
        """A client that holds the cookie, and its CSRF token."""
        login = await self.login(username)
        client = self.client()
        client.headers["Cookie"] = f"__Host-underpass={login['access_token']}"
        return client, login["csrf_token"]

    async def machine(self, agent_id: str, *allowed: str, name: str = "box") -> None:
        now = self.clock.now()
        async with self.services.database.session() as db:
            db.add(
                Agent(
                    id=agent_id, name=name, client_public_key="-", key_fingerprint="sha256:00",
                    hostname=name, labels={}, allowed_users=list(allowed), status="online",
                    created_at=now, updated_at=now, is_deleted=False, static_info={},
                    dynamic_info={}, agent_secret_key="-",
                )
            )  # fmt: skip


@asynccontextmanager
async def people_app(directory: Path, **settings: Any) -> AsyncIterator[App]:
    """An application whose first admin is ``ada``."""
    clock = ManualClock()
    passwords = Passwords(memory_kib=64, time_cost=1)
    made = GatewaySettings(state=directory / "state", local_agent=False, **settings)
    migrated_file(made.state / "underpass.db")
    async with compose(made, clock, passwords=passwords) as services:
        await services.setup.complete_from_settings("ada", PASSWORD)
        app = make_app(services)
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 50000))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            yield App(services, app, clock, http)
    passwords.close()
