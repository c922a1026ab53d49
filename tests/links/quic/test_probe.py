"""Trying UDP: version and round trip of a gateway that is there, an error of one that is not."""

from __future__ import annotations

import pytest

from tests.links.loops import quic_certificate, quic_transports
from tests.links.test_transports import until
from underpass.core.errors import Unavailable
from underpass.links.quic.probe import probe_quic
from underpass.links.trust import CertificateRejected


async def test_a_gateway_that_is_there_is_left_as_it_was() -> None:
    async with quic_transports() as (_, _, front):
        found = await probe_quic("127.0.0.1", front.port, verify=False, timeout=5)
        assert found.version == 1
        assert 0 < found.rtt <= found.took < 5
        await until(lambda: front.connections == 1)  # the other one's
        pin = quic_certificate().fingerprint
        await probe_quic("127.0.0.1", front.port, fingerprint=pin, verify=True, timeout=5)
        with pytest.raises(CertificateRejected):
            await probe_quic("127.0.0.1", front.port, verify=True, timeout=5)


async def test_nobody_there() -> None:
    with pytest.raises((Unavailable, TimeoutError)):
        await probe_quic("127.0.0.1", 9, verify=False, timeout=1)
