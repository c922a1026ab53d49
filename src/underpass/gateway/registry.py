"""The links this node holds right now: agents by id, clients by user.

An agent has at most one link. A newer one displaces the older, and since only somebody who
completed the handshake gets here, nobody is displaced by a mere claim. The older link's end, which
comes later, never removes the newer: entries are compared by link, not by agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.supervisor import Supervisor
from underpass.links.carriers.pool import SpareDesk
from underpass.links.link import Link

__all__ = ["ClientLink", "LinkRegistry"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLink:
    """A person's link, and who they are."""

    link: Link
    subject: Subject


class LinkRegistry:
    """Agents' and clients' links.

    Callbacks run in the order they were added, synchronously; what takes time belongs into a task
    of whoever listens. One that fails is logged and does not keep the others from running.

    Args:
        supervisor: runs the closing of links.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.spares = SpareDesk()
        """The spare connections of agents' links, for streams with a carrier of their own."""
        self._supervisor = supervisor
        self._agents: dict[str, Link] = {}
        self._clients: dict[str, ClientLink] = {}
        self._linked: list[Callable[[Link], None]] = []
        self._lost: list[Callable[[str, Link], None]] = []
        self._displaced: list[Callable[[Link, Link], None]] = []

    # -- listening --------------------------------------------------------------------------------

    def on_agent_linked(self, callback: Callable[[Link], None]) -> None:
        """Call *callback* with each agent's new link, before its first frame is read: the place
        to set ``on_control`` handlers."""
        self._linked.append(callback)

    def on_agent_lost(self, callback: Callable[[str, Link], None]) -> None:
        """Call *callback* (agent id, link) when an agent has no link any more. Not called for a
        link that was displaced, since the agent still has one."""
        self._lost.append(callback)

    def on_agent_displaced(self, callback: Callable[[Link, Link], None]) -> None:
        """Call *callback* (older, newer) when an agent's link is replaced while it lives."""
        self._displaced.append(callback)

    # -- who is there -----------------------------------------------------------------------------

    def agent(self, agent_id: str) -> Link | None:
        """The agent's live link, if it has one here."""
        link = self._agents.get(agent_id)
        return link if link is not None and not link.closed else None

    def agents(self) -> Iterator[Link]:
        """All agents' links."""
        return iter(tuple(self._agents.values()))

    def clients(self) -> Iterator[ClientLink]:
        """All clients' links."""
        return iter(tuple(self._clients.values()))

    def newest_of(self, user_id: str) -> Link | None:
        """The link a person made last, of those that live."""
        for client in reversed(self._clients.values()):
            if client.subject.user_id == user_id and not client.link.closed:
                return client.link
        return None

    def subject_of(self, link: Link) -> Subject | None:
        """Whose client link *link* is."""
        client = self._clients.get(link.id)
        return client.subject if client is not None else None

    @property
    def agent_count(self) -> int:
        return len(self._agents)

    @property
    def client_count(self) -> int:
        return len(self._clients)

    # -- coming and going -------------------------------------------------------------------------

    def add_agent(self, link: Link) -> Link | None:
        """Enter an agent's link, which has not been started; the link it displaces, if any."""
        agent_id = link.peer.id
        older = self._agents.get(agent_id)
        self._agents[agent_id] = link
        metrics.LINKS.labels("agent").set(len(self._agents))
        if older is not None:
            self._supervisor.start(
                older.close("displaced", "The agent made a newer link."), "close displaced link"
            )
            if not older.closed:
                self._tell(self._displaced, older, link)
        self._tell(self._linked, link)
        return older

    def add_client(self, link: Link, subject: Subject) -> None:
        """Enter a client's link, which has not been started."""
        self._clients[link.id] = ClientLink(link, subject)
        metrics.LINKS.labels("client").set(len(self._clients))

    def remove(self, link: Link) -> bool:
        """Take out a link that has ended; False when it was not (or no longer) the one here."""
        if self._clients.pop(link.id, None) is not None:
            metrics.LINKS.labels("client").set(len(self._clients))
            return True
        agent_id = link.peer.id
        if self._agents.get(agent_id) is not link:
            return False
        del self._agents[agent_id]
        metrics.LINKS.labels("agent").set(len(self._agents))
        self._tell(self._lost, agent_id, link)
        return True

    # -- sending away -----------------------------------------------------------------------------

    async def close_agent(self, agent_id: str, code: str, message: str) -> bool:
        """End an agent's link (it was deleted, or its key changed); whether there was one."""
        link = self._agents.get(agent_id)
        if link is None:
            return False
        await link.close(code, message)
        return True

    async def close_user(self, user_id: str, code: str, message: str) -> int:
        """End all links of a person (disabled, signed out everywhere); how many."""
        links = [client.link for client in self.clients() if client.subject.user_id == user_id]
        for link in links:
            await link.close(code, message)
        return len(links)

    def _tell(self, callbacks: list[Callable[..., None]], *arguments: object) -> None:
        for callback in callbacks:
            try:
                callback(*arguments)
            except Exception:  # noqa: BLE001 - one listener's mistake costs no other its news
                _log.exception("link_callback_failed", callback=repr(callback))
