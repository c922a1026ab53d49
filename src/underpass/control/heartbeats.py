"""Heartbeats: check what an agent signed, keep what it says, tell presence it is alive."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import msgspec
from sqlalchemy import CursorResult, or_, select, update

from underpass.control.agent_secrets import AgentSecrets
from underpass.control.metric_history import MetricHistory
from underpass.control.presence import Presence
from underpass.control.signed_requests import check_clock, unknown_agent
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, UnderpassError
from underpass.core.metrics import HEARTBEATS
from underpass.store.db.models import Agent
from underpass.wire.signatures import SignedBody, parse_signed_body, verify_body

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["HEARTBEAT_PATH", "Heartbeat", "Heartbeats", "check_heartbeat", "read_heartbeat"]

HEARTBEAT_PATH = "/api/v1/heartbeat"
"""Part of the signed text, over a link, too."""
MAX_INFO = 64 * 1024
"""Bytes of JSON kept of ``static_info`` and of ``dynamic_info``."""

MAX_KNOWN = 20_000
"""Machines whose secret is remembered between two heartbeats."""

HeartbeatHook = Callable[["Heartbeat"], None]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat whose fields have the right shape.

    Attributes:
        timestamp: Unix seconds by the agent's (corrected) clock.
        static_info: ``None`` when this heartbeat left it out because nothing changed.
        mode: ``link`` or ``poll``.
        tty_status: ``{active_sessions, sessions}`` as the agent says; trusted for display only.
    """

    id: str
    timestamp: float
    static_info: dict[str, Any] | None
    dynamic_info: dict[str, Any]
    mode: str
    version: str | None
    tty_status: dict[str, Any]


def read_heartbeat(body: SignedBody) -> Heartbeat:
    """The heartbeat in a signed body.

    Raises:
        InvalidRequest: ``metrics`` or ``tty_status`` are not objects or too large (``bad_field``).
    """
    metrics = _object(body.fields, "metrics")
    static_info = _object(metrics, "static_info") if "static_info" in metrics else None
    dynamic_info = _object(metrics, "dynamic_info")
    version = (static_info or {}).get("agent_version")
    return Heartbeat(
        id=body.id,
        timestamp=float(body.timestamp),
        static_info=static_info,
        dynamic_info=dynamic_info,
        mode="poll" if metrics.get("mode") == "poll" else "link",
        version=version[:32] if isinstance(version, str) and version.isprintable() else None,
        tty_status=_object(body.fields, "tty_status"),
    )


def check_heartbeat(
    body: SignedBody,
    *,
    secret: bytes | None,
    last: float | None,
    now: float,
    linked_id: str | None = None,
) -> Heartbeat:
    """Decide on a heartbeat; the whole of spec 1's checks, in order, without I/O.

    Args:
        secret: of the machine ``body.id``; ``None`` when it is unknown or deleted.
        last: newest timestamp accepted from it.
        now: Unix seconds.
        linked_id: whose link it came over, if over one.

    Raises:
        Unauthenticated: ``clock_skew`` with ``server_time``; ``bad_signature``.
        NotFound: ``unknown_agent``.
        Forbidden: it names another machine than the link's (``wrong_agent``).
        Conflict: not newer than *last* (``replayed``, with ``last_timestamp``).
        InvalidRequest: see :func:`read_heartbeat`.
    """
    if linked_id is not None and body.id != linked_id:
        raise Forbidden("The heartbeat is of another machine than the link.", code="wrong_agent")
    check_clock(body.timestamp, now)
    if secret is None:
        raise unknown_agent()
    verify_body(secret, "POST", HEARTBEAT_PATH, body)
    if last is not None and body.timestamp <= last:
        raise _replayed(last, now)
    return read_heartbeat(body)


