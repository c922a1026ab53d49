"""The first slice: an agent dials in over the one port, and the router opens a TCP stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.gateways import (
    ADMIN,
    AGENT_ID,
    NODE_PUBLIC,
    agent_identity,
    certificate,
    gateway,
)
from underpass.agent.openers import dispatch
from underpass.agent.openers.tcp import tcp_opener
from underpass.agent.policy import Policy
from underpass.core.errors import Conflict
from underpass.links.dial import dial
from underpass.links.link import OpenRefused


async def _echo_server() -> tuple[asyncio.Server, int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_from_router_to_service(tls: bool, transport: str, tmp_path: Path) -> None:
    async with gateway(tls=certificate(tmp_path) if tls else None) as node:
        server, port = await _echo_server()
        with pytest.raises(Conflict) as unlinked:
            await node.router.open(AGENT_ID, f"tcp:127.0.0.1:{port}", on_behalf_of=ADMIN)
        assert unlinked.value.code == "agent_unlinked"

        linked = asyncio.Event()
        node.registry.on_agent_linked(lambda _link: linked.set())
        link = await dial(
            node.url, agent_identity(), transport=transport, fingerprint=node.fingerprint,
            pinned_key=NODE_PUBLIC,
        )  # fmt: skip
        link.on_open(dispatch({"tcp": tcp_opener(Policy())}))
        link.start()
        async with asyncio.timeout(5):
            await linked.wait()
        assert node.router.is_linked(AGENT_ID)
        assert link.carrier == (
            "websocket" if transport == "websocket" else "tls" if tls else "tcp"
        )

        stream = await node.router.open(AGENT_ID, f"tcp:127.0.0.1:{port}", on_behalf_of=ADMIN)
        stream.write(b"x" * 100_000)
        await stream.write_eof()
        got = b""
        while data := await stream.read():
            got += data
        assert got == b"x" * 100_000
        await stream.close()

        with pytest.raises(OpenRefused) as refused:
            await node.router.open(AGENT_ID, "tcp:169.254.169.254:80", on_behalf_of=ADMIN)
        assert refused.value.code == "policy_denied"
        assert refused.value.status == 403
        await link.close()
        server.close()
