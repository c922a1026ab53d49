"""Whether a mapping's owner may still use the machine it leads to.

A mapping outlives the request that made it, so its owner's permission is asked for again and
again: for every connection (an answer lasts two seconds at most, and news about the person or the
machine ends it at once) and, by ``gateway.tunnels``, for everything that is open.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from underpass.control.access import Action, AgentView, Decision, authorise
from underpass.control.live import LiveBus, LiveMessage
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Forbidden, NotFound, Unavailable
from underpass.gateway.client_streams import needed_action

__all__ = ["OwnerRights", "action_for", "takes_rights"]

MAX_AGE: Final = 2.0
"""Seconds an answer is good for."""
_TIMEOUT: Final = 5.0
_MAX_KNOWN: Final = 10_000


class UsersLike(Protocol):
    """Where people are found (``control.users.Users``)."""

    async def get(self, user_id: str) -> dict[str, Any]: ...


class AgentsLike(Protocol):
    """Where machines are found (``control.agents.Agents``)."""

    async def view(self, agent_id: str) -> AgentView | None: ...


def action_for(target: str) -> Action:
    """The permission a mapping's owner needs for *target*."""
    return "forward" if target.partition(":")[0] == "udp" else needed_action(target)


def takes_rights(message: LiveMessage) -> bool:
    """Whether the news may be that somebody lost a right. Of machines, only what changes who may
    use them: hundreds come online at once."""
    return message.topic == "user" or (
        message.topic == "agent" and message.data.get("change") in {"updated", "deleted"}
    )


@dataclass(slots=True)
class _Found:
    """What is known of a person and a machine, until when, and what follows from it."""

    until: float
    subject: Subject | None
    view: AgentView | None
    allowed: set[Action] = field(default_factory=set[Action])


class OwnerRights:
    """Decides for the owners of mappings, from the database, with a short memory.

    Args:
        users: the people.
        agents: the machines.
        clock: what the memory's age is measured with.
        bus: news about people and machines; what they concern is forgotten at once.
    """

    def __init__(
        self, users: UsersLike, agents: AgentsLike, clock: Clock, bus: LiveBus | None = None
    ) -> None:
        self._users = users
        self._agents = agents
        self._clock = clock
        self._known: dict[tuple[str, str], _Found] = {}
        self._asking = asyncio.Lock()
        if bus is not None:
            bus.listen(self._heard)

    async def require(self, user_id: str, agent_id: str, action: Action) -> Subject:
        """The owner, when they may do *action* on the machine.

        Raises:
            Forbidden: code ``permission_lost``; ``details["rule"]`` says which rule decided.
            Unavailable: the database did not answer in time.
        """
        found = self._recent((user_id, agent_id))
        if found is not None and action in found.allowed and found.subject is not None:
            return found.subject  # as for the connection before
        subject, decision = await self.decide(user_id, agent_id, action)
        if subject is None or not decision.allowed:
            raise Forbidden(
                "The owner of this mapping may not use the machine (any more).",
                code="permission_lost",
                details={"rule": decision.rule},
            )
        return subject

    async def decide(
        self, user_id: str, agent_id: str, action: Action
    ) -> tuple[Subject | None, Decision]:
        """The owner and the decision; no owner when they are gone or disabled.

        Raises:
            Unavailable: as :meth:`require`.
        """
        found = await self._look_up((user_id, agent_id))
        if found.subject is None:
            return None, Decision(False, "no-such-user", "The owner is gone or disabled.")
        decision = authorise(found.subject, action, found.view)
        if decision.allowed:
            found.allowed.add(action)
        return found.subject, decision

    async def _look_up(self, key: tuple[str, str]) -> _Found:
        found = self._recent(key)
        if found is None:
            try:
                async with asyncio.timeout(_TIMEOUT), self._asking:
                    # Whoever waited for its turn finds what the one before has learnt.
                    found = self._recent(key) or await self._ask(key)
            except TimeoutError:
                raise Unavailable("The database does not answer.", code="no_answer") from None
        return found

    def _recent(self, key: tuple[str, str]) -> _Found | None:
        found = self._known.get(key)
        return found if found is not None and found.until > self._clock.monotonic() else None

    async def _ask(self, key: tuple[str, str]) -> _Found:
        # The age counts from before the question: news may come between question and answer.
        good_until = self._clock.monotonic() + MAX_AGE
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        waiting = _Found(0.0, None, None)
        self._known[key] = waiting
        subject = await self._subject(key[0])
        found = _Found(good_until, subject, await self._agents.view(key[1]))
        if self._known.get(key) is waiting:  # nothing was forgotten meanwhile
            self._known[key] = found
        return found

    async def _subject(self, user_id: str) -> Subject | None:
        try:
            user = await self._users.get(user_id)
        except NotFound:
            return None
        if user["disabled"]:
            return None
        return Subject(user_id, user["username"], user["role"], via="token")

    def _heard(self, message: LiveMessage) -> None:
        if takes_rights(message):
            index = 0 if message.topic == "user" else 1
            concerned = str(message.data.get("id"))
            for key in [key for key in self._known if key[index] == concerned]:
                del self._known[key]
