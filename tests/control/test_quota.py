"""Quotas as values: what may be asked for, what refusals say, when a month ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.quota import (
    Quota,
    bytes_text,
    checked_limits,
    month_of,
    over_count,
    renews_at,
    traffic_used_up,
)
from underpass.core.errors import InvalidRequest


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc]


def test_only_what_is_given_changes() -> None:
    quota = Quota(max_mappings=5).with_limits({"bandwidth": 10_000, "max_sessions": None})
    assert quota == Quota(max_mappings=5, bandwidth=10_000)
    assert quota.with_limits({"max_mappings": None}) == Quota(bandwidth=10_000)
    assert quota.with_limits({"of_a_newer_node": 1}) == quota
    assert set(quota.to_json()) == {
        "max_clients", "max_mappings", "max_active_mappings", "max_connections_per_mapping",
        "bandwidth", "monthly_traffic", "max_workspaces", "max_sessions",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_mappings", -1), ("max_mappings", 1.5), ("max_mappings", "5"), ("max_mappings", True),
        ("monthly_traffic", 2**60), ("bandwidth", 0), ("bandwidth", 1023), ("mappings", 5),
        ("max_mappings", []), ("x" * 100, 1),
    ],
)  # fmt: skip
def test_what_is_no_limit(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        checked_limits({"max_sessions": 1, name: value})
    assert raised.value.message.startswith(name[:40])
    assert len(str(raised.value)) < 300


def test_none_and_nought() -> None:
    limits = {"max_mappings": 0, "monthly_traffic": 0, "bandwidth": None, "max_clients": 7}
    assert checked_limits(limits) == limits


@pytest.mark.parametrize(
    ("now", "month", "renews"),
    [
        (at(2026, 1, 1), "2026-01", at(2026, 2, 1)),
        (at(2026, 1, 31, 23, 59, 59), "2026-01", at(2026, 2, 1)),
        (at(2028, 2, 29), "2028-02", at(2028, 3, 1)),
        (at(2026, 12, 31, 23, 59, 59), "2026-12", at(2027, 1, 1)),
    ],
)
def test_months(now: float, month: str, renews: float) -> None:
    assert (month_of(now), renews_at(now)) == (month, renews)


@given(st.floats(0, 4e9))
def test_a_month_ends_where_the_next_begins(now: float) -> None:
    renews = renews_at(now)
    assert now < renews <= now + 31 * 86400
    assert month_of(now) < month_of(renews)
    assert month_of(renews - 1) == month_of(now)


def test_refusals_say_what_why_and_what_next() -> None:
    error = over_count("max_mappings", "mappings", 5, 5)
    assert (error.status, error.code) == (429, "quota_exceeded")
    assert error.message == "The quota allows 5 mappings, and there are 5."
    assert "ask an admin" in str(error)
    assert error.details == {"quota": "max_mappings", "limit": 5, "used": 5}
    used = traffic_used_up(10_000_000_000, 10_000_065_000, at(2026, 11, 21))
    assert str(used) == (
        "This month's traffic is used up: 10 GB of the 10 GB that the quota allows. "
        "It renews on 2026-12-01 at 00:00 UTC; an admin can raise it before."
    )
    assert used.retry_after == 10 * 86400
    assert used.details["renews_at"] == "2026-12-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (950, "950 B"), (1500, "1.5 kB"), (5_000_000, "5 MB"), (3 * 10**15, "3000 TB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text
