"""Whom TLS clients believe: authorities, or exactly one certificate; never just anybody."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.gateway.gateways import certificate
from underpass.core.errors import InvalidRequest
from underpass.links.trust import (
    CertificateRejected,
    check_fingerprint,
    client_context,
    fingerprint_of,
    parse_fingerprint,
)

HEX = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [HEX, f"sha256:{HEX}", HEX.upper(), ":".join(["AB"] * 32), "SHA256:" + ":".join(["ab"] * 32)],
)
def test_fingerprints_as_people_write_them(text: str) -> None:
    assert parse_fingerprint(f" {text}\n") == f"sha256:{HEX}"


@pytest.mark.parametrize("text", ["", "ab", f"sha1:{HEX}", HEX + "00", "zz" * 32])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_fingerprint(text)


def test_check() -> None:
    check_fingerprint(b"der", fingerprint_of(b"der"))
    for der in (b"other", None):
        with pytest.raises(CertificateRejected):
            check_fingerprint(der, fingerprint_of(b"der"))


def test_verification_is_on_without_a_pin() -> None:
    context = client_context(alpn=("underpass/1",))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_extra_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.chain))
    client_context()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidRequest, match="SSL_CERT_FILE"):
        client_context()


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="whatever")
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass


def test_the_pin_is_checked_in_the_handshake(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    _handshake(client_context(made.fingerprint), made.context())
    with pytest.raises(ssl.SSLCertVerificationError, match="pinned"):
        _handshake(client_context(HEX), made.context())


def test_the_pin_is_checked_on_blocking_sockets(tmp_path: Path) -> None:
    import socket
    import threading

    made = certificate(tmp_path)
    for pin, good in ((made.fingerprint, True), (HEX, False)):
        near, far = socket.socketpair()

        def serve(far: socket.socket = far) -> None:
            try:
                with made.context().wrap_socket(far, server_side=True):
                    pass
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            if good:
                client_context(pin).wrap_socket(near, server_hostname="x").close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    client_context(pin).wrap_socket(near, server_hostname="x")
        finally:
            near.close()
            far.close()
            thread.join(5)
