"""The tables. Names and columns of ``assets``, ``agent_register_apply`` and ``tty_sessions`` are
the contract of spec 1; others' scripts read them.

Times are UTC seconds with microseconds, kept as ``Double`` so that the three database families
agree to the last digit; the API renders them as RFC 3339 (``core.clock.rfc3339``).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Agent",
    "ApiToken",
    "Base",
    "EnrolmentApplication",
    "Event",
    "JoinToken",
    "KeyValue",
    "LoginSession",
    "RecordingRow",
    "SeenNonce",
    "TtySession",
    "User",
]


_MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    # Compares bytes, as SQLite and PostgreSQL do; the default would take "É" for "e".
    "mysql_collate": "utf8mb4_bin",
}


class Base(DeclarativeBase):
    """Declarative base with named constraints, so that migrations work on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    __table_args__: Any = _MYSQL


class User(Base):
    """A person who can sign in."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    """Lower-cased; unique."""
    email: Mapped[str | None] = mapped_column(String(254))
    role: Mapped[str] = mapped_column(String(16))
    """``admin``, ``auditor`` or ``user``."""
    password_hash: Mapped[str | None] = mapped_column(String(255))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)
    last_login_at: Mapped[float | None] = mapped_column(Double)


class LoginSession(Base):
    """A signed-in browser or a bearer token from ``/auth/login``; only its hash is kept."""

    __tablename__ = "login_sessions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double, index=True)
    last_seen_at: Mapped[float] = mapped_column(Double)
    ip: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(256))


class ApiToken(Base):
    """A long-lived token of a user for scripts and the command line; only its hash is kept."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)


class EnrolmentApplication(Base):
    """An agent's application to be let in; kept after the decision (spec 1, Enrolment)."""

    __tablename__ = "agent_register_apply"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(36), index=True)
    nonce: Mapped[str] = mapped_column(String(64), unique=True)
    hostname: Mapped[str] = mapped_column(String(253))
    client_public_key: Mapped[str] = mapped_column(Text)
    key_fingerprint: Mapped[str] = mapped_column(String(80))
    apply_status: Mapped[str] = mapped_column(String(16), index=True)
    """``pending``, ``approved`` or ``rejected``."""
    address: Mapped[str | None] = mapped_column(String(64))
    join_token_id: Mapped[str | None] = mapped_column(String(36))
    pending_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    """SHA-256 of client id and key while pending, else NULL: one pending row per applicant."""
    created_at: Mapped[float] = mapped_column(Double)
    decided_at: Mapped[float | None] = mapped_column(Double)
    decided_by: Mapped[str | None] = mapped_column(String(64))


class SeenNonce(Base):
    """A nonce of a signed request, kept for its window, so that a restart forgets no replay."""

    __tablename__ = "seen_nonces"

    nonce_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 in hex of signer and nonce."""
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class JoinToken(Base):
    """A secret that approves an application at once; only its hash is kept."""

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    uses: Mapped[int] = mapped_column(Integer)
    used: Mapped[int] = mapped_column(Integer, default=0)
    labels: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    may_declare: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether the machines that join with it may declare mappings."""
    created_by: Mapped[str | None] = mapped_column(String(64))
    created_by_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)


class Agent(Base):
    """A machine (the historic API name is *asset*); ``id`` is the agent's client id."""

    __tablename__ = "assets"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    client_public_key: Mapped[str] = mapped_column(Text)
    key_fingerprint: Mapped[str] = mapped_column(String(80))
    hostname: Mapped[str] = mapped_column(String(253))
    labels: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Set by admins only; what the agent says of itself is in ``static_info``."""
    allowed_users: Mapped[list[str]] = mapped_column(JSON, default=list)
    may_declare: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether mappings in its ``underpass.yaml`` count."""
    let_in_by: Mapped[str | None] = mapped_column(String(36))
    """The user who let it in, or who allowed it to declare mappings since: those are theirs."""
    status: Mapped[str] = mapped_column(String(16), default="offline")
    """``online``, ``offline``, ``maintenance`` or ``degraded``."""
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)
    is_deleted: Mapped[bool] = mapped_column(Boolean, default=False, index=True)
    static_info: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    dynamic_info: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    agent_secret_key: Mapped[str] = mapped_column(String(255))
    """Encrypted with the gateway's state key; never in clear. Base64 text, because aiomysql 0.3
    with PyMySQL ≥ 1.2 cannot bind bytes at all (so: no ``LargeBinary`` column in any table)."""
    last_seen_at: Mapped[float | None] = mapped_column(Double)
    last_heartbeat_timestamp: Mapped[float | None] = mapped_column(Double)
    """The newest timestamp the agent signed; an older or equal one is a replay."""
    address: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(32))


class TtySession(Base):
    """One terminal session; it outlives the sockets that show it (spec 1)."""

    __tablename__ = "tty_sessions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    asset_id: Mapped[str] = mapped_column(ForeignKey("assets.id"), index=True)
    user_id: Mapped[str] = mapped_column(String(36), index=True)
    username: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str | None] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(8), default="pty")
    """``pty`` or ``exec``."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    """``connecting``, ``active``, ``detached``, ``closed`` or ``error``."""
    command: Mapped[str] = mapped_column(Text)
    login: Mapped[str | None] = mapped_column(String(64))
    cols: Mapped[int] = mapped_column(Integer)
    rows: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Double, index=True)
    started_at: Mapped[float | None] = mapped_column(Double)
    ended_at: Mapped[float | None] = mapped_column(Double)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[str | None] = mapped_column(String(16))
    browser_ip: Mapped[str | None] = mapped_column(String(64))
    agent_ip: Mapped[str | None] = mapped_column(String(64))
    recording: Mapped[str | None] = mapped_column(String(36))
    error_message: Mapped[str | None] = mapped_column(Text)


class RecordingRow(Base):
    """What is known about a recording; the asciicast itself is a file (``store.files``)."""

    __tablename__ = "recordings"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    session_id: Mapped[str] = mapped_column(String(36), index=True)
    asset_id: Mapped[str] = mapped_column(String(36), index=True)
    user_id: Mapped[str] = mapped_column(String(36), index=True)
    username: Mapped[str] = mapped_column(String(64))
    title: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    """``recording``, ``finished`` or ``interrupted``."""
    started_at: Mapped[float] = mapped_column(Double, index=True)
    duration: Mapped[float] = mapped_column(Double, default=0.0)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None] = mapped_column(String(64))
    width: Mapped[int] = mapped_column(Integer, default=80)
    height: Mapped[int] = mapped_column(Integer, default=24)


class Event(Base):
    """An audit record: who did what to which thing, allowed or not, and by which rule."""

    __tablename__ = "events"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    time: Mapped[float] = mapped_column(Double)
    type: Mapped[str] = mapped_column(String(64))
    """``noun.past_participle``, e.g. ``agent.approved``."""
    actor_id: Mapped[str | None] = mapped_column(String(64))
    actor: Mapped[str | None] = mapped_column(String(64))
    agent_id: Mapped[str | None] = mapped_column(String(36))
    object_id: Mapped[str | None] = mapped_column(String(64))
    ip: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16), default="ok")
    """``ok``, ``denied`` or ``failed``."""
    rule: Mapped[str | None] = mapped_column(String(128))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    __table_args__ = (
        Index("ix_events_time", "time"),
        Index("ix_events_type_time", "type", "time"),
        Index("ix_events_agent_time", "agent_id", "time"),
        _MYSQL,
    )


class KeyValue(Base):
    """Small facts of the installation itself, e.g. the hash of the set-up code."""

    __tablename__ = "installation"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[float] = mapped_column(Double)
