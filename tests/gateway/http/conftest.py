"""Fixtures of the route tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.http.people_app import App, people_app


@pytest.fixture
async def app(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[App]:
    """Parametrized indirectly: what guests may."""
    async with people_app(tmp_path, guests=getattr(request, "param", "off")) as made:
        yield made
