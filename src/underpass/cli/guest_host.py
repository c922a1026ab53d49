"""A guest's offer: this very command is the machine whose port is lent, over its own link."""

from __future__ import annotations

import asyncio
from typing import Any

from underpass.agent.openers import Opener, dispatch
from underpass.agent.openers.tcp import tcp_opener, unix_opener
from underpass.agent.policy import Policy, Rule
from underpass.agent.resumables import Resumables
from underpass.cli.api import Api
from underpass.cli.kept_link import kept_link
from underpass.cli.options import Connection
from underpass.cli.output import Output
from underpass.cli.tunnel_options import Stopping
from underpass.core.errors import Forbidden, Gone, NotFound, UnderpassError
from underpass.links.client_keeper import ClientKeeper
from underpass.links.link import Opening

__all__ = ["lend"]

LOOK_EVERY = 2.0
"""Seconds between looks what has become of the offer."""
_TIMEOUT = 8.0
_POLICY = Policy(allow=(Rule("offer", "tcp"), Rule("offer", "unix")))
"""The person at this command decides what is lent; where clouds keep credentials, nobody does."""


class _Lent:
    """Opens the one target that is lent, and nothing else."""

    def __init__(self, resumables: Resumables) -> None:
        self.target: str | None = None
        self._opener: Opener = dispatch(
            {
                "tcp": resumables.wrap(tcp_opener(_POLICY)),
                "unix": resumables.wrap(unix_opener(_POLICY)),
            }
        )

    async def __call__(self, opening: Opening) -> None:
        if self.target is None or opening.target != self.target:
            raise Forbidden("This is not what is lent here.", code="policy_denied")
        await self._opener(opening)


async def lend(
    stopping: Stopping, connection: Connection, wanted: dict[str, Any], output: Output
) -> None:
    """Offer *wanted* as the guest of *connection*, and serve it until it ends or we are told to.

    Raises:
        Gone: the offer has expired or was revoked, or the gateway forgot it.
        UnderpassError: the gateway refuses, or is not reached.
    """
    resumables = Resumables()
    lent = _Lent(resumables)
    try:
        async with kept_link(connection, on_open=lent) as keeper:
            made = await asyncio.to_thread(_post, connection, wanted)
            lent.target = str(made["target"])
            command = f"underpass --server {connection.server} accept {made['code']}"
            output.value({**made, "command": command}, command)
            output.note(
                f"{made['target']} of this machine: the code works once, until"
                f" {made['expires_at']}. This command carries it; Ctrl-C ends it."
            )
            try:
                await stopping.wait(_end(connection, made["id"], keeper, output))
            finally:
                await asyncio.to_thread(_revoke, connection, made["id"], output)
    finally:
        await resumables.close()


async def _end(
    connection: Connection, offer_id: str, keeper: ClientKeeper, output: Output
) -> UnderpassError:
    """Wait until the offer, or our link, is over for good; how."""
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(keeper.failed())
        ended = group.create_task(_ended(connection, offer_id, output))
        done, rest = await asyncio.wait((refused, ended), return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
    return done.pop().result()


async def _ended(connection: Connection, offer_id: str, output: Output) -> UnderpassError:
    told = False
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            found = await asyncio.to_thread(_read, connection, offer_id)
        except NotFound:
            return Gone("The gateway has forgotten the offer.", code="offer_forgotten")
        except UnderpassError:
            continue  # a gateway that is away for a moment
        if found["status"] == "accepted" and not told:
            told = True
            output.note(f"Accepted by {found['accepted_by']}, until {found['expires_at']}.")
        elif found["status"] in {"expired", "revoked"}:
            return Gone(f"The offer has ended: {found['status']}.", code=f"offer_{found['status']}")


def _post(connection: Connection, wanted: dict[str, Any]) -> dict[str, Any]:
    with Api(connection) as api:
        return api.post("/api/v1/offers", **wanted)


def _read(connection: Connection, offer_id: str) -> dict[str, Any]:
    with Api(connection, timeout=_TIMEOUT) as api:
        return api.get(f"/api/v1/offers/{offer_id}")


def _revoke(connection: Connection, offer_id: str, output: Output) -> None:
    try:
        with Api(connection, timeout=_TIMEOUT) as api:
            if api.delete(f"/api/v1/offers/{offer_id}")["status"] == "revoked":
                output.note("Revoked.")
    except UnderpassError:
        pass  # it ends by itself: nobody serves it any more
