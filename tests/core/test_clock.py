"""Clocks and the one way times are written."""

from __future__ import annotations

from datetime import datetime

from underpass.core.clock import ManualClock, SystemClock, rfc3339, utc


def test_the_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(100.0)
    wall, mono = clock.now(), clock.monotonic()
    clock.advance(2.5)
    assert (clock.now() - wall, clock.monotonic() - mono) == (2.5, 2.5)


def test_a_jump_moves_the_wall_clock_alone() -> None:
    clock = ManualClock()
    wall, mono = clock.now(), clock.monotonic()
    clock.jump(-3600)
    assert clock.now() == wall - 3600
    assert clock.monotonic() == mono


def test_the_system_clock_goes_forward() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.now() > 1_700_000_000


def test_times_are_rfc_3339_in_utc_with_milliseconds() -> None:
    assert rfc3339(1_700_000_000.1234) == "2023-11-14T22:13:20.123Z"
    assert rfc3339(utc(0)) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(datetime(2026, 1, 2)) == "2026-01-02T00:00:00.000Z"  # noqa: DTZ001
