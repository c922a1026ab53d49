"""Opens the target ``pty``: a new terminal session, or one more trunk for a running one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from underpass.agent.terminals.host import TerminalHost
from underpass.agent.terminals.trunk import StreamTrunk
from underpass.links.link import Opening
from underpass.wire.terminal_requests import parse_pty_request

__all__ = ["pty_opener"]


def pty_opener(host: TerminalHost) -> Callable[[Opening], Awaitable[None]]:
    """The opener for sessions of *host*; its refusals are what :meth:`TerminalHost.prepare` raises.

    The link cancels an opener when it ends; that detaches the session, nothing more.
    """

    async def open_pty(opening: Opening) -> None:
        request = parse_pty_request(opening.meta)
        session = await host.prepare(request)
        await host.serve(session, StreamTrunk(opening.accept()), request.offset)

    return open_pty
