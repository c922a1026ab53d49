"""Starting and stopping a gateway: what it says, what it serves, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.http.people_app import PASSWORD
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.gateway import local_agent, serve
from underpass.gateway.front import PortUnavailable
from underpass.gateway.local_agent import LocalAgent, loopback_url
from underpass.gateway.serve import Gateway, run_gateway
from underpass.store.db.database import DatabaseError


def _settings(tmp_path: Path, **more: Any) -> GatewaySettings:
    given = {"listen": "127.0.0.1:0", "state": tmp_path / "state", "local_agent": False} | more
    return GatewaySettings(**given)  # type: ignore[arg-type]


async def _get(url: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url) as client:
        return await client.get(path)


async def test_it_says_where_and_serves_and_ends_without_a_trace(tmp_path: Path) -> None:
    before = len(asyncio.all_tasks())
    gateway = Gateway(_settings(tmp_path))
    await gateway.start()
    line = await gateway.ready_line()
    assert re.fullmatch(r"Underpass is ready: http://localhost:\d+/setup\?code=\S+", line)
    assert (await _get(gateway.url, "/ready")).status_code == 200
    assert (await _get(gateway.url, "/")).status_code == 200
    await gateway.stop()
    await gateway.stop()
    assert not gateway.services.ready
    with pytest.raises(httpx.ConnectError):
        await _get(gateway.url, "/ready")
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


async def test_the_admin_of_the_settings_needs_no_code(tmp_path: Path) -> None:
    gateway = Gateway(_settings(tmp_path, admin_user="root", admin_password=PASSWORD))
    await gateway.start()
    try:
        assert (await gateway.ready_line()) == f"Underpass is ready: {gateway.url}"
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            answer = await client.post(
                "/api/v1/auth/login", json={"username": "root", "password": PASSWORD}
            )
        assert answer.json()["data"]["user"]["role"] == "admin"
    finally:
        await gateway.stop()


async def test_a_weak_password_in_the_settings_is_one_line(tmp_path: Path) -> None:
    gateway = Gateway(_settings(tmp_path, admin_user="root", admin_password="short"))
    with pytest.raises(SettingsError, match="Can't make the first admin"):
        await gateway.start()


async def test_what_it_can_not_start_with(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortUnavailable, match="in use"):
            await Gateway(_settings(tmp_path, listen=f"127.0.0.1:{port}")).start()
    assert not (tmp_path / "state").exists(), "nothing was touched"
    with pytest.raises(DatabaseError):
        await Gateway(
            _settings(tmp_path, database=f"sqlite:///{tmp_path}/no/such/place.db")
        ).start()
    with pytest.raises(SettingsError):
        await Gateway(_settings(tmp_path, state=Path("/proc/none"))).start()
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(SettingsError):
        await Gateway(
            _settings(tmp_path, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
        ).start()


async def test_run_gateway_turns_that_into_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_gateway(_settings(tmp_path, state=Path("/proc/none"))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.err.startswith("underpass: The state directory")


async def test_the_built_in_agent_enrols_and_links_by_itself(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path, local_agent=True, node_name="here", admin_user="root", admin_password=PASSWORD
    )
    for attempt in range(2):  # the second time it is enrolled already
        gateway = Gateway(settings)
        await gateway.start()
        try:
            assert gateway.local_agent is not None
            async with asyncio.timeout(30):
                await gateway.local_agent.linked.wait()
            (link,) = gateway.services.registry.agents()
            assert link.peer.name == "here"
            view = await gateway.services.agents.view(link.peer.id)
            assert view is not None, attempt
        finally:
            await gateway.stop()
    assert (tmp_path / "state" / "agent" / "agent_secret_key").exists()


async def test_the_built_in_agent_enrols_anew_in_a_new_database(tmp_path: Path) -> None:
    settings = _settings(tmp_path, local_agent=True)
    for _ in range(2):
        gateway = Gateway(settings)
        await gateway.start()
        try:
            assert gateway.local_agent is not None
            async with asyncio.timeout(20):
                await gateway.local_agent.linked.wait()
        finally:
            await gateway.stop()
        for file in (tmp_path / "state").glob("*.db*"):
            file.unlink()


async def test_with_tls_the_built_in_agent_pins_the_certificate(tmp_path: Path) -> None:
    gateway = Gateway(_settings(tmp_path, local_agent=True, tls="self"))
    await gateway.start()
    try:
        assert gateway.url.startswith("https://localhost:")
        assert gateway.services.tls_self_made
        assert gateway.local_agent is not None
        async with asyncio.timeout(30):
            await gateway.local_agent.linked.wait()
        (link,) = gateway.services.registry.agents()
        assert link.carrier == "tls"
    finally:
        await gateway.stop()


async def test_disabling_somebody_cuts_their_stream_of_news(tmp_path: Path) -> None:
    gateway = Gateway(_settings(tmp_path, admin_user="root", admin_password=PASSWORD))
    await gateway.start()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            login = await client.post(
                "/api/v1/auth/login", json={"username": "root", "password": PASSWORD}
            )
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {login.json()['data']['access_token']}"
            made = await client.post(
                "/api/v1/users", json={"username": "bob", "password": PASSWORD}
            )
            bob = await client.post(
                "/api/v1/auth/login",
                json={"username": "bob", "password": PASSWORD},
            )
            token = bob.json()["data"]["access_token"]
            async with client.stream(
                "GET", "/api/v1/live", headers={"Authorization": f"Bearer {token}"}
            ) as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith(":")
                started = time.monotonic()
                await client.patch(
                    f"/api/v1/users/{made.json()['data']['id']}", json={"disabled": True}
                )
                text = "\n".join([line async for line in lines])
            assert "event: end" in text
            assert time.monotonic() - started < 5
    finally:
        await gateway.stop()


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("0.0.0.0", False, "http://127.0.0.1:1"),
        ("::", True, "https://[::1]:1"),
        ("192.0.2.1", False, "http://192.0.2.1:1"),
        ("gw.example.org", True, "https://gw.example.org:1"),
    ],
)
def test_where_this_machine_reaches_it(host: str, tls: bool, url: str) -> None:
    assert loopback_url(host, 1, tls=tls) == url


class _Program:
    """``underpass serve`` as a program."""

    def __init__(self, tmp_path: Path, *arguments: str, **environment: str) -> None:
        self.errors = tmp_path / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "underpass.cli.main", "serve",
                    "--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"), *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={k: v for k, v in os.environ.items() if not k.startswith("UNDERPASS")}
                | environment,
            )  # fmt: skip

    def address(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"Underpass is ready: (\S+)", line)
        assert match, line + self.errors.read_text()
        return match[1]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


async def test_no_secret_reaches_the_log_of_the_real_program(tmp_path: Path) -> None:
    program = _Program(tmp_path, "--log-level", "debug")
    try:
        address = await asyncio.to_thread(program.address)
        base, _, code = address.partition("/setup?code=")
        secrets = [code, PASSWORD, "hunter2hunter2"]
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            login = await client.post(
                "/api/v1/setup", json={"code": code, "username": "ada", "password": PASSWORD}
            )
            data = login.json()["data"]
            token = data["access_token"]
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {token}"
            key = (await client.post("/api/v1/api-keys", json={"name": "x"})).json()["data"]
            join = (await client.post("/api/v1/join-tokens", json={})).json()["data"]
            secrets += [token, data["csrf_token"], key["token"], join["token"]]
            for path in (
                f"/api/v1/assets?token={token}", f"/setup?code={code}",
                f"/api/v1/tty/ws?token={token}", f"/api/v1/nothing/token={token}",
                f"/api/v1/events?q={'x' * 300}&token={token}",
            ):  # fmt: skip
                await client.get(path)
            await client.post("/api/v1/auth/revoke", json={"token": key["token"]})
            await client.post(
                "/api/v1/auth/login", json={"username": "ada", "password": "hunter2hunter2"}
            )
            await client.post(
                "/api/v1/auth/password", json={"old": PASSWORD, "new": "hunter2hunter2"}
            )
            assets = (await client.get("/api/v1/assets")).json()["data"]["items"]
            if assets:
                ticket = await client.get(f"/api/v1/assets/{assets[0]['id']}/tty/authorize")
                if ticket.status_code == 200:
                    secrets.append(ticket.json()["token"])
                    await client.get(f"/api/v1/tty/ws?token={ticket.json()['token']}")
            await client.post("/api/v1/auth/logout")
    finally:
        assert await asyncio.to_thread(program.end) == 0
    log = program.errors.read_text()
    assert "http_request" in log
    for secret in secrets:
        assert secret not in log
        assert json.dumps(secret)[1:-1] not in log


async def test_a_signal_drains_and_exits_0(tmp_path: Path) -> None:
    program = _Program(tmp_path, "--no-local-agent", UNDERPASS_ADMIN_USER="root",
                       UNDERPASS_ADMIN_PASSWORD=PASSWORD)  # fmt: skip
    address = await asyncio.to_thread(program.address)
    assert "code=" not in address
    assert (await _get(address, "/ready")).status_code == 200
    assert await asyncio.to_thread(program.end) == 0
    assert "Traceback" not in program.errors.read_text()


def test_a_shells_low_limit_of_open_files_is_lifted() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        serve._allow_descriptors()
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        infinite = hard == resource.RLIM_INFINITY
        assert now == (serve.MAX_DESCRIPTORS if infinite else min(hard, serve.MAX_DESCRIPTORS))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_built_in_agent_that_fails_is_tried_again_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(_settings(tmp_path))
    await gateway.start()
    try:
        answers: list[Any] = [SettingsError("no"), OSError("no"), 3]
        ran = asyncio.Event()

        async def run(settings: Any, *, ready: Any, stop: asyncio.Event) -> int:
            answer = answers.pop(0) if answers else None
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                ready()
                ran.set()
                await stop.wait()
                return 0
            return int(answer)

        monkeypatch.setattr(local_agent, "run_agent", run)
        monkeypatch.setattr(local_agent, "backoff", lambda first, cap: repeat(0.01))
        agent = LocalAgent(gateway.services)
        await agent.stop()  # never started: nothing to do
        agent = LocalAgent(gateway.services)
        agent.start()
        async with asyncio.timeout(10):
            await ran.wait()
            await agent.stop()
        assert agent.linked.is_set()

        async def stuck(settings: Any, *, ready: Any, stop: asyncio.Event) -> int:
            await asyncio.Event().wait()
            return 0

        monkeypatch.setattr(local_agent, "run_agent", stuck)
        monkeypatch.setattr(local_agent, "STOP_TIMEOUT", 0.05)
        agent = LocalAgent(gateway.services)
        agent.start()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await agent.stop()
    finally:
        await gateway.stop()


async def test_it_takes_links_over_udp_unless_told_not_to(tmp_path: Path) -> None:
    gateway = Gateway(_settings(tmp_path))
    await gateway.start()
    assert gateway.quic_front is not None
    assert gateway.quic_front.port == gateway.services.port
    certificate = (tmp_path / "state" / "tls-cert.pem").read_bytes()
    await gateway.stop()
    gateway = Gateway(_settings(tmp_path))
    await gateway.start()  # the certificate stays the same
    assert (tmp_path / "state" / "tls-cert.pem").read_bytes() == certificate
    await gateway.stop()
    gateway = Gateway(_settings(tmp_path, quic=False))
    await gateway.start()
    assert gateway.quic_front is None
    await gateway.stop()


async def test_a_udp_port_it_can_not_have_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: Any) -> socket.socket:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("underpass.gateway.quic_front.bound_socket", taken)
    gateway = Gateway(_settings(tmp_path))
    await gateway.start()
    assert gateway.quic_front is None
    assert (await _get(gateway.url, "/ready")).status_code == 200
    await gateway.stop()
