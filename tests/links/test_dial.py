"""Dialling and accepting over real sockets: what gets through, what falls back, what is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.gateways import (
    AGENT_ID,
    NODE_PUBLIC,
    agent_identity,
    certificate,
    client_identity,
    gateway,
)
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.links import dial as dialling
from underpass.links.dial import DialFailed, GatewayAddress, dial
from underpass.links.trust import CertificateRejected
from underpass.wire.handshake import PREFACE, Established, HandshakeError, Refused


@asynccontextmanager
async def server(
    answer: bytes | None, *, after: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Something that is no gateway: waits for *after*, says *answer* (None: nothing), closes."""
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if after:
                await reader.readuntil(after)
            if answer is None:
                await silent.wait()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        silent.set()
        listener.close()


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("http://h", GatewayAddress("h", 80, tls=False)),
            ("https://h", GatewayAddress("h", 443, tls=True)),
            ("h:3000", GatewayAddress("h", 3000, tls=False)),
            ("https://[::1]:3/", GatewayAddress("::1", 3, tls=True)),
            ("http://h/gw/", GatewayAddress("h", 80, tls=False, path="/gw")),
        ],
    )
    def test_parsing(self, text: str, address: GatewayAddress) -> None:
        assert GatewayAddress.parse(text) == address

    @pytest.mark.parametrize(
        "text", ["", "http://", "ftp://h", "http://u@h", "http://h:x", "http://["]
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidRequest) as error:
            GatewayAddress.parse(text)
        assert error.value.code == "bad_server"

    def test_urls(self) -> None:
        address = GatewayAddress.parse("https://[::1]:3/gw")
        assert address.websocket_url == "wss://[::1]:3/gw/api/v1/link"
        assert GatewayAddress.parse("h:1").websocket_url == "ws://h:1/api/v1/link"


class TestWaysIn:
    async def test_auto_takes_the_raw_way(self) -> None:
        async with gateway() as node:
            found: list[Established] = []
            link = await dial(node.url, agent_identity(), on_established=found.append)
            assert link.carrier == "tcp"
            assert found[0].node_key == NODE_PUBLIC
            assert link.id == found[0].link_id
            assert link.peer.role == "node"
            await link.close()

    async def test_tls_needs_the_fingerprint_or_an_authority(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = certificate(tmp_path)
        async with gateway(tls=made) as node:
            with pytest.raises(CertificateRejected, match="not believed"):
                await dial(node.url, agent_identity())
            for transport in ("tcp", "websocket", "auto"):
                with pytest.raises(CertificateRejected, match="pinned"):
                    await dial(
                        node.url, agent_identity(), fingerprint="sha256:" + "0" * 64,
                        transport=transport,
                    )  # fmt: skip
                link = await dial(
                    node.url, agent_identity(), fingerprint=made.fingerprint, transport=transport
                )
                assert link.carrier == ("websocket" if transport == "websocket" else "tls")
                await link.close()
            monkeypatch.setenv("SSL_CERT_FILE", str(made.chain))
            link = await dial(node.url, agent_identity())
            await link.close()

    async def test_falls_back_to_websocket_behind_an_http_proxy(self) -> None:
        """A proxy that forwards HTTP and answers everything else with 400."""
        async with gateway() as node:

            async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                head = await reader.read(8)
                if head == PREFACE:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    writer.close()
                    return
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", node.front.port)
                up_writer.write(head)

                async def pump(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
                    while data := await a.read(65536):
                        b.write(data)
                    b.close()

                await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

            listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            link = await dial(url, agent_identity(), pinned_key=NODE_PUBLIC)
            assert link.carrier == "websocket"
            assert node.registry.agent(AGENT_ID) is not None
            await link.close()
            with pytest.raises(HandshakeError) as error:
                await dial(url, agent_identity(), transport="tcp")
            assert error.value.code == "not_a_link"
            listener.close()

    async def test_below_a_path_only_websocket_is_tried(self) -> None:
        async with server(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", after=b"\r\n\r\n"
        ) as url:
            with pytest.raises(DialFailed) as error:
                await dial(url + "/prefix", agent_identity())
            assert error.value.code == "websocket_refused"

    async def test_a_client_comes_in_by_token(self) -> None:
        async with gateway() as node:
            link = await dial(node.url, client_identity(), pinned_key=NODE_PUBLIC)
            (client,) = node.registry.clients()
            assert client.subject.username == "ada"
            assert client.subject.ip == "127.0.0.1"
            assert client.subject.via == "token"
            await link.close()


class TestFailures:
    async def test_refusals_are_not_tried_another_way(self) -> None:
        async with gateway() as node:
            for identity in (
                agent_identity(b"x" * 32),
                agent_identity(agent_id="22222222-2222-4222-8222-222222222222"),
            ):
                with pytest.raises(Refused) as refused:
                    await dial(node.url, identity, pinned_key=NODE_PUBLIC)
                assert (refused.value.code, refused.value.final) == ("not_enrolled", True)
            with pytest.raises(Refused) as refused:
                await dial(node.url, client_identity("ups_wrong"))
            assert (refused.value.code, refused.value.final) == ("unauthenticated", True)
            assert node.link_server.handshakes == 0
            # One event per address and minute, whatever a peer does.
            assert len(node.events.named("link.refused")) == 1

    async def test_another_node_key_is_not_talked_to(self) -> None:
        other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        async with gateway() as node:
            with pytest.raises(HandshakeError) as error:
                await dial(node.url, agent_identity(), pinned_key=other)
            assert error.value.code == "wrong_node_key"

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (b"", "connection_lost"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not_a_link"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "too_large"),
            (b"\0\1\xc1", "bad_message"),
        ],
    )
    async def test_what_is_no_gateway(self, answer: bytes, code: str) -> None:
        async with server(answer) as url:
            with pytest.raises(UnderpassError) as error:
                await dial(url, agent_identity(), timeout=2)
            assert error.value.code == code

    async def test_a_flood_is_cut(self) -> None:
        async with server(b"\0\x00" * 200_000) as url:
            with pytest.raises(UnderpassError):
                await dial(url, agent_identity(), transport="tcp", timeout=5)

    async def test_silence_ends_by_the_deadline(self) -> None:
        async with server(None) as url:
            with pytest.raises(DialFailed) as error:
                await dial(url, agent_identity(), transport="tcp", timeout=0.2)
            assert error.value.code == "timeout"

    async def test_nobody_there(self) -> None:
        async with server(b"") as url:
            pass
        with pytest.raises(DialFailed) as error:
            await dial(url, agent_identity())
        assert error.value.code == "unreachable"
        assert "127.0.0.1" in error.value.message

    async def test_tls_against_plain_http(self) -> None:
        async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            with pytest.raises(DialFailed) as error:
                await dial(
                    url.replace("http:", "https:"), agent_identity(), transport="tcp", timeout=2
                )
            assert error.value.code == "not_a_link"

    def test_every_error_is_explained(self) -> None:
        explained = dialling._explained
        assert explained(ConnectionResetError(), "h", 1).code == "connection_lost"  # type: ignore[attr-defined]
        other = ValueError()
        assert explained(other, "h", 1) is other
        rejected = CertificateRejected("x")
        assert explained(rejected, "h", 1) is rejected
