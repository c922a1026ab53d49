"""A process that has settled."""

from __future__ import annotations

import gc

from underpass.core.garbage import relax, settle


def test_collector_leaves_alone_what_is_there_and_looks_less_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)  # another test may have run what settles
        settle()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] > 700
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_one_that_imports_much_is_looked_through_less_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        relax()
        assert gc.get_threshold()[0] > 700
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
