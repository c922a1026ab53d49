"""Keeps the entry points equal to the stored mappings: opened at the start and as they are made,
changed while they run, tried again when a port was not to be had, counted, and cut in time.

Opening and changing only touch sockets and memory, so there is nothing to undo half way; what they
decide is serialised per mapping by ``control.mappings``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.live import LiveBus
from underpass.control.mapping import Mapping, MappingLive
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Unavailable, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.gateway.config_push import ConfigPush, ListenState
from underpass.gateway.entrypoints.doorway import Doorway
from underpass.gateway.entrypoints.entry_point import EntryPoint, Surroundings
from underpass.gateway.entrypoints.health_news import HealthNews
from underpass.gateway.entrypoints.permission import takes_rights
from underpass.gateway.entrypoints.probes import Probes
from underpass.gateway.entrypoints.socks5 import Socks5EntryPoint, check_open
from underpass.gateway.entrypoints.tcp import TcpEntryPoint
from underpass.gateway.entrypoints.udp import UdpEntryPoint
from underpass.gateway.registry import LinkRegistry
from underpass.gateway.usage_book import UsageBook, UsageRows
from underpass.links.ports import addresses_of

__all__ = ["FLUSH", "RECHECK", "TICK", "Tunnels"]

_log = structlog.get_logger(__name__)

TICK: Final = 1.0
"""Seconds between two looks at what passes."""
FLUSH: Final = 10.0
"""Seconds after which what has passed is written to the rows."""
RECHECK: Final = 2.5
"""Seconds between two looks at the owners' permissions, when no news comes earlier."""
FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 60.0
STOP_TIMEOUT: Final = 5.0
"""Seconds for the totals that are being written, and again for the last ones, at the end."""
LISTEN_TIMEOUT: Final = 5.0
"""Seconds an agent gets to say whether it listens; later, its word still counts."""
_DATABASE: Final = (UnderpassError, SQLAlchemyError, OSError, TimeoutError)

_KINDS: Final[dict[str, type[EntryPoint]]] = {
    "tcp": TcpEntryPoint,
    "unix": TcpEntryPoint,
    "udp": UdpEntryPoint,
    "socks5": Socks5EntryPoint,
}


class MappingsLike(UsageRows, Protocol):
    """Where mappings are stored (``control.mappings.Mappings``)."""

    async def active(self) -> list[Mapping]: ...

    async def set_status(
        self, mapping_id: str, status: Literal["active", "error"], error: str | None = None
    ) -> bool: ...


@dataclass(slots=True)
class _Open:
    entry: EntryPoint
    key: tuple[str, ...]


@dataclass(slots=True)
class _Retry:
    mapping: Mapping
    wait: float
    at: float


