"""The tables of quotas (what a person may use) and of the traffic their tunnels have used."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from underpass.store.db.models import Base

__all__ = ["QuotaRow", "TrafficRow"]


class QuotaRow(Base):
    """The limits somebody has set for a person; the gateway's defaults hold for the others."""

    __tablename__ = "quotas"

    user_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """By name, null for no limit; a name that is missing was never set."""
    updated_at: Mapped[float] = mapped_column(Double)


class TrafficRow(Base):
    """What the tunnels of one person have carried in one calendar month (UTC)."""

    __tablename__ = "monthly_traffic"

    user_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    """``2026-01``."""
    used: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes, both directions."""
    told: Mapped[int] = mapped_column(Integer, default=0)
    """Percent of the quota of which the audit trail has heard: 0, 80 or 100."""
