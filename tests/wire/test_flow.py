"""Credit windows: they grow on a long path, stay small on a short one, and share a budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.flow import (
    EARLY_WINDOW,
    INITIAL_WINDOW,
    MAX_WINDOW,
    ReceiveWindow,
    WindowBudget,
)

MIB = 1 << 20


def carry(
    window: ReceiveWindow, rtt: float, bandwidth: float, seconds: float, *, calm: bool = False
) -> int:
    """Let a sender that never lacks data use *window* over a path; bytes it carried.

    Each round trip carries a window, or what the bandwidth allows.
    """
    now = 0.0
    carried = 0
    while now < seconds:
        size = window.size
        took = max(rtt, size / bandwidth)
        steps = 4
        for _ in range(steps):
            now += took / steps
            window.left -= size // steps
            window.owed += size // steps
            carried += size // steps
            if window.owed >= window.step:
                window.grant(now, rtt, calm=calm)
    return carried


def accepted(cap: int = 48 * MIB) -> ReceiveWindow:
    window = ReceiveWindow(WindowBudget(cap))
    window.widen()
    return window


def test_a_window_starts_small() -> None:
    window = ReceiveWindow(WindowBudget())
    assert window.size == window.left == EARLY_WINDOW
    assert window.widen() == INITIAL_WINDOW - EARLY_WINDOW
    assert window.size == window.left == INITIAL_WINDOW


@pytest.mark.parametrize("rtt", [0.05, 0.1, 0.3])
def test_a_long_path_that_keeps_up_gets_more_than_six_mebibytes(rtt: float) -> None:
    window = accepted()
    carry(window, rtt, bandwidth=10e9, seconds=20 * rtt)
    assert 6 * MIB <= window.size <= MAX_WINDOW


def test_a_window_grows_before_the_round_trip_is_known() -> None:
    window = accepted()
    for now in range(1, 200):
        window.owed += window.step
        window.left -= window.step
        window.grant(now / 1000, None)
    assert window.size > INITIAL_WINDOW


def test_a_narrow_path_stays_at_twice_what_it_holds() -> None:
    # 100 ms at 20 Mbit/s hold 250 KB; a window of 8 MiB would only be a queue of 3 seconds.
    window = accepted()
    carry(window, 0.1, bandwidth=2.5e6, seconds=10)
    assert window.size <= 2 * MIB


@pytest.mark.parametrize(("calm", "most"), [(True, EARLY_WINDOW), (False, 8 * MIB)])
def test_a_short_path_stays_smaller_while_somebody_types(calm: bool, most: int) -> None:
    window = accepted()
    carry(window, 0.0001, bandwidth=1e9, seconds=0.3, calm=calm)
    assert EARLY_WINDOW <= window.size <= most
    assert calm or window.size > MIB


def test_a_window_shrinks_when_its_bytes_wait_in_a_queue() -> None:
    window = accepted()
    carry(window, 0.0001, bandwidth=2e9, seconds=0.3)
    wide = window.size
    assert wide > 4 * MIB
    carry(window, 0.0001, bandwidth=2e9, seconds=0.3, calm=True)
    assert window.size <= wide // 4


def test_a_long_path_never_shrinks_below_the_start() -> None:
    window = accepted()
    carry(window, 0.1, bandwidth=0.1e6, seconds=60)
    assert window.size >= INITIAL_WINDOW


def test_the_budget_of_a_link_is_kept() -> None:
    budget = WindowBudget(MIB)
    windows = [ReceiveWindow(budget) for _ in range(100)]
    for window in windows:
        window.widen()
    assert budget.used <= MIB
    assert all(window.size >= EARLY_WINDOW for window in windows)
    assert sum(window.size for window in windows) <= MIB + 100 * EARLY_WINDOW
    for window in windows:
        window.release()
        window.release()
    assert budget.used == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(1e-6, 0.5), st.sampled_from([None, 1e-4, 0.2])),
        max_size=60,
    ),
    st.integers(0, 4 * MIB),
)
def test_credit_is_never_lost_or_invented(
    moves: list[tuple[int, float, float | None]], cap: int
) -> None:
    """What the peer may still send plus what waits here is the window, through every change."""
    budget = WindowBudget(cap)
    window = ReceiveWindow(budget)
    window.widen()
    now = 0.0
    for quarters, pause, rtt in moves:
        now += pause
        taken = min(window.left, quarters * window.size // 4)
        window.left -= taken
        window.owed += taken
        if window.owed >= window.step:
            before = window.left
            credit = window.grant(now, rtt)
            assert credit >= 0
            assert window.left == before + credit
        assert 0 <= window.left <= window.size <= MAX_WINDOW
        assert window.left + window.owed == window.size
        assert 0 <= budget.used <= cap
        assert window.size == EARLY_WINDOW + budget.used


def test_a_long_path_is_filled_within_five_round_trips() -> None:
    window = accepted()
    carry(window, 0.1, bandwidth=10e9, seconds=0.5)
    assert window.size >= 6 * MIB


def test_a_thousand_idle_streams_leave_room_for_one_that_grows() -> None:
    budget = WindowBudget()
    idle = [ReceiveWindow(budget) for _ in range(1000)]
    for window in idle:
        window.widen()
    assert idle[0].size == INITIAL_WINDOW
    assert idle[-1].size == EARLY_WINDOW
    window = ReceiveWindow(budget)
    window.widen()
    carry(window, 0.1, bandwidth=10e9, seconds=2.0)
    assert window.size >= 4 * MIB
    for one in (*idle, window):
        one.release()
    assert budget.used == 0
