"""Listens on this machine for the mappings whose source it is, and opens a stream for each
connection: ``mapping:<id>``, over the link to the gateway, which decides where it leads.

The list of mappings comes from the gateway and is kept current by it (``gateway/config_push.py``).
Where the agent may listen is the policy's to say. A port that is not to be had is tried again
every few seconds. While the link is away the ports stay open and new connections wait a little.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import structlog

from underpass.agent.far_machines import FarMachines
from underpass.agent.listening_port import ListeningPort, Wanted
from underpass.agent.policy import Policy
from underpass.control.agent_config import Change, ConfigFollower, Item
from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.link import Link

__all__ = ["FEATURE", "Listeners"]

_log = structlog.get_logger(__name__)

FEATURE: Final = "listen"
"""What the handshake tells the gateway, which pushes nothing to agents without it."""
RETRY: Final = 10.0
"""Seconds between two tries for a port that was not to be had."""
TICK: Final = 1.0
LINK_WAIT: Final = 5.0
"""Seconds a new connection waits for a link."""
_ASK_TRIES: Final = 3


class Listeners:
    """See the module. :meth:`run` as long as the agent works; :meth:`close` afterwards.

    Args:
        policy: decides where the agent may listen.
        retry: seconds between two tries.
        machines: the keys of machines that connections are encrypted for.
    """

    def __init__(
        self, policy: Policy, *, retry: float = RETRY, machines: FarMachines | None = None
    ) -> None:
        self._policy = policy
        self._retry = retry
        self._machines = machines
        self._config = ConfigFollower()
        self._open: dict[str, ListeningPort] = {}
        self._failed: dict[str, str] = {}
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._supervisor = Supervisor("listeners")

    def __len__(self) -> int:
        """For how many mappings it listens."""
        return len(self._open)

    @property
    def active(self) -> int:
        """Connections and flows (a gauge that must return to zero)."""
        return sum(port.active for port in self._open.values())

    # -- the link ---------------------------------------------------------------------------------

    def prepare(self, link: Link) -> None:
        """Set the handlers on a new link, before it reads anything."""
        link.on_control("config.push", self._pushed)

    async def linked(self, link: Link) -> None:
        """Ask the new link's gateway for what was missed, and tell it how things are."""
        self._link = link
        self._linked.set()
        await self._ask(link)

    async def run(self) -> None:
        """Try again what failed, and let idle flows go, until cancelled."""
        loop = asyncio.get_running_loop()
        tried = loop.time()
        while True:
            await asyncio.sleep(TICK)
            for port in self._open.values():
                port.expire()
            if self._failed and loop.time() - tried >= self._retry:
                self.retry()
            if not self._failed or loop.time() - tried >= self._retry:
                tried = loop.time()

    def retry(self) -> None:
        """Try again to listen for what failed; the gateway hears of what works now."""
        before = dict(self._failed)
        for mapping_id in before:
            item = self._config.items.get(mapping_id)
            if item is not None:
                self._listen(mapping_id, item)
        news = [each for each in before if self._failed.get(each) != before[each]]
        if news:
            self._report(news)

    def forget(self) -> None:
        """Give all ports back: the gateway does not know this machine any more."""
        self._config = ConfigFollower()
        self._failed.clear()
        for mapping_id in tuple(self._open):
            self._stop(mapping_id)

    async def close(self) -> None:
        """Give all ports back and end every connection. Idempotent."""
        await self._supervisor.close()
        ports, self._open = list(self._open.values()), {}
        for port in ports:
            await port.close()

    # -- the list ---------------------------------------------------------------------------------

    async def _pushed(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        taken = self._config.take(body)
        if taken.missing:
            with contextlib.suppress(RuntimeError):  # closed: the agent is on its way out
                self._supervisor.start(self._ask(link), "ask")
        return self._standing(self._apply(taken.changes))

    async def _ask(self, link: Link) -> None:
        for attempt in range(_ASK_TRIES):
            have = {"epoch": self._config.epoch, "version": self._config.version}
            try:
                taken = self._config.take(await link.request("config.get", have), asked=True)
                self._apply(taken.changes)
                await link.request("config.states", self._standing(list(self._config.items)))
            except UnderpassError as error:
                if error.code == "unknown_request" or link.closed:
                    return  # a gateway of an earlier version
                _log.warning("config_not_got", code=error.code, reason=str(error))
                await asyncio.sleep(attempt + 1.0)
            else:
                return

    def _apply(self, changed: tuple[Change, ...]) -> list[str]:
        """Make what listens equal to the list, for the mappings in *changed*; which those are.

        What goes, goes first: what comes may want its port.
        """
        concerned = list(dict.fromkeys(change.id for change in changed))
        for mapping_id in concerned:
            item = self._config.items.get(mapping_id)
            port = self._open.get(mapping_id)
            if port is not None and (item is None or not _serves(port, item)):
                self._stop(mapping_id)
            if item is None:
                self._failed.pop(mapping_id, None)
        for mapping_id in concerned:
            item = self._config.items.get(mapping_id)
            if item is not None:
                self._listen(mapping_id, item)
        return concerned

    def _stop(self, mapping_id: str) -> None:
        port = self._open.pop(mapping_id)
        port.stop()
        with contextlib.suppress(RuntimeError):  # closed: the agent is on its way out
            self._supervisor.start(port.close(), "end connections")

    def _listen(self, mapping_id: str, item: Item) -> None:
        try:
            wanted = Wanted.of(item)
            port = self._open.get(mapping_id)
            if port is not None:
                port.change(wanted)
            else:
                port = ListeningPort(
                    mapping_id, wanted, self._policy, self._get_link, self._machines
                )
                self._open[mapping_id] = port
                _log.info("listening", mapping=mapping_id, name=wanted.name, port=port.port)
        except UnderpassError as error:
            if self._failed.get(mapping_id) != error.message:
                _log.warning("not_listening", mapping=mapping_id, reason=error.message)
            self._failed[mapping_id] = error.message
        else:
            self._failed.pop(mapping_id, None)

    # -- telling the gateway ----------------------------------------------------------------------

    def _standing(self, mapping_ids: list[str]) -> dict[str, Any]:
        states: dict[str, Any] = {}
        for mapping_id in mapping_ids:
            item = self._config.items.get(mapping_id)
            port = self._open.get(mapping_id)
            if item is None:
                continue
            version = item.get("version")
            if mapping_id in self._failed:
                states[mapping_id] = {"version": version, "error": self._failed[mapping_id]}
            elif port is not None:
                states[mapping_id] = {"version": version, "port": port.port}
        return {
            "epoch": self._config.epoch,
            "version": self._config.version,
            "states": states,
        }

    def _report(self, mapping_ids: list[str]) -> None:
        link = self._link
        if link is not None and not link.closed:
            link.notify("config.states", self._standing(mapping_ids))

    async def _get_link(self) -> Link:
        """The live link, or the one that comes soon.

        Raises:
            TimeoutError: none did.
        """
        async with asyncio.timeout(LINK_WAIT):
            while self._link is None or self._link.closed or self._link.going_away:
                self._linked.clear()
                await self._linked.wait()
        return self._link


def _serves(port: ListeningPort, item: Item) -> bool:
    try:
        return port.serves(Wanted.of(item))
    except UnderpassError:
        return False
