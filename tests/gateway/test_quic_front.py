"""The UDP port: links come in, caps hold, silent peers go, addresses that move are still known."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from tests.gateway.gateways import certificate
from tests.links.loops import anyio_backend  # noqa: F401
from tests.links.test_transports import until
from underpass.core.errors import Unavailable
from underpass.gateway import quic_front as module
from underpass.gateway.certificate import Certificate
from underpass.gateway.quic_front import QuicFront
from underpass.links.quic.dial import connect_quic
from underpass.links.quic.half_open import HalfOpen
from underpass.links.quic.retry import RetryTokens
from underpass.links.quic.transport import QuicTransport
from underpass.links.transports.transport import Inbox, Transport
from underpass.links.trust import CertificateRejected


class Taken:
    """What a front handed on."""

    def __init__(self) -> None:
        self.transports: list[Transport] = []

    def __call__(self, transport: Transport, _address: str | None) -> None:
        self.transports.append(transport)


@contextlib.asynccontextmanager
async def front(directory: Path, **options: Any) -> Any:
    taken = Taken()
    options = {"host": "127.0.0.1", "port": 0, "certificate": certificate(directory)} | options
    made = QuicFront(on_link=taken, **options)
    await made.start()
    try:
        yield made, taken
    finally:
        await made.stop()
        await made.stop()


async def dialled(made: QuicFront, fingerprint: str, host: str = "127.0.0.1") -> Any:
    async with asyncio.timeout(5):
        return await connect_quic(host, made.port, fingerprint=fingerprint)


async def test_a_link_is_handed_on_with_its_first_byte_and_its_binding(tmp_path: Path) -> None:
    print_ = certificate(tmp_path).fingerprint
    async with front(tmp_path) as (made, taken):
        near = await dialled(made, print_)
        assert made.undecided == 1
        assert not taken.transports
        near.write(b"UNDPASS1")
        await until(lambda: taken.transports)
        (far,) = taken.transports
        assert far.binding == near.binding != b""
        assert far.peer_address.startswith("127.0.0.1:")
        assert await Inbox(far).read() == b"UNDPASS1"
        assert made.undecided == 0
        assert made.connections == 1
        near.abort()
        await until(lambda: made.connections == 0)


async def test_on_every_address_it_answers_from_the_one_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients need take nothing from a server's other addresses (RFC 9000, 9)."""
    print_ = certificate(tmp_path).fingerprint
    sources: set[tuple[Any, ...]] = set()
    received = QuicTransport.received

    def noted(self: QuicTransport, data: bytes, size: int, address: tuple[Any, ...]) -> None:
        sources.add(address)
        received(self, data, size, address)

    monkeypatch.setattr(QuicTransport, "received", noted)
    async with front(tmp_path, host="0.0.0.0") as (made, taken):
        near = await dialled(made, print_, "127.0.0.2")
        near.write(b"UNDPASS1")
        await until(lambda: taken.transports)
        assert ("127.0.0.2", made.port) in sources
        assert ("127.0.0.1", made.port) not in sources
        near.abort()
        await until(lambda: made.connections == 0)


