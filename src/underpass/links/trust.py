"""Which gateway certificates are believed: the system's authorities, or exactly one fingerprint.

Verification is never off. With a fingerprint the one certificate it names is believed, whatever
its names and dates say (that is what makes a self-made one usable), and no other; it is checked
inside the TLS handshake, before a byte of ours is sent. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are
honoured (spec 7, "Fingerprint").
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import ssl

from underpass.core.errors import InvalidRequest, Unavailable

__all__ = [
    "ALPN",
    "CertificateRejected",
    "check_fingerprint",
    "client_context",
    "fingerprint_of",
    "parse_fingerprint",
]

ALPN = "underpass/1"
"""The protocol a link asks for in TLS (RFC 7301)."""

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class CertificateRejected(Unavailable):
    """The gateway's certificate is not the pinned one."""

    code = "certificate_rejected"


def fingerprint_of(der: bytes) -> str:
    """``sha256:`` + lower-case hex of a certificate's DER (spec 7)."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def parse_fingerprint(text: str) -> str:
    """The canonical form of a fingerprint somebody typed (case and colons don't matter).

    Raises:
        InvalidRequest: it is no SHA-256 fingerprint.
    """
    plain = text.strip().lower()
    head, colon, tail = plain.partition(":")
    if colon and head == "sha256":
        plain = "sha256:" + tail.replace(":", "")
    else:
        plain = plain.replace(":", "")
    match = _FINGERPRINT.fullmatch(plain)
    if match is None:
        raise InvalidRequest(
            "The fingerprint must be sha256: and 64 hexadecimal digits.", code="bad_fingerprint"
        )
    return "sha256:" + match[1]


def check_fingerprint(der: bytes | None, fingerprint: str) -> None:
    """Compare a certificate with the pinned fingerprint.

    Raises:
        CertificateRejected: there is none, or another one.
    """
    if der is None or not hmac.compare_digest(fingerprint_of(der), fingerprint):
        raise CertificateRejected(
            "The gateway's certificate is not the one with the pinned fingerprint.",
            hint="If it was renewed, take the new fingerprint from the gateway's join command.",
        )


class _PinnedObject(ssl.SSLObject):
    """What asyncio speaks TLS through, checking the pin as part of the handshake."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self, self.getpeercert(binary_form=True))


class _PinnedSocket(ssl.SSLSocket):
    """The same for blocking sockets."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self, self.getpeercert(binary_form=True))


class _PinnedContext(ssl.SSLContext):
    fingerprint: str = ""
    sslobject_class = _PinnedObject
    sslsocket_class = _PinnedSocket


def _check(connection: ssl.SSLObject | ssl.SSLSocket, der: bytes | None) -> None:
    context = connection.context
    assert isinstance(context, _PinnedContext)
    try:
        check_fingerprint(der, context.fingerprint)
    except CertificateRejected as error:
        # An SSL error, so that every library closes the connection and says why.
        raise ssl.SSLCertVerificationError(str(error)) from error


def client_context(fingerprint: str | None = None, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A TLS client context that believes who it should.

    Args:
        fingerprint: believe only this certificate.
        alpn: protocols to ask for.

    Raises:
        InvalidRequest: the fingerprint, ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` is unusable.
    """
    if fingerprint is not None:
        pinned = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        pinned.fingerprint = parse_fingerprint(fingerprint)
        pinned.check_hostname = False
        # The chain proves nothing about a self-made certificate; the pin proves everything.
        pinned.verify_mode = ssl.CERT_NONE
        return _tuned(pinned, alpn)
    context = _tuned(ssl.create_default_context(), alpn)
    extra_file, extra_dir = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if extra_file or extra_dir:
        # OpenSSL reads these itself, but only where Python's build left them at their names.
        try:
            context.load_verify_locations(extra_file or None, extra_dir or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(
                f"SSL_CERT_FILE or SSL_CERT_DIR can't be read: {error}.", code="bad_certificates"
            ) from None
    return context


def _tuned(context: ssl.SSLContext, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