class Heartbeats:
    """Receives heartbeats over HTTP and over links."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        secrets: AgentSecrets,
        presence: Presence,
        history: MetricHistory,
    ) -> None:
        self._database = database
        self._clock = clock
        self._secrets = secrets
        self._presence = presence
        self.history = history
        self._hooks: list[HeartbeatHook] = []
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def on_heartbeat(self, hook: HeartbeatHook) -> None:
        """Call *hook* with each accepted heartbeat."""
        self._hooks.append(hook)

    async def receive(
        self,
        body: bytes | Mapping[str, Any],
        *,
        ip: str | None = None,
        linked_id: str | None = None,
    ) -> dict[str, Any]:
        """Check a heartbeat and keep what it says.

        Args:
            body: JSON bytes, or the object of a link's ``heartbeat`` request.
            ip: the agent's address, if known.
            linked_id: the machine whose link it came over.

        Returns:
            ``{"status": "ok", "server_time": Unix seconds}``.

        Raises:
            UnderpassError: see :func:`check_heartbeat`; TooLarge (``body_too_large``).
        """
        try:
            heartbeat = await self._receive(body, ip, linked_id)
        except UnderpassError as error:
            HEARTBEATS.labels(error.code).inc()
            raise
        HEARTBEATS.labels("ok").inc()
        now = self._clock.now()
        self.history.add(heartbeat.id, now, heartbeat.dynamic_info)
        await self._presence.heartbeat(heartbeat.id, heartbeat.mode)
        for hook in self._hooks:
            hook(heartbeat)
        return {"status": "ok", "server_time": now}

    async def _receive(
        self, body: bytes | Mapping[str, Any], ip: str | None, linked_id: str | None
    ) -> Heartbeat:
        signed = parse_signed_body(body)
        now = self._clock.now()
        known = self._known.get(signed.id)
        if known is not None and not _acceptable(signed, known, now, linked_id):
            known = None  # what we remember may be old; the database decides on refusals
        if known is None:
            known = await self._read(signed.id)
        heartbeat = _checked(signed, known, now, linked_id)
        assert known is not None
        if not await self._store(heartbeat, known, now, ip):
            # A copy was quicker, or the machine was deleted or renewed in the meantime.
            self._known.pop(signed.id, None)
            known = await self._read(signed.id)
            _checked(signed, known, now, linked_id)
            raise _replayed(heartbeat.timestamp, now)
        self._remember(signed.id, replace(known, last=heartbeat.timestamp))
        return heartbeat

    async def _store(self, heartbeat: Heartbeat, known: _Known, now: float, ip: str | None) -> bool:
        """Write it down if it still is the newest, under the secret it was checked with."""
        values: dict[str, Any] = {
            "last_heartbeat_timestamp": heartbeat.timestamp,
            "last_seen_at": now,
            "dynamic_info": heartbeat.dynamic_info,
        }
        if heartbeat.static_info is not None:
            values["static_info"] = heartbeat.static_info
            values["version"] = heartbeat.version
        if ip is not None:
            values["address"] = ip[:64]
        async with self._database.session() as db:
            # Conditional, so that of two copies that arrive together one is a replay.
            stored = await db.execute(
                update(Agent)
                .where(
                    Agent.id == heartbeat.id,
                    Agent.is_deleted.is_(False),
                    Agent.agent_secret_key == known.sealed,
                    or_(
                        Agent.last_heartbeat_timestamp.is_(None),
                        Agent.last_heartbeat_timestamp < heartbeat.timestamp,
                    ),
                )
                .values(**values)
                .execution_options(synchronize_session=False)
            )
        return cast("CursorResult[Any]", stored).rowcount == 1

    async def _read(self, agent_id: str) -> _Known | None:
        async with self._database.reading() as db:
            found = await db.execute(
                select(Agent.agent_secret_key, Agent.last_heartbeat_timestamp).where(
                    Agent.id == agent_id, Agent.is_deleted.is_(False)
                )
            )
            row = found.first()
        if row is None:
            return None
        return _Known(row[0], self._secrets.unseal(agent_id, row[0]), row[1])

    def _remember(self, agent_id: str, known: _Known) -> None:
        self._known[agent_id] = known
        self._known.move_to_end(agent_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a check needs of a machine; remembered to spare a read, never trusted to be fresh."""

    sealed: str
    secret: bytes
    last: float | None


def _checked(
    signed: SignedBody, known: _Known | None, now: float, linked_id: str | None
) -> Heartbeat:
    return check_heartbeat(
        signed,
        secret=None if known is None else known.secret,
        last=None if known is None else known.last,
        now=now,
        linked_id=linked_id,
    )


def _acceptable(signed: SignedBody, known: _Known, now: float, linked_id: str | None) -> bool:
    try:
        _checked(signed, known, now, linked_id)
    except UnderpassError:
        return False
    return True


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"The field {name} must be an object.", code="bad_field", details={"field": name}
        )
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):
        size = MAX_INFO + 1
    if size > MAX_INFO and name != "metrics":
        raise InvalidRequest(
            f"The field {name} is larger than {MAX_INFO} bytes or too deep.",
            code="bad_field",
            details={"field": name},
        )
    return cast("dict[str, Any]", value)


def _replayed(last: float, now: float) -> Conflict:
    return Conflict(
        "The heartbeat is not newer than the last one.",
        code="replayed",
        details={"last_timestamp": last, "server_time": now},
    )
