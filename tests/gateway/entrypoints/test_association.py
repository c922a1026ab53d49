"""Datagrams of a SOCKS5 association: whose they are, and which are well formed."""

from __future__ import annotations

from typing import Any

from underpass.control.mapping import Limits
from underpass.core.clock import ManualClock
from underpass.gateway.entrypoints.association import Association
from underpass.gateway.entrypoints.passage import Passage
from underpass.gateway.entrypoints.shape import Shape

GOOD = b"\0\0\0\1\x7f\0\0\1\0\x35hello"


class Sock:
    address = ("127.0.0.1", 1080)

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def send(self, data: bytes, address: Any = None) -> bool:
        self.sent.append((data, address))
        return True


def association(dropped: list[str]) -> Association:
    clock = ManualClock()
    source = ("192.0.2.7", 5)
    return Association(
        Passage(source, 0.0), source, 4000, shape=Shape(Limits(), clock),
        dropped=dropped.append,
    )  # fmt: skip


async def test_only_its_clients_host_and_only_once() -> None:
    made = association([])
    assert made.waits_for("192.0.2.7")
    assert not made.waits_for("192.0.2.8")
    made.bind(("192.0.2.7", 4000), Sock())
    assert not made.waits_for("192.0.2.7")


async def test_what_is_malformed_or_a_fragment_is_dropped() -> None:
    dropped: list[str] = []
    made = association(dropped)
    made.take(GOOD)
    assert dropped == []
    for wrong in (b"", GOOD[:6], b"\0\0\1" + GOOD[3:], b"\0\0\0\7" + GOOD[4:]):
        made.take(wrong)
    assert dropped == ["unknown"] * 4


async def test_answers_go_back_with_the_head() -> None:
    made, sock = association([]), Sock()
    made.bind(("192.0.2.7", 4000), sock)
    made.answer(GOOD[3:])
    assert sock.sent == [(GOOD, ("192.0.2.7", 4000))]
