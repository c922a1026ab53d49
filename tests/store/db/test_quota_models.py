"""The tables of quotas come to a database that was there before, and come whole."""

from __future__ import annotations

import pytest

from tests.store.db.test_mapping_models import first_version
from underpass.store.db.database import Database
from underpass.store.db.quota_models import QuotaRow
from underpass.store.db.schema_difference import schema_difference


@pytest.mark.parametrize("half_done", [False, True])
async def test_an_older_database_gets_them(database_url: str, half_done: bool) -> None:
    bare = await first_version(database_url)
    if half_done:
        async with bare.engine.begin() as connection:
            await connection.run_sync(lambda sync: QuotaRow.__table__.create(sync))  # type: ignore[attr-defined]
    await bare.close()
    database = await Database.open(database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
    await database.close()
