"""Joins machines' records to their links: presence follows links, heartbeats come over them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from underpass.core.addresses import host_of
from underpass.core.errors import UnderpassError
from underpass.gateway.http.envelope import error_body
from underpass.gateway.services import Services
from underpass.links.link import Link

__all__ = ["connect_machines"]

SESSIONS_DEADLINE: Final = 2.5
"""Seconds the sessions of a deleted machine get to end before its link does."""


def connect_machines(services: Services) -> None:
    """Wire registry, presence, heartbeats, deletion and renewal together; call it once.

    * A link that comes or goes changes presence at once.
    * ``heartbeat`` requests over a link are checked like those over HTTP, and must be the link's
      own machine's.
    * A deleted machine, or one whose secret was replaced, loses its link and sessions.
    """
    registry, presence = services.registry, services.presence

    async def heartbeat(link: Link, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await services.heartbeats.receive(
                body, ip=host_of(link.peer.address), linked_id=link.peer.id
            )
        except UnderpassError as error:
            # An answer, not an error: errors lose their details on a link, and the agent needs
            # the server's time in them.
            return {**error_body(error), "status": "refused", "http_status": error.status}

    def linked(link: Link) -> None:
        link.on_control("heartbeat", heartbeat)
        presence.linked(link.peer.id)

    async def deleted(agent_id: str) -> None:
        try:
            if services.terminals is not None:
                # First, over the link that is about to go: the agent must end its shells.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SESSIONS_DEADLINE):
                        await services.terminals.close_for_agent(
                            agent_id, "The machine was deleted."
                        )
        finally:
            await registry.close_agent(agent_id, "unknown_agent", "This machine was deleted.")

    async def renewed(agent_id: str) -> None:
        await registry.close_agent(agent_id, "secret_replaced", "This machine was enrolled anew.")

    registry.on_agent_linked(linked)
    registry.on_agent_lost(lambda agent_id, _link: presence.unlinked(agent_id))
    services.agents.on_deleted(deleted)
    services.enrolments.on_reissued(renewed)
