"""How both ends of a QUIC connection know each other: certificates, and what binds a handshake.

Verification is as over TCP: with a fingerprint, exactly that certificate; for ``https://`` the
system's authorities (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) and the host's name. A gateway without
TLS of its own has a self-made certificate for QUIC which no authority vouches for. There the link
handshake does: its transcript covers the certificate's hash (:func:`binding_of`), the gateway signs
it with the key that was pinned at enrolment, and so a certificate of somebody in between fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from pathlib import Path
from typing import Final

from qh3.quic.configuration import QuicConfiguration

from underpass.core.errors import InvalidRequest, Unavailable
from underpass.links.quic.packets import CID_LENGTH
from underpass.links.quic.paths import MAX_WORD
from underpass.links.trust import ALPN, client_context, parse_fingerprint

__all__ = ["binding_of", "client_configuration", "server_configuration"]

IDLE_TIMEOUT: Final = 45.0
"""Seconds of silence after which QUIC gives up; the mux, which pings, does so after 30."""
STREAM_WINDOW: Final = 2 << 20
"""Bytes of one QUIC stream under way. QUIC grants anew whatever was delivered to us, read or not:
what a slow reader may be sent is bounded by the mux's credit, this only by loss and order."""
CONNECTION_WINDOW: Final = 8 << 20
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_INITIAL_RTT: Final = 0.2
"""Seconds; a lost first datagram is sent again after twice as long."""


def binding_of(der: bytes) -> bytes:
    """What a handshake over a connection with this certificate covers."""
    return b"underpass quic certificate\0" + hashlib.sha256(der).digest()


def _common(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        connection_id_length=CID_LENGTH,
        idle_timeout=IDLE_TIMEOUT,
        max_stream_data=STREAM_WINDOW,
        max_data=CONNECTION_WINDOW,
        initial_rtt=_INITIAL_RTT,
        active_connection_id_limit=8 if is_client else None,
        max_datagram_frame_size=MAX_WORD,
    )


def client_configuration(host: str, *, fingerprint: str | None, verify: bool) -> QuicConfiguration:
    """What a dialling end believes.

    Args:
        host: the name or address the certificate must be for.
        fingerprint: believe only this certificate instead.
        verify: ask the authorities. False is only for a caller who then proves the certificate by
            the link handshake, with a pinned key.

    Raises:
        InvalidRequest: the fingerprint, ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` is unusable.
    """
    configuration = _common(is_client=True)
    # Also for an address: without a name the library would take the certificate's own for it.
    configuration.server_name = host
    if fingerprint is not None:
        configuration.verify_mode = ssl.CERT_NONE
        configuration.assert_fingerprint = parse_fingerprint(fingerprint).removeprefix("sha256:")
    elif verify:
        configuration.cadata = _authorities()
    else:
        configuration.verify_mode = ssl.CERT_NONE
    return configuration


def _authorities() -> bytes:
    """The certificates of the authorities TLS over TCP believes, as PEM.

    Raises:
        InvalidRequest: see :func:`client_configuration`.
    """
    found = [ssl.DER_cert_to_PEM_cert(der).encode() for der in client_context().get_ca_certs(True)]
    # A directory's are in no list: OpenSSL looks them up there by the hash in their names.
    directory = os.environ.get("SSL_CERT_DIR") or ssl.get_default_verify_paths().capath
    try:
        for path in sorted(Path(directory).iterdir()) if directory else ():
            if _HASHED.fullmatch(path.name) and path.is_file():
                found.append(path.read_bytes() + b"\n")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidRequest(
            f"The certificates in {directory} can't be read: {error.strerror or error}.",
            code="bad_certificates",
        ) from None
    return b"".join(dict.fromkeys(found))


def server_configuration(chain: Path, key: Path) -> tuple[QuicConfiguration, bytes]:
    """A gateway's configuration, and the binding of its certificate.

    Raises:
        Unavailable: code ``quic_certificate``: these files can't be used for QUIC.
    """
    configuration = _common(is_client=False)
    try:
        configuration.load_cert_chain(  # pyright: ignore[reportUnknownMemberType]
            chain.read_bytes(), key.read_bytes()
        )
        leaf = configuration.certificate
        assert leaf is not None
        return configuration, binding_of(leaf.public_bytes())
    except Exception as error:  # noqa: BLE001 - the library's own kinds, undocumented
        raise Unavailable(
            f"The certificate {chain} can't be used for QUIC: {error}.", code="quic_certificate"
        ) from None
