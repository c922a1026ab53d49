"""Quotas: what people may use, and the traffic of their tunnels by month.

As in 0001 every step asks first whether it has been done: MySQL and MariaDB commit each statement
by itself, so a node killed half-way must be able to go on where it stopped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_quotas")),
        if_not_exists=True,
        **_MYSQL,
    )
    op.create_table(
        "monthly_traffic",
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "month", name=op.f("pk_monthly_traffic")),
        if_not_exists=True,
        **_MYSQL,
    )


def downgrade() -> None:
    op.drop_table("monthly_traffic", if_exists=True)
    op.drop_table("quotas", if_exists=True)
