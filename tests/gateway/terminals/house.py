"""A gateway in this process: real services and routes over SQLite, agents on links in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from tests.gateway.terminals.asgi_socket import AsgiSocket, Screen
from tests.migrated import migrated_file
from underpass.agent.openers.exec import exec_opener
from underpass.agent.openers.pty import pty_opener
from underpass.agent.terminals.host import TerminalHost
from underpass.control.passwords import Passwords
from underpass.control.subject import Role, Subject
from underpass.core.clock import SystemClock
from underpass.core.ids import new_id
from underpass.core.settings import GatewaySettings
from underpass.core.supervisor import Supervisor
from underpass.gateway.app import make_app
from underpass.gateway.composition import compose
from underpass.gateway.services import Services
from underpass.links.link import Link, Opening, Peer
from underpass.links.memory import memory_links
from underpass.store.db.models import Agent

PASSWORD = "correct horse battery staple"
BASH = "env PS1='$ ' /bin/bash --norc --noprofile"


@dataclass
class Person:
    """A signed-in person and their HTTP client."""

    id: str
    token: str
    http: httpx.AsyncClient
    house: House

    async def ticket(self, agent_id: str, **query: Any) -> dict[str, Any]:
        answer = await self.authorise(agent_id, **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def authorise(self, agent_id: str, **query: Any) -> httpx.Response:
        query = {"cols": 100, "rows": 30, "command": BASH, **query}
        return await self.http.get(f"/api/v1/assets/{agent_id}/tty/authorize", params=query)

    async def open(self, agent_id: str, *, path: str = "", **query: Any) -> Screen:
        ticket = await self.ticket(agent_id, **query)
        return self.house.screen(f"/api/v1/tty/ws{path}", ticket["token"])

    async def shell(self, agent_id: str, **query: Any) -> tuple[Screen, str]:
        """A terminal with its prompt on screen, and its session's id."""
        screen = await self.open(agent_id, **query)
        session_id = (await screen.control("session_id"))["session_id"]
        await screen.until(b"$ ")
        return screen, session_id

    async def resume(self, agent_id: str, session_id: str, offset: int) -> Screen:
        ticket = await self.ticket(agent_id)
        screen = self.house.screen("/api/v1/tty/ws", ticket["token"])
        screen.socket.say("resume", session_id=session_id, offset=offset)
        return screen

    async def data(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@dataclass
class Machine:
    """An agent's half: a real terminal host, and its link when it has one."""

    id: str
    host: TerminalHost
    house: House
    link: Link | None = None
    node_link: Link | None = None

    async def connect(self, announce: bool = True) -> dict[str, Any]:
        """Link it (again), as the keeper would; the gateway's answer to the announcement."""
        peer = Peer("agent", self.id, "box", "198.51.100.9:5000", "0", frozenset())
        self.link, self.node_link = memory_links(peer)
        pty = pty_opener(self.host)
        run = exec_opener(lambda name: name == "self")

        async def opened(opening: Opening) -> None:
            await (pty if opening.target == "pty" else run)(opening)

        self.link.on_open(opened)
        registry = self.house.services.registry
        registry.add_agent(self.node_link)
        self.link.start()
        self.node_link.start()
        node_link = self.node_link

        async def until_closed() -> None:
            await node_link.wait_closed()
            self.house.services.registry.remove(node_link)

        self.house.supervisor.start(until_closed(), "link")
        if not announce:
            return {}
        answer = await self.link.request("sessions.announce", {"sessions": self.host.announce()})
        for session_id in answer.get("terminate", []):
            self.host.terminate(session_id, "nobody wants it")
        return answer

    async def disconnect(self) -> None:
        assert self.link is not None
        await self.link.close()
        await eventually(lambda: not self.house.services.router.is_linked(self.id))


@dataclass
class House:
    services: Services
    app: FastAPI
    supervisor: Supervisor
    home: Path
    machines: list[Machine] = field(default_factory=list)
    boss: Subject = field(init=False)

    async def person(self, username: str, role: Role = "user") -> Person:
        await self.services.users.create(self.boss, username=username, password=PASSWORD, role=role)
        return await self.sign_in(username)

    async def sign_in(self, username: str) -> Person:
        login = await self.services.sign_in.sign_in(
            username, PASSWORD, ip="192.0.2.1", user_agent="test"
        )
        subject = (await self.services.sign_in.identify(login.token)).subject
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=("192.0.2.1", 1234)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {login.token}"},
        )
        return Person(subject.user_id, login.token, http, self)

    async def setup(self) -> Person:
        await self.services.setup.complete_from_settings("ada", PASSWORD)
        admin = await self.sign_in("ada")
        self.boss = (await self.services.sign_in.identify(admin.token)).subject
        return admin

    async def machine(self, *users: Person, name: str = "box", linked: bool = True) -> Machine:
        agent_id = new_id()
        now = self.services.clock.now()
        async with self.services.database.session() as db:
            db.add(
                Agent(
                    id=agent_id, name=name, client_public_key="", key_fingerprint="",
                    hostname=name, labels={}, allowed_users=[user.id for user in users],
                    status="online", created_at=now, updated_at=now, is_deleted=False,
                    static_info={}, dynamic_info={}, agent_secret_key="",
                )
            )  # fmt: skip
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "SHELL": "/bin/bash"}
        host = TerminalHost(login_allowed=lambda login: login == "self", environ=environ)
        machine = Machine(agent_id, host, self)
        self.machines.append(machine)
        if linked:
            await machine.connect()
        return machine

    def screen(
        self, path: str, token: str | None = None, *, headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Screen:  # fmt: skip
        socket = AsgiSocket(self.app, f"ws://test{path}", headers).start(self.supervisor)
        if token is not None:
            socket.say("auth", token=token)
        return Screen(socket, **options)


@asynccontextmanager
async def house(tmp_path: Path, **settings: Any) -> AsyncIterator[House]:
    """A gateway over *tmp_path*; open another over the same to restart it."""
    passwords = Passwords(memory_kib=64, time_cost=1)
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    migrated_file(state / "underpass.db")
    config = GatewaySettings(state=state, **settings)
    try:
        async with (
            compose(config, SystemClock(), passwords=passwords) as services,
            Supervisor("test") as supervisor,
        ):
            await services.terminals.start()
            made = House(services, make_app(services), supervisor, tmp_path)
            try:
                yield made
            finally:
                await services.terminals.stop()
                for machine in made.machines:
                    if machine.link is not None:
                        await machine.link.close()
    finally:
        passwords.close()


async def eventually(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll something nobody announces."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
