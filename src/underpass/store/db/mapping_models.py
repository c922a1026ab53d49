"""The tables of mappings (what comes in here goes out there) and of the ports they hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from underpass.store.db.models import Base

__all__ = ["MappingRow", "PortLease"]


class MappingRow(Base):
    """A stored rule: traffic that arrives at the source goes to the target on an agent (spec 4).

    The owner has no foreign key: a user can be removed, and their mappings then follow.
    """

    __tablename__ = "mappings"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    """Unique among what its owner made, and among what each machine of theirs declares."""
    user_id: Mapped[str] = mapped_column(String(36))
    protocol: Mapped[str] = mapped_column(String(16))
    source_kind: Mapped[str] = mapped_column(String(8))
    """``port`` (of the gateway) or ``agent`` (a port there)."""
    source_agent_id: Mapped[str | None] = mapped_column(String(36), index=True)
    source_port: Mapped[int] = mapped_column(Integer)
    """The port in use, or the first of a range; 0 only at an agent that picks one itself."""
    source_last_port: Mapped[int | None] = mapped_column(Integer)
    """The last port of a range."""
    source_bind: Mapped[str | None] = mapped_column(String(64))
    target_agent_id: Mapped[str] = mapped_column(ForeignKey("assets.id"), index=True)
    target_host: Mapped[str | None] = mapped_column(String(253))
    target_port: Mapped[int | None] = mapped_column(Integer)
    target_path: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16), index=True)
    """``active``, ``disabled`` or ``error``."""
    error: Mapped[str | None] = mapped_column(Text)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    sealed_password: Mapped[str | None] = mapped_column(Text)
    """The SOCKS5 password, encrypted with the gateway's state key; never in ``options``."""
    group_name: Mapped[str | None] = mapped_column(String(64))
    balancing: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """One more at every change."""
    declared_by: Mapped[str] = mapped_column(String(36), default="", server_default="", index=True)
    """The machine whose file asks for it; empty: a person does (NULLs would never be equal)."""
    created_at: Mapped[float] = mapped_column(Double, index=True)
    updated_at: Mapped[float] = mapped_column(Double)
    total_connections: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_sent: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_received: Mapped[int] = mapped_column(BigInteger, default=0)
    last_active_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        UniqueConstraint(
            "user_id", "declared_by", "name", name="uq_mappings_user_id_declared_by_name"
        ),
        Base.__table_args__,
    )


class PortLease(Base):
    """A port that belongs to a mapping as long as that exists, disabled or not.

    The primary key is what keeps two mappings from getting one port, whoever asks at once.
    """

    __tablename__ = "port_leases"

    place: Mapped[str] = mapped_column(String(36), primary_key=True)
    """``gateway``, or the id of the agent that listens."""
    transport: Mapped[str] = mapped_column(String(8), primary_key=True)
    """``tcp`` or ``udp``."""
    port: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    mapping_id: Mapped[str] = mapped_column(ForeignKey("mappings.id"), index=True)
    user_id: Mapped[str] = mapped_column(String(36))
    group_name: Mapped[str | None] = mapped_column(String(64))
    """The owner's mappings of one group and protocol share the port."""
    leased_at: Mapped[float] = mapped_column(Double)
