"""Up and down: thresholds both ways, the schedule, and news that do not flood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.health import (
    NEWS_EVERY,
    UNKNOWN,
    Health,
    HealthStatus,
    TargetHealth,
    health_record,
)
from underpass.core.clock import ManualClock


def low(first: float, _last: float) -> float:
    return first


def high(_first: float, last: float) -> float:
    return last


def target(clock: ManualClock | None = None, **rules: object) -> TargetHealth:
    made = Health(**{"interval": 10.0, "fall": 3, "rise": 2, **rules})  # type: ignore[arg-type]
    return TargetHealth(made, clock or ManualClock(), low)


class TestThresholds:
    def test_unknown_until_something_is_known(self) -> None:
        one = target()
        assert one.status == UNKNOWN
        one.failed("no")
        one.failed("no")
        assert one.status == UNKNOWN

    def test_the_first_success_suffices(self) -> None:
        clock = ManualClock(500.0)
        one = target(clock, rise=5)
        one.failed("no")
        one.passed()
        assert one.status == HealthStatus("up", None, 500.0)

    def test_failures_in_a_row_take_it_down(self) -> None:
        clock = ManualClock(500.0)
        one = target(clock)
        one.passed()
        for _ in range(3):  # never three in a row
            one.failed("no")
            one.failed("no")
            one.passed()
        assert one.status.state == "up"
        for reason in ("a", "b"):
            one.failed(reason)
        clock.advance(7)
        one.failed("c")
        assert one.status == HealthStatus("down", "c", 507.0)
        clock.advance(7)
        one.failed("d")
        assert one.status == HealthStatus("down", "d", 507.0)

    def test_successes_in_a_row_bring_it_back(self) -> None:
        clock = ManualClock(500.0)
        one = target(clock, fall=1)
        one.failed("no")
        for _ in range(3):
            one.passed()
            one.failed("no")
        assert one.status.state == "down"
        one.passed()
        assert one.status.state == "down"
        clock.advance(3)
        one.passed()
        assert one.status == HealthStatus("up", None, 503.0)

    @given(
        fall=st.integers(1, 5),
        rise=st.integers(1, 5),
        tries=st.lists(st.booleans(), max_size=60),
    )
    def test_it_is_what_the_last_tries_say(self, fall: int, rise: int, tries: list[bool]) -> None:
        one = target(fall=fall, rise=rise)
        expected = "unknown"
        for count in range(1, len(tries) + 1):
            done = tries[:count]
            if done[-1]:
                one.passed()
            else:
                one.failed("no")
            if len(done) >= fall and not any(done[-fall:]):
                expected = "down"
            elif done[-1] and (expected == "unknown" or (len(done) >= rise and all(done[-rise:]))):
                expected = "up"
            assert one.status.state == expected


class TestSchedule:
    def test_the_first_try_comes_soon(self) -> None:
        clock = ManualClock()
        assert target(clock).due
        late = TargetHealth(Health(interval=10.0), clock, high)
        assert not late.due
        clock.advance(5.0)
        assert late.due

    @pytest.mark.parametrize(("jitter", "wait"), [(low, 9.0), (high, 11.0)])
    def test_the_next_one_about_an_interval_later(self, jitter: object, wait: float) -> None:
        clock = ManualClock()
        one = TargetHealth(Health(interval=10.0), clock, jitter)  # type: ignore[arg-type]
        one.begin()
        assert not one.due
        clock.advance(wait - 0.01)
        assert not one.due
        clock.advance(0.02)
        assert one.due


class TestNews:
    def test_each_change_once(self) -> None:
        one = target(fall=1)
        assert one.news() is None
        one.passed()
        assert one.news() == ("unknown", one.status)
        one.failed("no")
        assert one.news() == ("up", one.status)
        assert one.news() is None

    def test_what_comes_and_goes_is_told_now_and_then(self) -> None:
        clock = ManualClock()
        one = target(clock, fall=1, rise=1)
        one.failed("no")
        assert one.news() is not None
        one.passed()
        assert one.news() is not None  # "unknown" before it was no news to wait after
        one.failed("no")
        assert one.news() is None
        one.passed()
        clock.advance(NEWS_EVERY)
        assert one.news() is None  # back to what was told
        one.failed("still no")
        assert one.news() == ("up", HealthStatus("down", "still no", clock.now()))


def test_records() -> None:
    assert health_record(None) is None
    assert health_record(UNKNOWN) == {"health": "unknown", "reason": None, "since": None}
    assert health_record(HealthStatus("down", "no", 0.0)) == {
        "health": "down", "reason": "no", "since": "1970-01-01T00:00:00.000Z",
    }  # fmt: skip
