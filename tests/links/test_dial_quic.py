"""Dialling over QUIC: by flag, as the last way, never unverified, never past a man between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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
from tests.links.test_transports import until
from underpass.core.errors import InvalidRequest
from underpass.gateway.quic_front import QuicFront
from underpass.links.dial import DialFailed, dial
from underpass.links.link import Link
from underpass.links.quic.dial import connect_quic
from underpass.links.quic.kept import SESSIONS
from underpass.links.transports.transport import Transport
from underpass.links.trust import CertificateRejected
from underpass.wire.handshake import HandshakeError, Refused


def free_port() -> int:
    """A port nobody has for TCP; for UDP few ever have one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def behind_udp(directory: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """A plain gateway, and a URL at which only its UDP port answers."""
    async with gateway() as node:
        await node.listen_for_quic(certificate(directory))
        cable = UdpCable(node.front.port, free_port())
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


class TestResumption:
    """The second link to a gateway: one round trip less, and nothing that may not be repeated."""

    @staticmethod
    async def link(url: str) -> tuple[Link, Any]:
        made = await dial(url, agent_identity(), transport="quic", pinned_key=NODE_PUBLIC)
        transport: Any = made._transport
        return made, transport

    @staticmethod
    async def kept(url: str) -> None:
        """Wait until the session of the link before is kept."""
        port = int(url.rpartition(":")[2])
        await until(lambda: ("127.0.0.1", port, None, False) in SESSIONS._kept)

    async def test_hello_goes_with_the_first_flight(self, tmp_path: Path) -> None:
        async with behind_udp(tmp_path) as (node, url):
            first, transport = await self.link(url)
            assert not transport.quic.tls.session_resumed
            await self.kept(url)
            await first.close()
            second, transport = await self.link(url)
            assert transport.quic.tls.session_resumed
            assert transport.quic.tls.early_data_accepted
            held = node.registry.agent(AGENT_ID)
            assert held is not None
            assert held.id == second.id
            far: Any = held._transport
            assert far.binding == transport.binding != b""
            await self.kept(url)  # and so on
            await second.close()

    async def test_a_first_flight_that_is_repeated_is_nothing(self, tmp_path: Path) -> None:
        async with behind_udp(tmp_path) as (node, url):
            port = int(url.rpartition(":")[2])
            assert node.quic_front is not None
            first, _ = await self.link(url)
            await self.kept(url)
            await first.close()
            recorded: list[bytes] = []

            def record(data: bytes, outward: bool) -> bool:
                if outward and len(recorded) < 8:
                    recorded.append(data)
                return False

            cable = UdpCable(node.quic_front.port)
            cable.lose = record
            key, other = ("127.0.0.1", port, None, False), ("127.0.0.1", cable.port, None, False)
            session = SESSIONS.take(key)
            assert session is not None
            SESSIONS.keep(other, dataclasses.replace(session, address=("127.0.0.1", cable.port)))
            second, transport = await self.link(f"http://127.0.0.1:{cable.port}")
            assert transport.quic.tls.early_data_accepted
            before = len(node.quic_front._sessions)
            handshakes: list[Transport] = []
            node.quic_front._on_link = lambda near, _: handshakes.append(near)
            await second.close()
            await until(lambda: node.quic_front is not None and not node.quic_front.connections)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                for data in recorded:
                    thief.sendto(data, ("127.0.0.1", node.quic_front.port))
            await asyncio.sleep(0.2)
            assert not handshakes  # HELLO was thrown away with the early data
            assert len(node.quic_front._sessions) <= before + 1
            cable.close()

    async def test_a_gateway_that_has_forgotten_it_is_dialled_as_ever(self, tmp_path: Path) -> None:
        async with behind_udp(tmp_path) as (node, url):
            first, _ = await self.link(url)
            await self.kept(url)
            await first.close()
            assert node.quic_front is not None
            node.quic_front._sessions._given.clear()
            second, transport = await self.link(url)
            assert not transport.quic.tls.session_resumed
            assert not transport.quic.tls.early_data_accepted
            await second.close()

    async def test_another_certificate_ends_it_and_is_dialled_anew(self, tmp_path: Path) -> None:
        async with behind_udp(tmp_path) as (node, url):
            first, transport = await self.link(url)
            before = transport.binding
            await self.kept(url)
            await first.close()
            assert node.quic_front is not None
            port = node.quic_front.port
            await node.quic_front.stop()
            front = QuicFront(
                host="127.0.0.1", port=port, certificate=certificate(tmp_path / "new"),
                on_link=node.quic_front._on_link,
            )  # fmt: skip
            await front.start()
            second, transport = await self.link(url)
            assert transport.binding != before
            await second.close()
            await front.stop()

    async def test_a_link_that_was_refused_leaves_no_session(self, tmp_path: Path) -> None:
        async with behind_udp(tmp_path) as (_, url):
            port = int(url.rpartition(":")[2])
            with pytest.raises(Refused):
                await dial(url, agent_identity(b"x" * 32), transport="quic", pinned_key=NODE_PUBLIC)
            assert ("127.0.0.1", port, None, False) not in SESSIONS._kept
