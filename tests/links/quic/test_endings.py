"""What the end of a connection means: a certificate, no gateway, nobody, or just the end."""

from __future__ import annotations

import pytest

from underpass.links.quic.endings import ending
from underpass.links.trust import CertificateRejected


@pytest.mark.parametrize(
    ("code", "connected", "told"),
    [
        (0, True, None),
        (1, True, "connection_lost"),
        (0, False, "connection_lost"),
        (0x100 + 120, False, "not_a_link"),  # no ALPN in common
    ],
)
def test_endings(code: int, connected: bool, told: str | None) -> None:
    error = ending(code, "why", connected=connected)
    assert (None if error is None else error.code) == told


@pytest.mark.parametrize("alert", [42, 45, 48])
def test_certificates_that_are_not_believed(alert: int) -> None:
    error = ending(0x100 + alert, "expired", connected=False)
    assert isinstance(error, CertificateRejected)
    assert error.hint is not None
