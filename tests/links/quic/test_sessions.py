"""Sessions are resumed once, not for ever, and few are remembered."""

from __future__ import annotations

import datetime
from typing import Any

from qh3.tls import CipherSuite, SessionTicket

from underpass.links.quic import sessions as module
from underpass.links.quic.sessions import LIFETIME, GivenSessions, KeptSession, KeptSessions

KEY = ("gw.example", 443, None, True)


class Now:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ticket(label: bytes = b"label") -> SessionTicket:
    now = datetime.datetime.now(datetime.UTC)
    return SessionTicket(
        age_add=1, cipher_suite=CipherSuite.AES_128_GCM_SHA256, not_valid_after=now,
        not_valid_before=now, resumption_secret=b"s", server_name="h", ticket=label,
    )  # fmt: skip


def kept(label: bytes = b"label") -> KeptSession:
    return KeptSession(ticket(label), b"binding", ("192.0.2.1", 443), 2)


def test_what_was_given_is_taken_once() -> None:
    given = GivenSessions(Now())
    given.add(ticket())
    assert given.take(b"other") is None
    found = given.take(b"label")
    assert found is not None
    assert given.take(b"label") is None  # somebody repeats a first flight


def test_what_is_old_or_too_many_is_gone() -> None:
    now = Now()
    given = GivenSessions(now, most=2)
    for label in (b"a", b"b", b"c"):
        given.add(ticket(label))
    assert len(given) == 2
    assert given.take(b"a") is None
    assert given.take(b"b") is not None
    now.now += LIFETIME + 1
    assert given.take(b"c") is None


def test_what_is_kept_is_the_newest_and_used_once() -> None:
    now = Now()
    sessions = KeptSessions(now)
    first, second = kept(b"1"), kept(b"2")
    sessions.keep(KEY, first)
    sessions.keep(KEY, second)
    assert sessions.take(("gw.example", 443, "sha256:00", True)) is None  # believed otherwise
    assert sessions.take(KEY) is second
    assert sessions.take(KEY) is None
    sessions.keep(KEY, first)
    now.now += LIFETIME + 1
    assert sessions.take(KEY) is None


def test_few_gateways_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    sessions = KeptSessions(Now())
    for port in (1, 2, 3):
        sessions.keep(("h", port, None, True), kept())
    assert sessions.take(("h", 1, None, True)) is None
    assert sessions.take(("h", 3, None, True)) is not None
