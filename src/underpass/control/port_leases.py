"""Which ports mappings may have, and who has which: one row per port, as long as the mapping lives.

The table's primary key decides between two who ask at once; what is here gives the loser a clear
answer, and finds free ports for those who take any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.mapping import GATEWAY, Mapping
from underpass.control.mapping_options import bad
from underpass.core.errors import Conflict, Unavailable
from underpass.core.jitter import Jitter, spread
from underpass.store.db.mapping_models import MappingRow, PortLease

__all__ = ["DEFAULT_PORTS", "PortRules", "group_port", "release", "take", "take_any"]

DEFAULT_PORTS: Final = range(20_000, 30_000)
"""What mappings may take when the settings name no ``port_range``."""


@dataclass(frozen=True, slots=True)
class PortRules:
    """Which ports of the gateway mappings may take.

    Attributes:
        allowed: the range of the settings.
        own_port: gives the gateway's own port, which no mapping gets.
        pick: randomness for ports that nobody asked for by number.
    """

    allowed: range = DEFAULT_PORTS
    own_port: Callable[[], int] = lambda: 0
    pick: Jitter = spread

    def check(self, mapping: Mapping) -> None:
        """See whether the ports *mapping* asks for may be given; agents decide about their own.

        Raises:
            InvalidRequest: one is outside the range or the gateway's own (``port_not_allowed``).
        """
        source = mapping.source
        if source.place != GATEWAY:
            return
        field = "source.port" if source.port_range is None else "source.port_range"
        first, last = self.allowed[0], self.allowed[-1]
        for port in source.ports:
            if port not in self.allowed:
                raise bad(
                    field,
                    f"{port} is not among the ports mappings may take here, {first} to {last}",
                    code="port_not_allowed",
                    hint="Take one of those, or 0 for any; an admin sets them with --port-range.",
                )
            if port == self.own_port():
                raise bad(field, f"{port} is the gateway's own port", code="port_not_allowed")


async def group_port(db: AsyncSession, mapping: Mapping) -> int | None:
    """The port that the other mappings of *mapping*'s group have; ``None`` when it is the first.

    Raises:
        Conflict: *mapping* asks for another one (``group_port``).
    """
    if mapping.group is None:
        return None
    port = await db.scalar(select(MappingRow.source_port).where(*_siblings(mapping)).limit(1))
    if port and mapping.source.port not in {0, port}:
        raise Conflict(
            f"source.port: the group {mapping.group} already comes in at port {port}.",
            code="group_port",
            hint=f"Give {port}, or 0.",
            details={"field": "source.port"},
        )
    return port or None


async def take(db: AsyncSession, mapping: Mapping, now: float) -> None:
    """Lease every port of *mapping*; those it has stay.

    Two who ask at once may both get past the look at the rows; then the commit or flush of one
    raises ``IntegrityError``, and it should try once more to hear why.

    Raises:
        Conflict: another mapping has one (``port_leased``).
    """
    held = {
        (row.transport, row.port): row
        for row in await db.scalars(_leases(mapping, mapping.source.ports))
    }
    for port in mapping.source.ports:  # in order, so that two ranges can't wait for each other
        for transport in mapping.transports:
            lease = held.get((transport, port))
            if lease is None:
                db.add(
                    PortLease(
                        place=mapping.source.place,
                        transport=transport,
                        port=port,
                        mapping_id=mapping.id,
                        user_id=mapping.user_id,
                        group_name=mapping.group,
                        leased_at=now,
                    )
                )
            elif lease.mapping_id != mapping.id and not await _shared(db, lease, mapping):
                whose = "your own" if lease.user_id == mapping.user_id else "somebody else's"
                raise Conflict(
                    f"source.port: port {port} belongs to another mapping, {whose}.",
                    code="port_leased",
                    hint="Take another port, or 0 for any.",
                    details={"field": "source.port", "port": port},
                )
    await db.flush()


async def take_any(
    db: AsyncSession, mapping: Mapping, rules: PortRules, avoid: Collection[int], now: float
) -> Mapping:
    """Lease a free port of the range for a mapping that takes any.

    Args:
        avoid: ports that other programs turned out to have.

    Returns:
        *mapping* with the port in it.

    Raises:
        Unavailable: none is left (``no_free_port``).
    """
    leased = set(
        await db.scalars(
            select(PortLease.port).where(
                PortLease.place == GATEWAY, PortLease.transport.in_(mapping.transports)
            )
        )
    )
    taken = leased | set(avoid) | {rules.own_port()}
    free = [port for port in rules.allowed if port not in taken]
    if not free:
        raise Unavailable(
            f"All ports that mappings may take ({rules.allowed[0]} to {rules.allowed[-1]}) "
            "are in use.",
            code="no_free_port",
            hint="Delete a mapping, or ask an admin for a larger --port-range.",
        )
    chosen = free[min(int(rules.pick(0, len(free))), len(free) - 1)]
    found = mapping.at_port(chosen)
    await take(db, found, now)
    return found


async def release(db: AsyncSession, mapping: Mapping) -> None:
    """Give back every port of *mapping*; a group's port passes to another member.

    Call it before the mapping's row is deleted.
    """
    heir = None
    if mapping.group is not None:
        await db.execute(_leases(mapping, mapping.source.ports))
        heir = await db.scalar(select(MappingRow.id).where(*_siblings(mapping)).limit(1))
    mine = PortLease.mapping_id == mapping.id
    if heir is None:
        await db.execute(delete(PortLease).where(mine))
    else:
        await db.execute(update(PortLease).where(mine).values(mapping_id=heir))


def _leases(mapping: Mapping, ports: range) -> Any:
    return (
        select(PortLease)
        .where(
            PortLease.place == mapping.source.place,
            PortLease.transport.in_(mapping.transports),
            PortLease.port.in_(list(ports)),
        )
        .order_by(PortLease.port)
        .with_for_update()  # a group's port must not be given back while somebody joins
    )


async def _shared(db: AsyncSession, lease: PortLease, mapping: Mapping) -> bool:
    """Whether *lease* is of *mapping*'s own group."""
    if (
        mapping.group is None
        or lease.group_name != mapping.group
        or lease.user_id != mapping.user_id
    ):
        return False
    return mapping.protocol == await db.scalar(
        select(MappingRow.protocol).where(MappingRow.id == lease.mapping_id)
    )


def _siblings(mapping: Mapping) -> list[Any]:
    return [
        MappingRow.user_id == mapping.user_id,
        MappingRow.group_name == mapping.group,
        MappingRow.protocol == mapping.protocol,
        MappingRow.source_kind == "port",
        MappingRow.id != mapping.id,
    ]
