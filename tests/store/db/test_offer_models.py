"""The table of offers comes to a database that was there before, and comes whole."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.store.db.test_mapping_models import first_version, machine
from underpass.store.db.database import Database
from underpass.store.db.offer_models import OfferRow
from underpass.store.db.schema_difference import schema_difference


@pytest.mark.parametrize("half_done", [False, True])
async def test_an_older_database_gets_it(database_url: str, half_done: bool) -> None:
    bare = await first_version(database_url)
    if half_done:
        async with bare.engine.begin() as connection:
            await connection.run_sync(lambda sync: OfferRow.__table__.create(sync))  # type: ignore[attr-defined]
    await bare.close()
    database = await Database.open(database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
    await database.close()


async def test_the_database_itself_keeps_codes_apart(database: Database) -> None:
    async with database.session() as db:
        db.add(machine())
    for number, code, agent_id in ((1, "h", "a-1"), (2, "h", "a-1"), (3, "i", "no such machine")):
        row = OfferRow(
            id=f"o-{number}", code_hash=code, user_id="u", username="u", agent_id=agent_id,
            target="unix:/" + "x" * 106, access_seconds=1.5, created_at=0.0, ends_at=1.0,
        )  # fmt: skip
        if number == 1:
            async with database.session() as db:
                db.add(row)
            continue
        with pytest.raises(IntegrityError):
            async with database.session() as db:
                db.add(row)
