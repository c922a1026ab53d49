"""What differs between the models and a real database; nothing, after the migrations."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Boolean, Connection, Double
from sqlalchemy.types import TypeEngine

from underpass.store.db.models import Base

__all__ = ["compare_type", "schema_difference"]


def compare_type(
    context: Any,
    _inspected_column: Any,
    _metadata_column: Any,
    inspected: TypeEngine[Any],
    declared: TypeEngine[Any],
) -> bool | None:
    """Alembic's type comparison, told of the names databases give the same thing.

    MariaDB keeps JSON as LONGTEXT with a check and booleans as TINYINT(1); SQLite and PostgreSQL
    report ``DOUBLE`` under other names. ``None`` leaves the answer to Alembic.
    """
    name = type(inspected).__name__.upper()
    if isinstance(declared, JSON):
        return name not in {"JSON", "LONGTEXT"}
    if isinstance(declared, Boolean):
        return name not in {"BOOLEAN", "TINYINT"}
    if isinstance(declared, Double):
        return name not in {"DOUBLE", "DOUBLE_PRECISION"}
    return None


def schema_difference(connection: Connection) -> list[Any]:
    """Alembic operations that would turn the database into what the models say."""
    context = MigrationContext.configure(connection, opts={"compare_type": compare_type})
    return compare_metadata(context, Base.metadata)
