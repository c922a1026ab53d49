"""Dialling over QUIC: by flag, as the last way, never unverified, never past a man between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.udp_cable import UdpCable
from tests.gateway.gateways import (
    AGENT_ID,
    NODE_PUBLIC,
    Gateway,
    agent_identity,
    certificate,
    client_identity,
    gateway,
)
from tests.links.loops import anyio_backend  # noqa: F401
from underpass.core.errors import InvalidRequest
from underpass.gateway.quic_front import QuicFront
from underpass.links.dial import DialFailed, dial
from underpass.links.quic.dial import connect_quic
from underpass.links.transports.transport import Transport
from underpass.links.trust import CertificateRejected
from underpass.wire.handshake import HandshakeError, Refused


@contextlib.asynccontextmanager
async def behind_udp(directory: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """A plain gateway, and a URL at which only its UDP port answers."""
    async with gateway() as node:
        await node.listen_for_quic(certificate(directory))
        cable = UdpCable(node.front.port)
        try:
            yield node, f"http://127.0.0.1:{cable.port}"
        finally:
            cable.close()


async def test_by_flag_agents_and_people_come_in(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    async with gateway(tls=made) as node:
        await node.listen_for_quic()
        link = await dial(
            node.url, agent_identity(), transport="quic", fingerprint=made.fingerprint
        )
        assert link.carrier == "quic"
        held = node.registry.agent(AGENT_ID)
        assert held is not None
        assert held.carrier == "quic"
        person = await dial(
            node.url, client_identity(), transport="quic", fingerprint=made.fingerprint
        )
        (client,) = node.registry.clients()
        assert (client.subject.username, client.subject.ip) == ("ada", "127.0.0.1")
        await person.close()
        await link.close()


async def test_auto_takes_quic_when_tcp_does_not_get_there(tmp_path: Path) -> None:
    async with behind_udp(tmp_path) as (_, url):
        link = await dial(url, agent_identity(), pinned_key=NODE_PUBLIC)
        assert link.carrier == "quic"
        await link.close()


@pytest.mark.parametrize("silent", [True, False])
async def test_auto_takes_quic_when_what_answers_on_tcp_is_no_gateway(
    tmp_path: Path, silent: bool
) -> None:
    async with behind_udp(tmp_path) as (_, url):
        port = int(url.rpartition(":")[2])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError):
                if silent:
                    async with asyncio.timeout(2):
                        await reader.read()
                else:
                    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", port)
        link = await dial(url, agent_identity(), pinned_key=NODE_PUBLIC, timeout=0.5)
        assert link.carrier == "quic"
        await link.close()
        listener.close()


async def test_auto_says_what_tcp_met_when_udp_is_blocked_too(tmp_path: Path) -> None:
    async with behind_udp(tmp_path) as (node, url):
        assert node.quic_front is not None
        await node.quic_front.stop()
        with pytest.raises(DialFailed) as error:
            await dial(url, agent_identity(), pinned_key=NODE_PUBLIC, timeout=0.5)
        assert error.value.code == "unreachable"


async def test_a_refusal_over_quic_is_final(tmp_path: Path) -> None:
    async with behind_udp(tmp_path) as (_, url):
        with pytest.raises(Refused) as refused:
            await dial(url, agent_identity(b"x" * 32), pinned_key=NODE_PUBLIC)
        assert (refused.value.code, refused.value.final) == ("not_enrolled", True)


async def test_without_anything_to_know_it_by_quic_is_not_spoken(tmp_path: Path) -> None:
    async with behind_udp(tmp_path) as (_, url):
        with pytest.raises(InvalidRequest) as error:
            await dial(url, agent_identity(), transport="quic")
        assert error.value.code == "quic_unverified"
        with pytest.raises(DialFailed) as failed:  # and auto does not even try
            await dial(url, agent_identity())
        assert failed.value.code == "unreachable"
        fingerprint = certificate(tmp_path).fingerprint
        link = await dial(url, agent_identity(), transport="quic", fingerprint=fingerprint)
        await link.close()


async def test_https_asks_the_authorities(tmp_path: Path) -> None:
    async with gateway(tls=certificate(tmp_path)) as node:
        await node.listen_for_quic()
        with pytest.raises(CertificateRejected) as error:
            await dial(node.url, agent_identity(), transport="quic", pinned_key=NODE_PUBLIC)
        assert error.value.hint is not None


async def test_somebody_in_between_with_a_certificate_of_their_own_is_noticed(
    tmp_path: Path,
) -> None:
    """They end QUIC on both sides and pass every byte on; only the binding tells."""
    async with gateway() as node:
        real = await node.listen_for_quic(certificate(tmp_path / "real"))
        seen: list[bytes] = []
        between: list[Transport] = []

        async def pass_on(near: Transport) -> None:
            far = await connect_quic("127.0.0.1", real.port, verify=False)
            between.extend((near, far))

            class Pipe:
                def __init__(self, other: Transport) -> None:
                    self.other = other

                def feed(self, data: bytes) -> None:
                    seen.append(data)
                    self.other.write(data)

                def pause_writing(self) -> None: ...

                def resume_writing(self) -> None: ...

                def lost(self, error: Exception | None) -> None:
                    self.other.close()

            far.set_sink(Pipe(near))
            near.set_sink(Pipe(far))

        async with asyncio.TaskGroup() as group:
            front = QuicFront(
                host="127.0.0.1", port=0, certificate=certificate(tmp_path / "theirs"),
                on_link=lambda near, _: group.create_task(pass_on(near)),
            )  # fmt: skip
            await front.start()
            with pytest.raises(HandshakeError) as error:
                await dial(
                    f"http://127.0.0.1:{front.port}", client_identity(),
                    transport="quic", pinned_key=NODE_PUBLIC,
                )  # fmt: skip
            assert error.value.code == "bad_signature"
        assert len(seen) == 2  # HELLO and CHALLENGE; nothing that proves the person
        for transport in between:
            transport.abort()
        await front.stop()
