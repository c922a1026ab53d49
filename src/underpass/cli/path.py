"""The way to one machine for commands that stay: a kept link, and streams with chosen layers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from underpass.cli.agent_keys import KeyRefused, PinnedMachine, sealed
from underpass.cli.kept_link import kept_link
from underpass.cli.known_machines import KnownMachines
from underpass.cli.lean_imports import absent
from underpass.cli.options import Connection
from underpass.cli.tunnel_options import TunnelOptions
from underpass.core.errors import UnderpassError

with absent("rich"):
    from underpass.links.client_keeper import ClientKeeper
    from underpass.links.compression import compressed
    from underpass.links.layers import Compression, Layers
    from underpass.links.stream import Stream

__all__ = ["MachinePath", "machine_path"]


@dataclass(frozen=True, slots=True)
class MachinePath:
    """Opens streams to one machine's targets.

    Attributes:
        keeper: the link.
        machine: the machine's id.
        pinned: the same machine, by its key.
        layers: what is put over each stream.
        options: what else was asked for.
        note: told what a person should know, in one line.
    """

    keeper: ClientKeeper
    machine: str
    pinned: PinnedMachine
    layers: Layers
    options: TunnelOptions
    note: Callable[[str], None]
    _key_refused: asyncio.Future[KeyRefused] = field(default_factory=asyncio.Future[KeyRefused])

    async def failed(self) -> UnderpassError:
        """Wait until nothing can be opened any more; why.

        The gateway has refused us for good, or the machine has not proved the key it should
        have: every connection to come would be refused, and somebody has to look at that.
        """
        async with asyncio.TaskGroup() as group:
            refused = group.create_task(self.keeper.failed())
            await asyncio.wait((refused, self._key_refused), return_when=asyncio.FIRST_COMPLETED)
            refused.cancel()  # nothing, if it is done
        return self._key_refused.result() if self._key_refused.done() else refused.result()

    async def open(self, target: str, *, resume: bool = True) -> Stream:
        """A stream to *target*, layers on.

        Args:
            resume: False where surviving makes no sense, whatever was asked for.

        Raises:
            KeyRefused: the machine has not the key it should have; :meth:`failed` ends with it.
            UnderpassError: refused, or no way there.
        """
        meta: dict[str, Any] = {"agent": self.machine, **self.layers.to_meta()}
        if self.options.carrier != "auto":
            meta["carrier"] = self.options.carrier
        stream = await self.keeper.open(target, meta, resume=resume and self.options.resume)
        if self.layers.e2e:
            try:
                stream = await sealed(stream, target=target, machine=self.pinned, note=self.note)
            except KeyRefused as error:
                if not self._key_refused.done():
                    self._key_refused.set_result(error)
                raise
        return compressed(stream, self.layers.compression)


@asynccontextmanager
async def machine_path(
    connection: Connection,
    machine: dict[str, Any],
    options: TunnelOptions,
    note: Callable[[str], None],
    called: str | None = None,
) -> AsyncIterator[MachinePath]:
    """The way to *machine* (as the API describes it), with its first link made.

    Args:
        note: told what a person should know, in one line.
        called: what was typed to mean the machine, if that was not its id.

    Raises:
        KeyRefused: with end-to-end encryption: it is known here by another key than the gateway
            has on record.
        UnderpassError: not signed in, refused, or not reached.
    """
    known = KnownMachines(connection.server)
    pinned_machine = PinnedMachine(machine, known, called, options.agent_key)
    if options.e2e:
        pinned_machine.expected()
    layers = Layers(cast("Compression", options.compression), options.e2e)
    async with kept_link(connection, options.transport) as keeper:
        yield MachinePath(keeper, str(machine["id"]), pinned_machine, layers, options, note)