async def test_silent_peers_are_dropped_and_capped(tmp_path: Path) -> None:
    print_ = certificate(tmp_path).fingerprint
    options: dict[str, Any] = {"sniff_timeout": 0.3, "max_undecided_per_address": 2}
    async with front(tmp_path, **options) as (made, taken):
        near = [await dialled(made, print_) for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect_quic("127.0.0.1", made.port, fingerprint=print_)
        assert made.connections == 2
        await until(lambda: made.undecided == 0)
        await until(lambda: all(transport.closing for transport in near))
        late = await dialled(made, print_)  # there is room again
        late.write(b"UNDPASS1")
        await until(lambda: taken.transports)
        late.abort()
    async with front(tmp_path, max_undecided=0) as (made, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect_quic("127.0.0.1", made.port, fingerprint=print_)
        assert made.connections == 0


async def test_noise_makes_no_connections(tmp_path: Path) -> None:
    async with front(tmp_path) as (made, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for data in (b"", b"x", b"\xc0" * 1200, b"\x40" * 1200, bytes(65_000)):
                noise.sendto(data, ("127.0.0.1", made.port))
        await asyncio.sleep(0.05)
        assert made.connections == 0


class TestFlood:
    """Many first packets from addresses that are not the sender's."""

    @staticmethod
    def first_packet() -> bytes:
        quic = QuicConnection(
            configuration=QuicConfiguration(server_name="h", alpn_protocols=["underpass/1"])
        )
        quic.connect(("127.0.0.1", 1), now=0.0)
        return quic.datagrams_to_send(now=0.0)[0][0]

    async def test_forged_addresses_fill_a_few_places_and_a_client_gets_in(
        self, tmp_path: Path
    ) -> None:
        print_ = certificate(tmp_path).fingerprint
        half_open = HalfOpen(
            most=40, most_per_address=8, unproved=12, unproved_per_address=2
        )  # fmt: skip
        async with front(tmp_path, half_open=half_open) as (made, taken):
            socks: list[socket.socket] = []
            sent = 0
            for number in range(60):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setblocking(False)
                sock.bind((f"127.0.1.{1 + number}", 0))
                socks.append(sock)
                for _ in range(3):
                    data = self.first_packet()
                    sent += len(data)
                    sock.sendto(data, ("127.0.0.1", made.port))
                if number % 10 == 9:
                    await asyncio.sleep(0.01)
            await until(lambda: made.undecided >= 12)
            assert made.connections == made.undecided == 12
            near = await dialled(made, print_)  # by way of a Retry
            assert near.quic._retry_count == 1
            near.write(b"UNDPASS1")
            await until(lambda: taken.transports)
            assert await Inbox(taken.transports[0]).read() == b"UNDPASS1"
            got = 0
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        got += len(sock.recv(65_536))
                sock.close()
            assert 0 < got <= 3 * sent
            near.abort()

    async def test_at_rest_nobody_is_sent_back(self, tmp_path: Path) -> None:
        async with front(tmp_path) as (made, _):
            near = await dialled(made, certificate(tmp_path).fingerprint)
            assert near.quic._retry_count == 0
            near.abort()

    async def test_tokens_are_good_for_who_was_given_them(self, tmp_path: Path) -> None:
        tokens = RetryTokens(asyncio.get_running_loop().time, key=b"k" * 32)
        half_open = HalfOpen(most=9, most_per_address=9, unproved=0)
        async with front(tmp_path, half_open=half_open, tokens=tokens) as (made, _):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                for token in (b"x" * 40, tokens.make("127.0.0.2", 9, b"original", b"next-cid")):
                    head = b"\xc3\0\0\0\1\x08next-cid\x08peer-cid" + bytes((len(token),))
                    sock.sendto((head + token).ljust(1200, b"\0"), ("127.0.0.1", made.port))
            await asyncio.sleep(0.05)
            assert made.connections == 0
            near = await dialled(made, certificate(tmp_path).fingerprint)
            assert near.quic._retry_count == 1
            near.abort()

    async def test_a_first_packet_that_goes_no_further_is_forgotten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT", 0.1)
        async with front(tmp_path) as (made, _):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(self.first_packet(), ("127.0.0.1", made.port))
                await until(lambda: made.undecided == 1)
                await until(lambda: made.undecided == 0)


class TestCertificates:
    async def test_only_the_pinned_one_is_believed(self, tmp_path: Path) -> None:
        async with front(tmp_path) as (made, taken):
            with pytest.raises(CertificateRejected, match="not believed"):
                await dialled(made, "sha256:" + "0" * 64)
            with pytest.raises(CertificateRejected):
                async with asyncio.timeout(5):
                    await connect_quic("127.0.0.1", made.port)
            assert not taken.transports

    async def test_authorities_vouch_for_names_and_addresses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made_by, leaf = authority(tmp_path, "DNS:localhost,IP:127.0.0.1")
        async with front(tmp_path, certificate=leaf) as (made, _):
            for host in ("localhost", "127.0.0.1"):
                with pytest.raises(CertificateRejected):
                    await connect_quic(host, made.port)
            monkeypatch.setenv("SSL_CERT_FILE", str(made_by))
            for host in ("localhost", "127.0.0.1"):
                near = await connect_quic(host, made.port)
                near.abort()
        _, other = authority(tmp_path, "DNS:elsewhere.example,IP:192.0.2.1", again=True)
        async with front(tmp_path, certificate=other) as (made, _):
            for host in ("localhost", "127.0.0.1"):  # another's certificate, well signed
                with pytest.raises(CertificateRejected):
                    await connect_quic(host, made.port)

    async def test_a_certificate_that_cannot_be_used_turns_it_off(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.pem"
        bad.write_text("no certificate")
        broken = Certificate(bad, bad, "sha256:" + "0" * 64, self_made=True)
        async with front(tmp_path, certificate=broken) as (made, taken):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await connect_quic("127.0.0.1", made.port, fingerprint=broken.fingerprint)
            assert made.connections == 0
            assert not taken.transports


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    async with front(tmp_path) as (made, _):
        other = QuicFront(
            host="127.0.0.1", port=made.port, certificate=certificate(tmp_path), on_link=Taken()
        )
        with pytest.raises(Unavailable) as error:
            await other.start()
        assert error.value.code == "quic_unavailable"
        await other.stop()


async def test_nobody_there_is_told_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable) as error:
        async with asyncio.timeout(2):
            await connect_quic("127.0.0.1", port, fingerprint="0" * 64)
    assert error.value.code == "unreachable"


def authority(directory: Path, names: str, *, again: bool = False) -> tuple[Path, Certificate]:
    """An authority's certificate file, and a certificate it signed for *names*."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from underpass.links.trust import fingerprint_of

    now = datetime.datetime.now(datetime.UTC)

    def certificate_for(name: str, key: Any, issuer: Any, signer: Any, extensions: Any) -> Any:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256())

    root_file, key_file = directory / "root.pem", directory / "root-key.pem"
    if not again:
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = certificate_for(
            "test authority", root_key, None, root_key,
            [(x509.BasicConstraints(ca=True, path_length=0), True)],
        )  # fmt: skip
        root_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(_pem(root_key))
    root = x509.load_pem_x509_certificate(root_file.read_bytes())
    root_key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    alternatives: list[x509.GeneralName] = []
    for name in names.split(","):
        kind, _, value = name.partition(":")
        alternatives.append(
            x509.DNSName(value) if kind == "DNS" else x509.IPAddress(ipaddress.ip_address(value))
        )
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificate_for(
        "leaf", key, root.subject, root_key,
        [
            (x509.SubjectAlternativeName(alternatives), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
        ],
    )  # fmt: skip
    chain, private = directory / "leaf.pem", directory / "leaf-key.pem"
    chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(_pem(key))
    der = leaf.public_bytes(serialization.Encoding.DER)
    return root_file, Certificate(chain, private, fingerprint_of(der), self_made=False)


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
