"""Opening streams to agents: the one question every entry point asks.

Today every agent is linked to this node or not at all; later other nodes' links are found here,
and no entry point will notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from underpass.control.guest import is_guest
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.errors import Conflict, UnderpassError
from underpass.gateway.registry import LinkRegistry
from underpass.links.carriers.holder import CARRIER, CarrierLost
from underpass.links.carriers.pool import SparePool
from underpass.links.link import Link, OpenRefused
from underpass.links.stream import Stream

__all__ = ["CarrierChoice", "Router"]

CarrierChoice = Literal["auto", "mux", "dedicated"]
"""Which way a stream's bytes go: in the link, on a connection of their own, or whichever fits what
the target's streams carry."""
_DEDICATED_KINDS = frozenset({"tcp", "unix"})
_KINDS = frozenset({"tcp", "udp", "unix", "pty", "exec"})
_OPENED = {kind: metrics.STREAM_OPENS.labels(kind, "ok") for kind in (*sorted(_KINDS), "other")}


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
        carrier: CarrierChoice = "auto",
    ) -> Stream:
        """Open a stream to *target* on an agent.

        Args:
            agent_id: the machine's id.
            target: ``tcp:host:port``, ``udp:host:port``, ``udp``, ``unix:path``, ``pty``, ``exec``.
            on_behalf_of: for whom; the agent is told (``meta["user"]``) and logs it.
            meta: what the agent's opener should know; ``user`` in it is overwritten.
            interactive: its bytes go before bulk.
            timeout: seconds for the agent to accept.
            carrier: a wish. What can't have a connection of its own (TLS, WebSocket and QUIC
                links, other kinds of targets, no spare at hand) goes in the link, silently.

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
            meta = {**(meta or {}), "user": user}
            meta.pop(CARRIER, None)
            opening = _Opening(link, target, meta, interactive, timeout)
            pool = self._registry.spares.pool_of(link)
            if pool is None or kind not in _DEDICATED_KINDS:
                stream = await opening.in_link()
            else:
                stream = await _by_choice(opening, pool, carrier)
        except UnderpassError as error:
            # A code the peer chose must not become a label.
            outcome = "refused" if isinstance(error, OpenRefused) else error.code
            metrics.STREAM_OPENS.labels(kind, outcome).inc()
            raise
        _OPENED[kind].inc()
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
        if is_guest(agent_id):  # their command serves its own link (``cli/guest_host.py``)
            link = self._registry.newest_of(agent_id)
        else:
            link = self._registry.agent(agent_id)
        if link is None or link.going_away:
            raise Conflict(
                "The machine has no link to the gateway right now.",
                code="agent_unlinked",
                hint="It dials in by itself; try again in a moment.",
            )
        return link


@dataclass(slots=True)
class _Opening:
    """What is to be opened, whichever way."""

    link: Link
    target: str
    meta: dict[str, Any]
    interactive: bool
    timeout: float

    async def in_link(self, ticket: bytes | None = None) -> Stream:
        meta = self.meta if ticket is None else {**self.meta, CARRIER: ticket}
        return await self.link.open(
            self.target, meta, interactive=self.interactive, timeout=self.timeout
        )

    async def on_spare(self, pool: SparePool) -> Stream | None:
        """The stream on a connection of its own; None when there is none at hand."""
        spare = pool.take()
        if spare is None:
            return None
        stream = spare.claim()
        try:
            stream.hold(await self.in_link(spare.ticket))
        except OpenRefused as refusal:
            stream.abort()
            if refusal.code == CarrierLost.code:
                return None  # it broke on the way; nothing has been opened yet
            raise
        except BaseException:
            stream.abort()
            raise
        return stream


async def _by_choice(opening: _Opening, pool: SparePool, carrier: CarrierChoice) -> Stream:
    bulk = pool.history.is_bulk(opening.target)
    stream = None
    if carrier == "dedicated" or (carrier == "auto" and bulk and not opening.interactive):
        stream = await opening.on_spare(pool)
    stream = stream or await opening.in_link()
    pool.history.opened(opening.target, stream)
    return stream
