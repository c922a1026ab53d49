"""Offers: one-time codes, and the access they were exchanged for.

As in 0001 every step asks first whether it has been done: MySQL and MariaDB commit each statement
by itself, so a node killed half-way must be able to go on where it stopped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

_MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "offers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=False),
        sa.Column("target", sa.String(length=320), nullable=False),
        sa.Column("access_seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=False),
        sa.Column("accepted_at", sa.Double(), nullable=True),
        sa.Column("accepted_by", sa.String(length=36), nullable=True),
        sa.Column("accepted_username", sa.String(length=64), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("ended_how", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["assets.id"], name=op.f("fk_offers_agent_id_assets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_offers_code_hash")),
        if_not_exists=True,
        **_MYSQL,
    )
    existing = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("offers")}
    for column in ("accepted_by", "agent_id", "ended_at", "user_id"):
        name = f"ix_offers_{column}"
        if name not in existing:
            op.create_index(name, "offers", [column])


def downgrade() -> None:
    op.drop_table("offers")
