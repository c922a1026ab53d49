"""What tests of machines share: the services on an open database, and applicants with real keys."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.control.admission import QuotasLike
from underpass.control.agent_secrets import AgentSecrets
from underpass.control.agents import Agents
from underpass.control.enrolments import EnrolmentLimits, Enrolments
from underpass.control.events import EventFilter, Events
from underpass.control.heartbeats import HEARTBEAT_PATH, Heartbeats
from underpass.control.join_tokens import JoinTokens
from underpass.control.live import LiveBus
from underpass.control.metric_history import MetricHistory
from underpass.control.nonces import Nonces
from underpass.control.presence import Presence
from underpass.control.rate_limits import RateLimits
from underpass.control.signed_requests import SignedRequests
from underpass.control.subject import Subject
from underpass.core.clock import ManualClock
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import User
from underpass.store.kv import MemoryStore
from underpass.wire.applications import decrypt_secret, sign_application
from underpass.wire.signatures import sign_body

__all__ = ["ADMIN", "KEYS", "Applicant", "Machines"]

ADMIN = Subject(user_id=new_id(), username="ada", role="admin", ip="192.0.2.9")
KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
GATEWAY_KEY = bytes(range(32))
DATABASE_KEY = b"k" * 32


class Machines:
    """A gateway's services for machines, as the composer makes them. ``restarted()`` gives the
    same gateway after a restart: same database, everything in memory gone."""

    def __init__(
        self,
        database: Database,
        clock: ManualClock | None = None,
        limits: EnrolmentLimits | None = None,
        database_key: bytes = DATABASE_KEY,
        quotas: QuotasLike | None = None,
    ) -> None:
        self.database = database
        self.clock = clock or ManualClock()
        self.limits = limits
        self.kv = MemoryStore(self.clock)
        self.bus = LiveBus()
        self.events = Events(database, self.clock, self.bus)
        self.secrets = AgentSecrets(database, database_key)
        self.nonces = Nonces(database, self.kv, self.clock)
        self.tokens = JoinTokens(database, self.clock, self.events)
        self.presence = Presence(database, self.clock, self.events, self.bus)
        self.history = MetricHistory()
        self.linked: set[str] = set()
        self.agents = Agents(
            database,
            self.clock,
            self.events,
            self.bus,
            presence=self.presence,
            history=self.history,
            is_linked=self.linked.__contains__,
        )
        self.enrolments = Enrolments(
            database,
            self.clock,
            self.events,
            self.bus,
            rate_limits=RateLimits(self.kv, self.clock),
            nonces=self.nonces,
            secrets=self.secrets,
            join_tokens=self.tokens,
            gateway_key=GATEWAY_KEY,
            limits=limits,
            quotas=quotas,
        )
        self.heartbeats = Heartbeats(
            database,
            self.clock,
            secrets=self.secrets,
            presence=self.presence,
            history=self.history,
        )
        self.signed = SignedRequests(self.secrets, self.nonces, self.clock)

    def restarted(self) -> Machines:
        return Machines(self.database, self.clock, self.limits)

    async def enrolled(self, name: str = "box", **options: Any) -> Applicant:
        """A machine that is in."""
        applicant = Applicant(self, name)
        answer = await applicant.apply()
        approved = await self.enrolments.approve(ADMIN, answer["apply_id"], name=name, **options)
        applicant.take(approved)
        return applicant

    async def user(self, username: str, role: str = "user") -> Subject:
        """A user row, and its subject."""
        row = User(
            id=new_id(), username=username, role=role, disabled=False, created_at=1, updated_at=1
        )
        async with self.database.session() as db:
            db.add(row)
        return Subject(user_id=row.id, username=username, role=role)  # type: ignore[arg-type]

    async def event_types(self, prefix: str = "") -> list[str]:
        """Types of all events so far, sorted: a clock that stands still gives them no order."""
        items, _ = await self.events.page(EventFilter(), page=1, page_size=500, newest_first=False)
        return sorted(item["type"] for item in items if item["type"].startswith(prefix))


@dataclass
class Applicant:
    """One machine's side of the protocol."""

    machines: Machines
    hostname: str = "box"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: KEYS[0])
    id: str = field(default_factory=new_id)
    secret: bytes = b""
    ip: str | None = "192.0.2.1"

    def body(self, **changes: Any) -> bytes:
        given = {
            "client_id": self.id,
            "hostname": self.hostname,
            "nonce": new_id(),
            "timestamp": int(self.machines.clock.now()),
        }
        signed = {key: changes.pop(key, value) for key, value in given.items()}
        token = changes.pop("join_token", None)
        fields = sign_application(self.key, join_token=token, **signed)
        return json.dumps(fields | changes).encode()

    async def apply(self, **changes: Any) -> dict[str, Any]:
        return await self.machines.enrolments.register(self.body(**changes), self.ip)

    def take(self, answer: dict[str, Any]) -> bytes:
        assert answer["status"] == "approved"
        assert base64.b64decode(answer["gateway_key"]) == GATEWAY_KEY
        self.secret = decrypt_secret(self.key, answer["encrypted_secret"])
        return self.secret

    def heartbeat_body(self, **changes: Any) -> bytes:
        fields = {
            "id": self.id,
            "timestamp": self.machines.clock.now(),
            "nonce": new_id(),
            "metrics": {
                "static_info": {"os": "Debian", "agent_version": "1.2.3"},
                "dynamic_info": {
                    "cpu_percent": 12.5,
                    "memory_percent": 40,
                    "load": [0.5, 1, 2],
                    "disks": [{"percent": 10}, {"percent": 80.5}, {"mount": "/"}, "odd"],
                },
            },
            "tty_status": {"active_sessions": 0, "sessions": []},
        } | changes
        return json.dumps(sign_body(self.secret, "POST", HEARTBEAT_PATH, fields)).encode()

    async def beat(self, **changes: Any) -> dict[str, Any]:
        return await self.machines.heartbeats.receive(self.heartbeat_body(**changes), ip=self.ip)
