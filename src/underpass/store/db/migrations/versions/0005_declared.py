"""Mappings declared in a machine's own file, whose they are, and which machines may.

As in 0001 every step asks first whether it has been done: MySQL and MariaDB commit each statement
by itself, so a node killed half-way must be able to go on where it stopped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BY_OWNER = "uq_mappings_user_id"
_BY_OWNER_AND_MACHINE = "uq_mappings_user_id_declared_by_name"
_INDEX = "ix_mappings_declared_by"

_COLUMNS = (
    ("join_tokens", "may_declare", sa.Boolean()),
    ("join_tokens", "created_by_id", sa.String(length=36)),
    ("assets", "may_declare", sa.Boolean()),
    ("assets", "let_in_by", sa.String(length=36)),
    ("mappings", "declared_by", sa.String(length=36)),
)


def _has_column(table: str, name: str) -> bool:
    return name in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def _has_unique(name: str) -> bool:
    found = sa.inspect(op.get_bind()).get_unique_constraints("mappings")
    return name in {constraint["name"] for constraint in found}


def _has_index() -> bool:
    found = sa.inspect(op.get_bind()).get_indexes("mappings")
    return _INDEX in {index["name"] for index in found}


def _column(name: str, kind: sa.Boolean | sa.String) -> sa.Column[object]:
    if name == "declared_by":  # not NULL, which is different from every NULL
        return sa.Column(name, kind, nullable=False, server_default="")
    if name == "may_declare":
        return sa.Column(name, kind, nullable=False, server_default=sa.false())
    return sa.Column(name, kind, nullable=True)


def _swap_unique(old: str, new: str, columns: list[str]) -> None:
    """Have the names of mappings unique among *columns* instead of as *old* says."""
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        # First the new one: MySQL may need an index that begins with the owner meanwhile.
        if not _has_unique(new):
            op.create_unique_constraint(new, "mappings", columns)
        if _has_unique(old):
            op.drop_constraint(old, "mappings", type_="unique")
        return
    if _has_unique(new):
        return
    # SQLite copies the table, and dropping the original must not take it away from leases.
    leases = sa.Table("port_leases", sa.MetaData(), autoload_with=bind, resolve_fks=False)
    kept = [dict(row._mapping) for row in bind.execute(sa.select(leases))]
    bind.execute(sa.delete(leases))
    with op.batch_alter_table("mappings", recreate="always") as batch:
        batch.drop_constraint(old, type_="unique")
        batch.create_unique_constraint(new, columns)
    if kept:
        bind.execute(sa.insert(leases), kept)


def upgrade() -> None:
    for table, name, kind in _COLUMNS:
        if not _has_column(table, name):
            op.add_column(table, _column(name, kind))
    _swap_unique(_BY_OWNER, _BY_OWNER_AND_MACHINE, ["user_id", "declared_by", "name"])
    if not _has_index():
        op.create_index(_INDEX, "mappings", ["declared_by"])


def downgrade() -> None:
    # What machines declare they declare again after the next upgrade; names may be there twice.
    if _has_column("mappings", "declared_by"):
        op.execute(
            "DELETE FROM port_leases WHERE mapping_id IN "
            "(SELECT id FROM mappings WHERE declared_by <> '')"
        )
        op.execute("DELETE FROM mappings WHERE declared_by <> ''")
    if _has_index():
        op.drop_index(_INDEX, "mappings")
    _swap_unique(_BY_OWNER_AND_MACHINE, _BY_OWNER, ["user_id", "name"])
    for table, name, _ in reversed(_COLUMNS):
        if _has_column(table, name):
            op.drop_column(table, name)
