"""Poll mode: sessions wait here until their agent asks, and their trunk is a WebSocket it opens.

For machines whose network allows short HTTPS requests only. The relay token is made anew at every
poll (an answer may get lost), bound to agent and session, and good once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from underpass.core.clock import Clock
from underpass.core.errors import NotFound, Unauthenticated, Unavailable
from underpass.core.ids import hash_secret, is_id, new_secret, secrets_equal
from underpass.gateway.terminals.trunk import SocketTrunk
from underpass.wire.terminal import MAX_CONTROL

__all__ = ["AgentRelay"]

POLL_FRESH = 25.0
"""Seconds after a poll during which a machine counts as polling (it polls every 5 to 8 s)."""
FETCH_SECONDS = 20.0
"""How long a session waits for its agent to come."""
TOKEN_SECONDS = 60.0
_MAX_PENDING = 256


@dataclass(slots=True)
class _Pending:
    agent_id: str
    meta: Mapping[str, Any]
    trunk: asyncio.Future[SocketTrunk]
    token_hash: str = ""
    made_at: float = field(default=0.0)


class AgentRelay:
    """What waits for polling agents."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._polled: dict[str, float] = {}

    def __len__(self) -> int:
        """Sessions waiting to be fetched."""
        return len(self._pending)

    def polls(self, agent_id: str) -> bool:
        """Whether the machine has asked lately."""
        at = self._polled.get(agent_id)
        return at is not None and self._clock.monotonic() - at < POLL_FRESH

    def forget(self, agent_id: str) -> None:
        """The machine is gone: it does not poll any more."""
        self._polled.pop(agent_id, None)

    def linked(self, agent_id: str) -> None:
        """The machine has a link now: who waits for its poll need not."""
        self.forget(agent_id)
        for pending in self._pending.values():
            if pending.agent_id == agent_id and not pending.trunk.done():
                pending.trunk.set_exception(
                    Unavailable("The machine has a link now.", code="agent_linked")
                )

    def pending_for(self, agent_id: str) -> list[dict[str, Any]]:
        """What the agent should open, each with a fresh token (spec 1, step 3)."""
        now = self._clock.monotonic()
        self._polled[agent_id] = now
        answer: list[dict[str, Any]] = []
        for session_id, pending in self._pending.items():
            if pending.agent_id != agent_id:
                continue
            token = new_secret("upr_")
            pending.token_hash = hash_secret(token)
            pending.made_at = now
            answer.append({**pending.meta, "session_id": session_id, "token": token})
        return answer

    async def fetch(
        self, agent_id: str, session_id: str, meta: Mapping[str, Any], timeout: float
    ) -> SocketTrunk:
        """Wait until the agent has opened the relay socket for this session.

        Raises:
            Unavailable: ``agent_silent``: it did not come within *timeout* seconds;
                ``agent_linked``: it has a link now, which is the better way.
        """
        if len(self._pending) >= _MAX_PENDING:
            raise Unavailable("Too many sessions wait for their agents.", code="relay_full")
        future: asyncio.Future[SocketTrunk] = asyncio.get_running_loop().create_future()
        pending = _Pending(agent_id, meta, future)
        self._pending[session_id] = pending
        taken = False
        try:
            async with asyncio.timeout(timeout):
                trunk = await future
            taken = True
            return trunk
        except TimeoutError:
            raise Unavailable(
                "The machine's agent did not come to fetch the session.", code="agent_silent"
            ) from None
        finally:
            if not taken and future.done() and not future.cancelled() and not future.exception():
                future.result().abort()  # it came in the very moment in which we gave up
            if self._pending.get(session_id) is pending:
                del self._pending[session_id]
            future.cancel()

    async def serve(
        self, websocket: WebSocket, session_id: str, token: str, address: str | None
    ) -> None:
        """Take an agent's relay socket, once the token proves which session it is for.

        Raises:
            NotFound: no such session waits.
            Unauthenticated: the token is wrong, used, or too old.
        """
        pending = self._pending.get(session_id) if is_id(session_id) else None
        if pending is None or pending.trunk.done():
            raise NotFound("No such session waits for this agent.")
        fresh = self._clock.monotonic() - pending.made_at < TOKEN_SECONDS
        given = hash_secret(token[:MAX_CONTROL])
        if not pending.token_hash or not fresh or not secrets_equal(given, pending.token_hash):
            raise Unauthenticated("The relay token is not valid.", code="bad_relay_token")
        pending.token_hash = ""
        await websocket.accept()
        if pending.trunk.done():
            await websocket.close(4404, "too late")
            return
        trunk = SocketTrunk(websocket, address)
        pending.trunk.set_result(trunk)
        await trunk.released.wait()
        try:
            async with asyncio.timeout(5.0):
                await websocket.close(1000)
        except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            return  # it is closed already, or nobody reads it any more
