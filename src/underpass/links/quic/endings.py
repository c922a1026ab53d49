"""What the end of a QUIC connection means to a link."""

from __future__ import annotations

from typing import Final

from underpass.core.errors import Unavailable
from underpass.links.trust import CertificateRejected

__all__ = ["FAILED", "ending"]

FAILED: Final = 1
"""The application's error code of a connection that one end gave up; the reason is a word."""
_TLS_ALERT: Final = 0x100
_CERTIFICATE_ALERTS: Final = frozenset(range(_TLS_ALERT + 42, _TLS_ALERT + 49))


def ending(code: int, reason: str, *, connected: bool) -> Unavailable | None:
    """What to tell of a connection that ended with *code* (RFC 9000, 20); None: all is well.

    Args:
        connected: the QUIC handshake was done.
    """
    if connected:
        return Unavailable(f"{reason or code}", code="connection_lost") if code else None
    if code in _CERTIFICATE_ALERTS:
        return CertificateRejected(
            f"The gateway's certificate is not believed: {reason}.",
            hint="Give --fingerprint for a self-made one, SSL_CERT_FILE for your own authority.",
        )
    if code >= _TLS_ALERT:
        return Unavailable(f"QUIC was refused: {reason}.", code="not_a_link")
    return Unavailable("The gateway does not answer.", code="connection_lost")
