"""Trying a way: the gateway itself has to answer, and no link is made."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.gateway.gateways import NODE_PUBLIC, agent_identity, certificate, gateway
from underpass.core.errors import UnderpassError
from underpass.links.probe import probe_way
from underpass.wire.handshake import HandshakeError


@pytest.mark.parametrize("way", ["tcp", "quic"])
async def test_the_gateway_answers_and_nobody_comes_in(tmp_path: Path, way: str) -> None:
    async with gateway() as node:
        await node.listen_for_quic(certificate(tmp_path))
        took = await probe_way(node.url, agent_identity(), way, pinned_key=NODE_PUBLIC)  # type: ignore[arg-type]
        assert took > 0
        assert node.registry.agent_count == 0


@pytest.mark.parametrize("way", ["tcp", "quic"])
async def test_somebody_else_is_no_way(tmp_path: Path, way: str) -> None:
    async with gateway() as node:
        await node.listen_for_quic(certificate(tmp_path))
        with pytest.raises(HandshakeError):
            await probe_way(node.url, agent_identity(), way, pinned_key=b"x" * 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["tcp", "quic"])
async def test_nobody_is_no_way(way: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnderpassError):
        await probe_way(
            f"http://127.0.0.1:{port}", agent_identity(), way,  # type: ignore[arg-type]
            pinned_key=NODE_PUBLIC, timeout=1,
        )  # fmt: skip
