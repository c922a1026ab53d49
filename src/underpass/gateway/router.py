"""Opening streams to agents: the one question every entry point asks.

Today every agent is linked to this node or not at all; later other nodes' links are found here,
and no entry point will notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.errors import Conflict, UnderpassError
from underpass.gateway.registry import LinkRegistry
from underpass.links.link import Link, OpenRefused
from underpass.links.stream import Stream

__all__ = ["Router"]

_KINDS = frozenset({"tcp", "udp", "unix", "pty", "exec"})


class Router:
    """Finds the way to an agent.

    The caller has authorised the opening; the agent's own policy decides again.

    Args:
        registry: this node's links.
    """

    def __init__(self, registry: LinkRegistry) -> None:
        self._registry = registry

    def is_linked(self, agent_id: str) -> bool:
        """Whether streams can be opened to the agent right now."""
        link = self._registry.agent(agent_id)
        return link is not None and not link.going_away

    async def open(
        self,
        agent_id: str,
        target: str,
        *,
        on_behalf_of: Subject,
        meta: Mapping[str, Any] | None = None,
        interactive: bool = False,
        timeout: float = 10.0,
    ) -> Stream:
        """Open a stream to *target* on an agent.

        Args:
            agent_id: the machine's id.
            target: ``tcp:host:port``, ``udp:host:port``, ``udp``, ``unix:path``, ``pty``, ``exec``.
            on_behalf_of: for whom; the agent is told (``meta["user"]``) and logs it.
            meta: what the agent's opener should know; ``user`` in it is overwritten.
            interactive: its bytes go before bulk.
            timeout: seconds for the agent to accept.

        Raises:
            Conflict: code ``agent_unlinked``: the agent has no link.
            OpenRefused: the agent said no.
            LinkLost, Unavailable: the link ended, or no answer came.
        """
        kind = target.partition(":")[0]
        kind = kind if kind in _KINDS else "other"
        user = {"id": on_behalf_of.user_id, "username": on_behalf_of.username}
        try:
            link = self._link(agent_id)
            stream = await link.open(
                target, {**(meta or {}), "user": user}, interactive=interactive, timeout=timeout
            )
        except UnderpassError as error:
            # A code the peer chose must not become a label.
            outcome = "refused" if isinstance(error, OpenRefused) else error.code
            metrics.STREAM_OPENS.labels(kind, outcome).inc()
            raise
        metrics.STREAM_OPENS.labels(kind, "ok").inc()
        return stream

    async def request(
        self, agent_id: str, kind: str, body: Mapping[str, Any], timeout: float = 10.0
    ) -> dict[str, Any]:
        """Ask an agent over its link (``metrics``, ``session.terminate``).

        Raises:
            Conflict: code ``agent_unlinked``.
            UnderpassError: what the agent answered with.
        """
        return await self._link(agent_id).request(kind, body, timeout)

    def _link(self, agent_id: str) -> Link:
        link = self._registry.agent(agent_id)
        if link is None or link.going_away:
            raise Conflict(
                "The machine has no link to the gateway right now.",
                code="agent_unlinked",
                hint="It dials in by itself; try again in a moment.",
            )
        return link
