"""What the terminal tests share: a gateway, an admin, and one machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.terminals.house import House, Machine, Person, house


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made
        for machine in made.machines:
            await machine.host.close()


@pytest.fixture
async def ada(home: House) -> Person:
    """The admin."""
    return await home.setup()


@pytest.fixture
async def box(home: House, ada: Person) -> Machine:
    return await home.machine()