class Tunnels:
    """The entry points of this node (``control.mapping.EntryPoints``).

    Args:
        mappings: what there should be.
        surroundings: what entry points work with.
        bus: news that take rights away.
        clock: where the time comes from.
        registry: the agents' links, for mappings whose source is an agent.
        own_address: the address the gateway listens on.
    """

    def __init__(
        self,
        mappings: MappingsLike,
        surroundings: Surroundings,
        *,
        bus: LiveBus,
        clock: Clock,
        registry: LinkRegistry,
        own_address: str = "0.0.0.0",
    ) -> None:
        self._mappings = mappings
        self._around = surroundings
        self._bus = bus
        self._clock = clock
        self._own_address = own_address
        self._open: dict[str, _Open] = {}
        self._doors: dict[tuple[str, ...], Doorway] = {}
        self._failed: dict[str, _Retry] = {}
        self._states: dict[str, ListenState] = {}
        self.config_push = ConfigPush(registry, self._heard)
        self.probes = Probes(
            surroundings.router, surroundings.rights, clock, HealthNews(surroundings.refusals, bus)
        )
        self._usage = UsageBook(mappings)
        self._supervisor = Supervisor("tunnels")

    def __len__(self) -> int:
        """How many mappings are open."""
        return len(self._open)

    @property
    def active(self) -> int:
        """How many connections, flows and associations there are in all."""
        return sum(each.entry.active for each in self._open.values())

    # -- the node's life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything that should be; what can't be is marked, and tried again and again.

        Raises:
            SQLAlchemyError: the mappings can't be read.
        """
        with self.config_push.holding():
            for mapping in await self._mappings.active():
                await self._try(mapping)
        self._supervisor.start(self._keep(), "keep")
        self._supervisor.start(self._watch(), "watch")

    async def stop(self) -> None:
        """Give all ports back, end everything, write what has passed. Idempotent."""
        try:
            # Not while totals are being written: nobody would know whether they were.
            async with asyncio.timeout(STOP_TIMEOUT), self._usage.writing:
                await self._supervisor.close()
        except TimeoutError:
            await self._supervisor.close()
        await self.probes.stop()
        await self.config_push.stop()
        self._failed.clear()
        for door in self._doors.values():
            door.close()
        self._doors.clear()
        still_open = [each.entry for each in self._open.values()]
        self._open.clear()
        async with asyncio.TaskGroup() as group:
            for entry in still_open:
                group.create_task(self._close(entry, "The gateway is shutting down."))
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                for entry in still_open:
                    await self._usage.write(entry)
        except TimeoutError:
            _log.error("usage_lost", waited=STOP_TIMEOUT)

    # -- EntryPoints ----------------------------------------------------------------------------

    async def open(self, mapping: Mapping) -> Mapping:
        """See :class:`underpass.control.mapping.EntryPoints`."""
        if mapping.id in self._open:
            return await self.change(mapping)
        addresses = self._addresses(mapping)
        if mapping.source.agent_id is not None:
            return await self._open_at_agent(mapping, mapping.source.agent_id)
        key = _key(mapping)
        door = self._doors.get(key)
        if door is None:
            door = Doorway(mapping, addresses, self._around.router.is_linked, self.probes.is_down)
            self._doors[key] = door
        if mapping.source.port != door.port:
            mapping = mapping.at_port(door.port)
        entry = _KINDS[mapping.protocol](mapping, self._around)
        door.add(entry)
        self._open[mapping.id] = _Open(entry, key)
        self.probes.put(mapping)
        self._failed.pop(mapping.id, None)
        metrics.MAPPINGS.labels(mapping.protocol).inc()
        return mapping

    async def change(self, mapping: Mapping) -> Mapping:
        """See :class:`underpass.control.mapping.EntryPoints`."""
        found = self._open.get(mapping.id)
        if found is None:
            return await self.open(mapping)
        self._addresses(mapping)
        if mapping.source.agent_id is not None:
            self.config_push.put(mapping.source.agent_id, mapping)
        found.entry.change(mapping)
        self.probes.put(mapping)
        return mapping

    async def close(self, mapping_id: str, reason: str) -> None:
        """See :class:`underpass.control.mapping.EntryPoints`."""
        self._failed.pop(mapping_id, None)
        self.probes.remove(mapping_id)
        found = self._open.pop(mapping_id, None)
        if found is None:
            return
        agent_id = found.entry.mapping.source.agent_id
        if agent_id is not None:
            self.config_push.remove(agent_id, mapping_id)
            await self._end(found.entry, reason)
            return
        door = self._doors[found.key]
        door.remove(found.entry)
        if not len(door):
            door.close()
            del self._doors[found.key]
        await self._end(found.entry, reason)

    def live(self, mapping_id: str) -> MappingLive:
        """See :class:`underpass.control.mapping.EntryPoints`."""
        found = self._open.get(mapping_id)
        if found is None:
            return MappingLive()
        return replace(found.entry.live(), health=self.probes.status(mapping_id))

    def _addresses(self, mapping: Mapping) -> tuple[str, ...]:
        """Where *mapping* is listened for.

        Raises:
            Forbidden: code ``login_needed``.
        """
        own = self._own_address if mapping.source.kind == "port" else "127.0.0.1"
        addresses = addresses_of(mapping.source.bind, own)
        if mapping.protocol == "socks5":
            for address in addresses:
                check_open(mapping, address)
        return addresses

    # -- at agents ------------------------------------------------------------------------------

    def at_agent(self, mapping_id: str, agent_id: str) -> EntryPoint | None:
        """The entry point of a mapping whose source is that very agent."""
        found = self._open.get(mapping_id)
        if found is None or found.entry.mapping.source.agent_id != agent_id:
            return None
        return found.entry

    async def _open_at_agent(self, mapping: Mapping, agent_id: str) -> Mapping:
        """Have an agent listen. One that is away will when it comes back; one that says that it
        can't leaves the mapping in status ``error``, and tries again by itself."""
        able = self.config_push.can_listen(agent_id)
        if able is False:
            raise Unavailable(
                "The agent of the machine that should listen is too old for that.",
                code="source_not_offered", hint="Update it.",
            )  # fmt: skip
        if able is None and not mapping.source.port:
            raise Conflict(
                "The machine that should listen has no link, so it can't pick a port.",
                code="agent_unlinked", hint="Name the port, or wait until the machine is there.",
            )  # fmt: skip
        entry = _KINDS[mapping.protocol](mapping, self._around)
        self._open[mapping.id] = _Open(entry, ())
        self.probes.put(mapping)
        self._failed.pop(mapping.id, None)
        metrics.MAPPINGS.labels(mapping.protocol).inc()
        try:
            return await self._settle(entry, agent_id, able=able is True)
        except BaseException:
            self.probes.remove(mapping.id)
            if self._open.pop(mapping.id, None) is not None:
                self.config_push.remove(agent_id, mapping.id)
                await self._end(entry, "The agent can't listen.")
            raise

    async def _settle(self, entry: EntryPoint, agent_id: str, *, able: bool) -> Mapping:
        mapping = entry.mapping
        if not able or self.config_push.held:
            self.config_push.put(agent_id, mapping)
            return mapping
        state = await self.config_push.settle(agent_id, mapping, LISTEN_TIMEOUT)
        if state is not None and state.port is not None:
            entry.mapping = mapping.at_port(state.port)
            self.config_push.put(agent_id, entry.mapping)  # a port that was picked is kept
            return entry.mapping
        error = "The machine that should listen did not answer." if state is None else state.error
        if not mapping.source.port:
            raise Unavailable(error or "The machine can't listen.", code="listen_failed")
        return mapping if state is None else replace(mapping, status="error", error=error)

    def _heard(self, agent_id: str, mapping_id: str, state: ListenState) -> None:
        entry = self.at_agent(mapping_id, agent_id)
        if entry is not None:
            self._states[mapping_id] = state

    async def tell_states(self) -> None:
        """Keep what agents have said of their ports since the last time."""
        states, self._states = self._states, {}
        for mapping_id, state in states.items():
            if mapping_id in self._open:
                await self._tell(mapping_id, "error" if state.error else "active", state.error)

    async def _end(self, entry: EntryPoint, reason: str) -> None:
        await self._close(entry, reason)
        await self._usage.write(entry)

    @staticmethod
    async def _close(entry: EntryPoint, reason: str) -> None:
        try:
            await entry.close(reason)
        finally:
            metrics.MAPPINGS.labels(entry.mapping.protocol).dec()

    # -- trying again ---------------------------------------------------------------------------

    async def _try(self, mapping: Mapping, wait: float = FIRST_RETRY) -> None:
        """Open *mapping*, or note why not and when to try again."""
        try:
            await self.open(mapping)
        except UnderpassError as error:
            _log.warning("mapping_not_open", mapping=mapping.id, error=str(error), retry_in=wait)
            later = self._clock.monotonic() + wait
            self._failed[mapping.id] = _Retry(mapping, min(2 * wait, LONGEST_RETRY), later)
            await self._tell(mapping.id, "error", error.message)
        else:
            # What is listened for elsewhere works when that agent says so.
            here = mapping.source.kind == "port"
            if here and (mapping.status == "error" or wait > FIRST_RETRY):
                await self._tell(mapping.id, "active")

    async def _tell(
        self, mapping_id: str, status: Literal["active", "error"], error: str | None = None
    ) -> None:
        try:
            await self._mappings.set_status(mapping_id, status, error)
        except _DATABASE as failure:
            _log.error("mapping_status_not_kept", mapping=mapping_id, error=str(failure)[:300])

    async def retry(self) -> None:
        """Try what failed and is due."""
        now = self._clock.monotonic()
        for mapping_id, retry in tuple(self._failed.items()):
            if retry.at <= now and self._failed.get(mapping_id) is retry:
                await self._try(retry.mapping, retry.wait)

    # -- again and again ------------------------------------------------------------------------

    async def _keep(self) -> None:
        flushed = self._clock.monotonic()
        while True:
            await asyncio.sleep(TICK)
            try:
                for each in tuple(self._open.values()):
                    each.entry.tick()
                self.probes.tick()
                await self.retry()
                await self.tell_states()
                if self._clock.monotonic() - flushed >= FLUSH:
                    flushed = self._clock.monotonic()
                    await self.flush()
            except Exception:  # noqa: BLE001 - whatever goes wrong once must not end the keeping
                _log.exception("tunnels_not_kept")

    async def flush(self) -> None:
        """Write what has passed since the last time to the mappings' rows."""
        await self._usage.write_all(each.entry for each in self._open.values())

    async def _watch(self) -> None:
        """Look at the owners' permissions every few seconds and at once when something changed."""
        with self._bus.subscribe(takes_rights, limit=64) as news:
            while True:
                message = await news.next(RECHECK)
                if message is None and news.closed:
                    return
                await self.recheck()

    async def recheck(self) -> None:
        """Cut what owners may not any more."""
        for each in tuple(self._open.values()):
            try:
                await each.entry.recheck()
            except Exception:  # noqa: BLE001 - a database that is away must not end the watch
                _log.exception("recheck_failed", mapping=each.entry.mapping.id)
                await asyncio.sleep(RECHECK / 2)
                return


def _key(mapping: Mapping) -> tuple[str, ...]:
    """What shares a port: the mappings of one owner's group; else only the mapping itself."""
    if mapping.group is None:
        return (mapping.id,)
    return (mapping.user_id, mapping.protocol, mapping.group)
