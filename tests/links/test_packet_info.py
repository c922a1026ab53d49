"""Which address of ours a datagram came to, and answers that leave from it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from underpass.links.packet_info import ROOM, Ancillary, arrived_at, ask, joined, parted


@contextmanager
def bound(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind((host, 0))
        yield sock


@pytest.mark.parametrize(
    ("everywhere", "spoken_to", "client"),
    [("0.0.0.0", "127.0.0.2", "127.0.0.1"), ("0.0.0.0", "127.0.0.1", "127.0.0.3"),
     ("::", "::1", "::1")],
)  # fmt: skip
def test_there_and_back(everywhere: str, spoken_to: str, client: str) -> None:
    with bound(everywhere) as here, bound(client) as there:
        assert ask(here)
        there.sendto(b"question", (spoken_to, here.getsockname()[1]))
        data, ancillary, _, source = here.recvmsg(100, ROOM)
        assert data == b"question"
        address = joined(source, ancillary)
        assert address[: len(source)] == source == there.getsockname()
        assert arrived_at(address) == spoken_to
        where, ancillary = parted(address)
        assert where == source
        here.sendmsg([b"answer"], ancillary, 0, where)
        data, answered_from = there.recvfrom(100)
        assert (data, answered_from[0]) == (b"answer", spoken_to)


def test_there_is_nothing_to_ask_one_address_or_none() -> None:
    for host in ("127.0.0.1", "::1"):
        with bound(host) as here:
            assert not ask(here)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nowhere:
        assert not ask(nowhere)


@pytest.mark.parametrize("address", [("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0)])
def test_addresses_nothing_was_told_of_stay_what_they_are(address: tuple[str, int]) -> None:
    assert joined(address, []) == address
    assert joined(address, [(1, 2, b"something else")]) == address
    assert joined(address, [(socket.IPPROTO_IP, 8, b"short")]) == address
    assert parted(address) == (address, [])
    assert arrived_at(address) is None


def test_multicast_is_no_source() -> None:
    message: Ancillary = (
        socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, "ff02::1")
        + bytes(4),
    )  # fmt: skip
    assert joined(("fe80::1", 5, 0, 2), [message]) == ("fe80::1", 5, 0, 2)
