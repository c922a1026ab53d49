"""Logins of SOCKS5 mappings and how often they may be guessed."""

from __future__ import annotations

from underpass.control.mapping import Options
from underpass.core.clock import ManualClock
from underpass.gateway.entrypoints.logins import GUESSES, PERIOD, Logins

OPTIONS = Options(username="ada", password="pässword")


def test_right_and_wrong() -> None:
    logins = Logins(ManualClock())
    assert logins.check(OPTIONS, "192.0.2.1", "ada", "pässword")
    for username, password in (("ada", "x"), ("x", "pässword"), ("", ""), ("ada", "")):
        assert not logins.check(OPTIONS, "192.0.2.1", username, password)
    assert not logins.check(Options(), "192.0.2.1", "", "")
    assert not logins.check(Options(username="ada"), "192.0.2.1", "ada", "")


def test_guesses_run_out_per_address() -> None:
    clock = ManualClock()
    logins = Logins(clock)
    for _ in range(GUESSES):
        assert not logins.check(OPTIONS, "2001:db8::1", "ada", "guess")
    assert not logins.check(OPTIONS, "2001:db8::2", "ada", "pässword")  # the same customer
    assert logins.check(OPTIONS, "192.0.2.1", "ada", "pässword")
    clock.advance(PERIOD)
    assert logins.check(OPTIONS, "2001:db8::1", "ada", "pässword")


def test_memory_is_bounded() -> None:
    logins = Logins(ManualClock())
    for number in range(10_000):
        logins.check(OPTIONS, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "a", "b")
    assert len(logins._wrong) <= 4096
