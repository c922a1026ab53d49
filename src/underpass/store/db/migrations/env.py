"""Where Alembic meets our metadata; runs on the connection handed in by ``store.db.migrate``."""

from __future__ import annotations

from typing import Any

from alembic import context

from underpass.store.db.models import Base
from underpass.store.db.schema_difference import compare_type


def _run() -> None:
    connection: Any = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=compare_type,
        # SQLite cannot alter tables in place; Alembic copies them.
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
