"""The fingerprint pin on plain requests: checked before a byte of ours is on the wire."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateway.gateways import certificate
from underpass.agent.corrected_clock import CorrectedClock
from underpass.agent.signed_http import GatewayUnreachable, SignedHttp
from underpass.core.clock import SystemClock
from underpass.gateway.certificate import Certificate


class Heard:
    """What a TLS server got to read."""

    def __init__(self) -> None:
        self.data = b""


@asynccontextmanager
async def tls_server(made: Certificate) -> AsyncIterator[tuple[int, Heard]]:
    heard = Heard()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.data += await reader.read(65536)
            if heard.data:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                await writer.drain()
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=made.context())
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


def client(port: int, fingerprint: str | None) -> SignedHttp:
    return SignedHttp(
        f"https://127.0.0.1:{port}",
        CorrectedClock(SystemClock()),
        agent_id="x",
        secret=lambda: b"s" * 32,
        fingerprint=fingerprint,
    )


async def test_the_pinned_certificate_is_believed(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    async with tls_server(made) as (port, heard):
        http = client(port, made.fingerprint)
        assert await http.post("/x", {"secret": 1}) == {}
        assert b"secret" in heard.data
        await http.close()


@pytest.mark.parametrize("fingerprint", ["sha256:" + "0" * 64, None])
async def test_any_other_gets_nothing(tmp_path: Path, fingerprint: str | None) -> None:
    async with tls_server(certificate(tmp_path)) as (port, heard):
        http = client(port, fingerprint)
        with pytest.raises(GatewayUnreachable):
            await http.post("/x", {"secret": 1})
        await http.close()
        assert heard.data == b""


async def test_ssl_cert_file_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificate(tmp_path)
    pem = next(path for path in tmp_path.rglob("*") if path.is_file()
               and b"BEGIN CERTIFICATE" in path.read_bytes())  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with tls_server(made) as (port, _heard):
        http = client(port, None)
        assert await http.post("/x", {}) == {}
        await http.close()
