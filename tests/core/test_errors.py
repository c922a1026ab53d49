"""Every kind of error has its own code, HTTP status and close code."""

from __future__ import annotations

import pytest

from underpass.core import errors


@pytest.mark.parametrize(
    ("kind", "status", "close_code"),
    [
        (errors.InvalidRequest, 400, 4400),
        (errors.Unauthenticated, 401, 4401),
        (errors.Forbidden, 403, 4403),
        (errors.NotFound, 404, 4404),
        (errors.Conflict, 409, 4409),
        (errors.Gone, 410, 4404),
        (errors.TooLarge, 413, 4400),
        (errors.TooManyRequests, 429, 4429),
        (errors.Internal, 500, 4500),
        (errors.Unavailable, 503, 4502),
    ],
)
def test_statuses(kind: type[errors.UnderpassError], status: int, close_code: int) -> None:
    error = kind("What went wrong.")
    assert (error.status, error.close_code) == (status, close_code)
    assert str(error) == "What went wrong."


def test_a_hint_follows_the_message_and_a_code_may_be_narrower() -> None:
    error = errors.Conflict(
        "It is away.", code="agent_offline", hint="Start it.", retry_after=3, details={"id": "x"}
    )
    assert str(error) == "It is away. Start it."
    assert (error.code, error.retry_after, error.details) == ("agent_offline", 3, {"id": "x"})
    assert errors.Conflict.code == "conflict"
