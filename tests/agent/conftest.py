"""What tests of the agent share."""

from __future__ import annotations

import pytest

from tests.agent.started import mark


@pytest.fixture(autouse=True)
def _count_children_from_here() -> None:
    mark()
