"""What an agent can open: one module per kind of target, one table from kind to opener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from underpass.core.errors import UnderpassError
from underpass.links.link import Opening

__all__ = ["Opener", "UnknownTarget", "dispatch"]

Opener = Callable[[Opening], Awaitable[None]]
"""Answers one opening and stays until its stream is over; what it raises refuses the opening."""


class UnknownTarget(UnderpassError):
    """The agent has no opener for this kind of target."""

    code, status = "unknown_target", 501


def dispatch(openers: Mapping[str, Opener]) -> Opener:
    """One opener that looks at the target's kind (what stands before the first colon)."""

    async def open_any(opening: Opening) -> None:
        kind = opening.target.partition(":")[0]
        opener = openers.get(kind)
        if opener is None:
            raise UnknownTarget(f"This agent does not open {kind[:32]!r} targets.")
        await opener(opening)

    return open_any
