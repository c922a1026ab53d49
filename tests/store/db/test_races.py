"""Which failures only say that somebody else was faster."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from underpass.store.db.races import lost_race


class Postgres(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("deadlock detected")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("original", "lost"),
    [
        (Exception(1213, "Deadlock found when trying to get lock"), True),
        (Exception(1205, "Lock wait timeout exceeded"), True),
        (Exception(2013, "Lost connection to server"), False),
        (Exception(), False),
        (Postgres("40P01"), True),
        (Postgres("40001"), True),
        (Postgres("57P01"), False),
    ],
)
def test_deadlocks_are_lost_races(original: Exception, lost: bool) -> None:
    assert lost_race(OperationalError("UPDATE", {}, original)) == lost


def test_a_row_that_is_there_already_is_one() -> None:
    assert lost_race(IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed")))
