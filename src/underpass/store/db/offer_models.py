"""The table of offers: one target lent to whoever has a code, once."""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from underpass.store.db.models import Base

__all__ = ["OfferRow"]


class OfferRow(Base):
    """A one-time code, and what it became when somebody accepted it (spec 4).

    Neither person has a foreign key: a user can be removed, and the record stays until it is old.
    """

    __tablename__ = "offers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the code in its canonical form; the code itself is kept nowhere."""
    user_id: Mapped[str] = mapped_column(String(36), index=True)
    username: Mapped[str] = mapped_column(String(64))
    """Whose offer it is, as they were called then."""
    agent_id: Mapped[str] = mapped_column(ForeignKey("assets.id"), index=True)
    target: Mapped[str] = mapped_column(String(320))
    """``tcp:HOST:PORT`` or ``unix:PATH``, as streams are opened to it."""
    access_seconds: Mapped[float] = mapped_column(Double)
    """How long it may be used once accepted, at most."""
    created_at: Mapped[float] = mapped_column(Double)
    ends_at: Mapped[float] = mapped_column(Double)
    """Of the code until it is accepted, of the access from then on."""
    accepted_at: Mapped[float | None] = mapped_column(Double)
    accepted_by: Mapped[str | None] = mapped_column(String(36), index=True)
    accepted_username: Mapped[str | None] = mapped_column(String(64))
    ended_at: Mapped[float | None] = mapped_column(Double, index=True)
    ended_how: Mapped[str | None] = mapped_column(String(16))
    """``revoked`` or ``expired``."""
