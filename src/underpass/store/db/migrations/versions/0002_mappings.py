"""Mappings and the ports they hold.

As in 0001 every step asks first whether it has been done: MySQL and MariaDB commit each statement
by itself, so a node killed half-way must be able to go on where it stopped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _index(table: str, column: str) -> None:
    name = f"ix_{table}_{column}"
    existing = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {index["name"] for index in existing}:
        op.create_index(name, table, [column])


def upgrade() -> None:
    op.create_table(
        "mappings",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("protocol", sa.String(length=16), nullable=False),
        sa.Column("source_kind", sa.String(length=8), nullable=False),
        sa.Column("source_agent_id", sa.String(length=36), nullable=True),
        sa.Column("source_port", sa.Integer(), nullable=False),
        sa.Column("source_last_port", sa.Integer(), nullable=True),
        sa.Column("source_bind", sa.String(length=64), nullable=True),
        sa.Column("target_agent_id", sa.String(length=36), nullable=False),
        sa.Column("target_host", sa.String(length=253), nullable=True),
        sa.Column("target_port", sa.Integer(), nullable=True),
        sa.Column("target_path", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("sealed_password", sa.Text(), nullable=True),
        sa.Column("group_name", sa.String(length=64), nullable=True),
        sa.Column("balancing", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("total_connections", sa.BigInteger(), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.Column("bytes_received", sa.BigInteger(), nullable=False),
        sa.Column("last_active_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_agent_id"], ["assets.id"], name=op.f("fk_mappings_target_agent_id_assets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mappings")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_mappings_user_id")),
        if_not_exists=True,
        **_MYSQL,
    )
    for column in ("created_at", "source_agent_id", "status", "target_agent_id"):
        _index("mappings", column)

    op.create_table(
        "port_leases",
        sa.Column("place", sa.String(length=36), nullable=False),
        sa.Column("transport", sa.String(length=8), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("mapping_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("group_name", sa.String(length=64), nullable=True),
        sa.Column("leased_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mapping_id"], ["mappings.id"], name=op.f("fk_port_leases_mapping_id_mappings")
        ),
        sa.PrimaryKeyConstraint("place", "transport", "port", name=op.f("pk_port_leases")),
        if_not_exists=True,
        **_MYSQL,
    )
    _index("port_leases", "mapping_id")


def downgrade() -> None:
    op.drop_table("port_leases")
    op.drop_table("mappings")
