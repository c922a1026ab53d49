"""Ports taken all or none, on both families, and errors that say whose port it is."""

from __future__ import annotations

import errno
import socket

import pytest

from underpass.core.errors import Conflict, Unavailable
from underpass.links.ports import addresses_of, bind


def test_where_to_listen() -> None:
    assert addresses_of(None, "0.0.0.0") == ("0.0.0.0", "::")
    assert addresses_of(None, "127.0.0.1") == ("127.0.0.1", "::1")
    assert addresses_of("10.0.0.1", "0.0.0.0") == ("10.0.0.1",)
    assert addresses_of("::", "127.0.0.1") == ("0.0.0.0", "::")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_all_or_none(transport: str) -> None:
    free, taken = bind(transport, [0, 0], ["127.0.0.1"])  # type: ignore[arg-type]
    first, second = (int(sock.getsockname()[1]) for sock in (free, taken))
    free.close()
    with pytest.raises(Conflict) as error:
        bind(transport, [first, second], ["127.0.0.1"], who="machine")  # type: ignore[arg-type]
    assert error.value.code == "port_in_use"
    assert f"port {second} is in use on the machine" in error.value.message
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as again:
        again.bind(("127.0.0.1", first))  # given back
    taken.close()


def test_one_port_on_every_address() -> None:
    socks = bind("tcp", [0], ["127.0.0.1", "127.0.0.2"])
    assert len({sock.getsockname()[1] for sock in socks}) == 1
    for sock in socks:
        sock.close()


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(Unavailable) as error:
        bind("tcp", [0], ["192.0.2.1"], who="machine")
    assert error.value.code == "bind_failed"
    assert error.value.message.startswith("The machine can't listen")


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def only_ipv4(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", only_ipv4)
    (sock,) = bind("tcp", [0], ["127.0.0.1", "::1"])
    sock.close()
    with pytest.raises(Unavailable):  # asked for by name
        bind("tcp", [0], ["::1"])
