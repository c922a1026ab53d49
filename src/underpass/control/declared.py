"""Mappings that machines declare in their ``underpass.yaml`` (specs 4 and 7).

A linked agent sends its whole list, again with every new link. All of it is applied, or nothing:
what is unchanged is not touched, and when one mapping is refused, everything this pass did is
undone. While a machine is away its mappings stay as they are.

A declared mapping belongs to whoever let the machine in (or allowed it to declare since), and so
it may do what that person may. Which machines may declare is a switch of each, off by default:
root on a machine can otherwise publish what the gateway's admins never decided on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.declared_plan import Wanted, described, plan, wanted_of
from underpass.control.events import Events
from underpass.control.mapping import Mapping
from underpass.control.mappings import Mappings
from underpass.control.rate_limits import RateLimits
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.errors import Forbidden, NotFound, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.store.db.models import Agent, User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Declarations"]

_log = structlog.get_logger(__name__)

_GONE: Final = "The machine does not declare it any more."
_MOVED: Final = "The machine declares another one in its place."
PASSES_PER_MINUTE: Final = 60
"""An agent looks at its file once a second; what it misses it sends later."""
_MAX_REMEMBERED: Final = 10_000
_NAMES: Final = 50
"""Names of mappings in one event."""

Undo = list[Callable[[], Awaitable[object]]]


class Declarations:
    """See the module.

    Args:
        mappings: where they are made, with all the rules there are.
        limits: how often a machine may ask.
        supervisor: runs each pass to its end, though the link may be lost meanwhile.
    """

    def __init__(
        self,
        database: Database,
        mappings: Mappings,
        events: Events,
        limits: RateLimits,
        supervisor: Supervisor,
    ) -> None:
        self._database = database
        self._mappings = mappings
        self._events = events
        self._limits = limits
        self._supervisor = supervisor
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._refusals: dict[str, str] = {}

    async def take(self, agent_id: str, body: Fields[str, Any]) -> dict[str, Any]:
        """Make the machine's declared mappings equal to ``body["mappings"]``.

        Returns:
            ``mappings``: of each its name, protocol, port, address, status and error.

        Raises:
            Forbidden: the machine may not declare (``may_not_declare``), or nobody answers for it
                (``no_owner``); the hint is the command to run.
            TooManyRequests: it asks too often.
            UnderpassError: what ``Mappings`` raises, the mapping's name in front. Nothing changed.
        """
        await self._limits.hit("declare", agent_id, PASSES_PER_MINUTE, 60)
        outcome = await asyncio.shield(
            self._supervisor.start(self._settle(agent_id, body), f"declared by {agent_id}")
        )
        if isinstance(outcome, UnderpassError):
            raise outcome
        return {"mappings": [_told(mapping) for mapping in cast("list[Mapping]", outcome)]}

    async def _settle(
        self, agent_id: str, body: Fields[str, Any]
    ) -> list[Mapping] | UnderpassError:
        async with self._turn(agent_id):
            try:
                wanted = wanted_of(body.get("mappings"), agent_id)
                changed = await self._reconcile(agent_id, wanted)
            except UnderpassError as error:
                metrics.DECLARATIONS.labels("refused").inc()
                named = _named(error)
                await self._tell_refusal(agent_id, named)
                return named
            self._refusals.pop(agent_id, None)
            metrics.DECLARATIONS.labels("applied" if changed else "unchanged").inc()
            stored = {each.name: each for each in await self._mappings.declared_by(agent_id)}
            return [stored[each.name] for each in wanted if each.name in stored]

    async def _reconcile(self, agent_id: str, wanted: Sequence[Wanted]) -> bool:
        """Whether that changed anything."""
        current = await self._mappings.declared_by(agent_id)
        if not wanted:  # taken back; that needs nobody's permission
            for old in current:
                await self._mappings.remove(old.id, _GONE)
            if current:
                await self._tell(agent_id, None, removed=[old.name for old in current])
            return bool(current)
        owner = await self._owner(agent_id)
        steps = plan(current, wanted, owner.user_id)
        undo: Undo = []
        made: list[str] = []
        changed: list[str] = []
        try:
            for old, each in steps.first:
                if old is None:
                    await self._make(owner, agent_id, each, undo)
                    made.append(each.name)
                elif await self._change(owner, agent_id, old, each, undo):
                    changed.append(each.name)
            for old in steps.freed:
                await self._mappings.remove(old.id, _MOVED)
                again = described(old)
                undo.append(partial(self._mappings.create, owner, again, declared_by=agent_id))
            for each in steps.then:
                await self._make(owner, agent_id, each, undo)
                made.append(each.name)
            # Who took the leave away meanwhile may have looked before these were there.
            await self._owner(agent_id)
        except (UnderpassError, SQLAlchemyError, OSError):
            await self._take_back(agent_id, undo)
            raise
        for old in steps.last:
            await self._mappings.remove(old.id, _GONE)
        removed = [old.name for old in (*steps.freed, *steps.last) if old.name not in made]
        if made or changed or removed:
            await self._tell(agent_id, owner, made=made, changed=changed, removed=removed)
        return bool(made or changed or removed)

    async def _make(self, owner: Subject, agent_id: str, wanted: Wanted, undo: Undo) -> None:
        try:
            mapping = await self._mappings.create(owner, wanted.body, declared_by=agent_id)
        except UnderpassError as error:
            raise _about(wanted.name, owner, error) from error
        undo.append(partial(self._mappings.remove, mapping.id, _GONE))

    async def _change(
        self, owner: Subject, agent_id: str, old: Mapping, wanted: Wanted, undo: Undo
    ) -> bool:
        update = partial(self._mappings.update, owner, old.id, declared_by=agent_id)
        try:
            mapping = await update(wanted.body)
        except UnderpassError as error:
            raise _about(wanted.name, owner, error) from error
        if mapping == old:
            return False
        undo.append(partial(update, described(old)))
        return True

    async def _take_back(self, agent_id: str, undo: Undo) -> None:
        for step in reversed(undo):
            try:
                await step()
            except (UnderpassError, SQLAlchemyError, OSError) as error:
                # What was wrong first is what the machine should hear.
                _log.error("declared_not_taken_back", agent=agent_id, error=str(error)[:300])

    async def _owner(self, agent_id: str) -> Subject:
        async with self._database.reading() as db:
            agent = await db.get(Agent, agent_id)
            if agent is None or agent.is_deleted:
                raise NotFound("There is no such machine.")
            user = None if agent.let_in_by is None else await db.get(User, agent.let_in_by)
        command = f"underpass machines set {agent.name} --may-declare"
        if not agent.may_declare:
            raise Forbidden(
                "This machine may not declare mappings.",
                code="may_not_declare",
                hint=f"An admin can allow it: {command}",
            )
        if user is None or user.disabled:
            raise Forbidden(
                "Nobody answers for this machine's mappings: whoever let it in is gone.",
                code="no_owner",
                hint=f"An admin can take that over: {command}",
            )
        return Subject(user.id, user.username, cast("Any", user.role), via="token")

    # -- what is told -----------------------------------------------------------------------------

    async def _tell(self, agent_id: str, owner: Subject | None, **names: list[str]) -> None:
        details = {key: value[:_NAMES] for key, value in names.items() if value}
        await self._events.record(
            "mapping.declared", actor=owner, agent_id=agent_id, details=details
        )

    async def _tell_refusal(self, agent_id: str, error: UnderpassError) -> None:
        text = f"{error.code} {error.message}"
        if self._refusals.get(agent_id) == text:
            return  # the machine tries again and again; once is news
        if len(self._refusals) >= _MAX_REMEMBERED:
            self._refusals.clear()
        self._refusals[agent_id] = text
        await self._events.record(
            "mapping.declare_refused",
            agent_id=agent_id,
            outcome="denied" if isinstance(error, Forbidden) else "failed",
            rule=error.code if isinstance(error, Forbidden) else None,
            details={
                "mapping": error.details.get("mapping"),
                "code": error.code,
                "error": error.message[:500],
            },
        )

    def _turn(self, agent_id: str) -> asyncio.Lock:
        turn = self._turns.get(agent_id)
        if turn is None:
            turn = self._turns[agent_id] = asyncio.Lock()
        return turn


def _about(name: str, owner: Subject, error: UnderpassError) -> UnderpassError:
    """*error* with the mapping's name among its details, and for the machine's ears."""
    if isinstance(error, NotFound | Forbidden):
        error = Forbidden(
            f"{owner.username}, who answers for this machine's mappings, may not use it, or "
            "the one that should listen.",
            code="owner_may_not",
            hint="An admin can add them to the machine's allowed users.",
        )
    error.details["mapping"] = name
    return error


def _named(error: UnderpassError) -> UnderpassError:
    """*error* with the mapping's name in front of its text."""
    name = error.details.get("mapping")
    if name is not None:
        error.message = f"{name}: {error.message}"
    return error


def _told(mapping: Mapping) -> dict[str, Any]:
    return {
        "name": mapping.name,
        "protocol": mapping.protocol,
        "source": mapping.source.to_json(),
        "status": mapping.status,
        "error": mapping.error,
    }
