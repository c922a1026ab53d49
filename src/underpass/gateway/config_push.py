"""Tells every linked agent what it should listen for, and hears how that goes.

===================== ========= =================================================================
``config.get``        agent asks ``{epoch, version}`` it has; the answer is the message it needs
``config.push``       gateway   a message; answered with ``{epoch, version, states}``
``config.states``     agent     ``{epoch, version, states}``: after ``config.get``, and whenever a
                                port was had or lost later
===================== ========= =================================================================

``states`` are ``{mapping id: {"version", "port", "error"}}``: the mapping's version it is about,
and the port in use or why there is none. Messages are those of ``control/agent_config.py``. One
push per agent is under way at a time; what changes meanwhile goes together in the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog

from underpass.control.agent_config import MAX_ITEMS, ConfigLog, agent_item
from underpass.control.mapping import Mapping
from underpass.core.errors import Unavailable, UnderpassError
from underpass.core.ids import IdMaker, new_id
from underpass.core.supervisor import Supervisor
from underpass.gateway.registry import LinkRegistry
from underpass.links.link import Link, LinkLost

__all__ = ["FEATURE", "ConfigPush", "ListenState"]

_log = structlog.get_logger(__name__)

FEATURE: Final = "listen"
"""What agents that listen for mappings say of themselves in the handshake."""
PUSH_TIMEOUT: Final = 5.0
HOLD_TIMEOUT: Final = 8.0
"""Seconds an agent's question waits at most; less than the 10 it waits for an answer."""
RETRY: Final = 1.0
"""Seconds after which a push that was not answered is sent again."""
_MAX_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class ListenState:
    """How an agent does with one mapping.

    Attributes:
        version: the mapping's version this is about.
        port: the port in use, the first of a range; None when it does not listen.
        error: why it does not.
    """

    version: int
    port: int | None = None
    error: str | None = None


class _Listening:
    """One agent: what it should listen for, and how far it knows."""

    def __init__(self, epoch: str) -> None:
        self.log = ConfigLog(epoch)
        self.known: int | None = None  # None until it has asked over its present link
        self.changed = asyncio.Event()
        self.waiting: dict[str, tuple[int, asyncio.Future[ListenState]]] = {}


class ConfigPush:
    """See the module.

    Args:
        registry: the agents' links.
        told: called with (agent id, mapping id, state) for news nobody waits for; must be quick.
        make_id: makes epochs.
    """

    def __init__(
        self,
        registry: LinkRegistry,
        told: Callable[[str, str, ListenState], None],
        *,
        make_id: IdMaker = new_id,
    ) -> None:
        self._registry = registry
        self._told = told
        self._make_id = make_id
        self._agents: dict[str, _Listening] = {}
        self._supervisor = Supervisor("config push")
        self._complete = asyncio.Event()
        self._complete.set()
        registry.on_agent_linked(self._linked)

    async def stop(self) -> None:
        """Push nothing more. Agents go on listening: they come back to this gateway's successor."""
        await self._supervisor.close()

    @property
    def held(self) -> bool:
        """Whether agents wait for the list to be complete."""
        return not self._complete.is_set()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Tell agents nothing meanwhile: half a list would have them close ports."""
        self._complete.clear()
        try:
            yield
        finally:
            self._complete.set()

    def can_listen(self, agent_id: str) -> bool | None:
        """Whether the agent listens for mappings; None while it has no link to tell."""
        link = self._registry.agent(agent_id)
        return None if link is None else FEATURE in link.peer.features

    def version(self, agent_id: str) -> tuple[int, int | None]:
        """The version an agent should have, and the one it has said it has."""
        about = self._about(agent_id)
        return about.log.version, about.known

    # -- what should be ---------------------------------------------------------------------------

    def put(self, agent_id: str, mapping: Mapping) -> None:
        """Have the agent listen for *mapping* as it is now; goes on its way at once.

        Raises:
            TooManyRequests: code ``too_many_listeners``.
        """
        about = self._about(agent_id)
        if about.log.put(mapping.id, agent_item(mapping)):
            about.changed.set()

    def remove(self, agent_id: str, mapping_id: str) -> None:
        """Have the agent listen for it no more; unknown ones are fine."""
        about = self._about(agent_id)
        if about.log.remove(mapping_id):
            about.changed.set()
        if not about.log.items and self._registry.agent(agent_id) is None:
            del self._agents[agent_id]  # it gets the whole list, empty, when it comes back

    async def settle(self, agent_id: str, mapping: Mapping, timeout: float) -> ListenState | None:
        """:meth:`put`, and wait for what the agent says of it; None when nothing came in time.

        Raises:
            TooManyRequests: as :meth:`put`.
        """
        about = self._about(agent_id)
        answer: asyncio.Future[ListenState] = asyncio.get_running_loop().create_future()
        self.put(agent_id, mapping)
        about.waiting[mapping.id] = mapping.version, answer
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            return None
        finally:
            if about.waiting.get(mapping.id, (0, None))[1] is answer:
                del about.waiting[mapping.id]

    # -- links ------------------------------------------------------------------------------------

    def _about(self, agent_id: str) -> _Listening:
        about = self._agents.get(agent_id)
        if about is None:
            about = self._agents[agent_id] = _Listening(self._make_id())
        return about

    def _linked(self, link: Link) -> None:
        if FEATURE not in link.peer.features:
            return
        self._about(link.peer.id).known = None
        link.on_control("config.get", self._get)
        link.on_control("config.states", self._heard)
        self._supervisor.start(self._feed(link), f"feed {link.peer.id}")

    async def _get(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(HOLD_TIMEOUT):
                await self._complete.wait()
        except TimeoutError:
            raise Unavailable("The gateway is still starting.", code="starting") from None
        epoch, version = body.get("epoch"), body.get("version")
        return self._about(link.peer.id).log.since(
            epoch if isinstance(epoch, str) else None, version if isinstance(version, int) else -1
        )

    async def _heard(self, link: Link, body: dict[str, Any]) -> None:
        self._take(link, body)

    def _take(self, link: Link, body: dict[str, Any]) -> None:
        """What an agent says it has, and how that goes."""
        if self._registry.agent(link.peer.id) is not link:
            return  # a link that has been displaced
        about = self._about(link.peer.id)
        version = body.get("version")
        if body.get("epoch") == about.log.epoch and isinstance(version, int):
            # Only what it has said last counts: if it has lost something, it gets that again.
            about.known = max(0, min(version, about.log.version))
            about.changed.set()
            _log.debug(
                "config_known", agent=link.peer.id, version=about.known, newest=about.log.version
            )
        for mapping_id, state in _states(body).items():
            if mapping_id not in about.log.items:
                continue
            wanted, answer = about.waiting.get(mapping_id, (0, None))
            if answer is None:
                self._told(link.peer.id, mapping_id, state)
            elif state.version == wanted and not answer.done():
                answer.set_result(state)

    async def _feed(self, link: Link) -> None:
        """Push what the agent does not know yet, as long as the link lives."""
        about = self._about(link.peer.id)
        ended = self._supervisor.start(link.wait_closed(), "link end")
        try:
            while not link.closed and self._registry.agent(link.peer.id) is link:
                if about.known is None or about.known >= about.log.version:
                    about.changed.clear()
                    await _first(about.changed, ended)
                    continue
                try:
                    answer = await link.request(
                        "config.push", about.log.since(about.log.epoch, about.known), PUSH_TIMEOUT
                    )
                except LinkLost:
                    return
                except UnderpassError as error:
                    _log.warning(
                        "config_push_failed", agent=link.peer.id, code=error.code, error=str(error)
                    )
                    await asyncio.sleep(RETRY)
                else:
                    before = about.known
                    self._take(link, answer)
                    if about.known <= before:
                        # It could not use that; it asks by itself, do not fill its ears meanwhile.
                        await asyncio.sleep(RETRY)
        finally:
            ended.cancel()


async def _first(changed: asyncio.Event, ended: asyncio.Task[Any]) -> None:
    """Wait for either."""
    async with asyncio.TaskGroup() as group:
        news = group.create_task(changed.wait())
        await asyncio.wait({news, ended}, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()


def _states(body: dict[str, Any]) -> dict[str, ListenState]:
    """What *body* says about mappings; what makes no sense is left out."""
    found = body.get("states")
    states: dict[str, ListenState] = {}
    if not isinstance(found, dict):
        return states
    for mapping_id, fields in list(cast("dict[Any, Any]", found).items())[:MAX_ITEMS]:
        if not isinstance(mapping_id, str) or not isinstance(fields, dict):
            continue
        version, port, error = (fields.get(name) for name in ("version", "port", "error"))
        if not isinstance(version, int):
            continue
        if isinstance(error, str):
            states[mapping_id] = ListenState(version, error=error[:_MAX_ERROR])
        elif isinstance(port, int) and 1 <= port <= 65535:
            states[mapping_id] = ListenState(version, port)
    return states
