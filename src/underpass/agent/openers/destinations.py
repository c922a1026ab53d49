"""Where a socket opener may go: a target's host is resolved first, the policy decides about each
address, and exactly the addresses it allowed are used: whoever controls the name's DNS gains
nothing by changing it in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from underpass.agent.policy import Decision, Policy
from underpass.core.errors import Forbidden, InvalidRequest, TooManyRequests, Unavailable

__all__ = [
    "Resolve",
    "StreamCount",
    "allowed_addresses",
    "forbidden",
    "parse_target",
    "system_resolve",
]

_MAX_ADDRESSES: Final = 8

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives a host's addresses, the preferred one first."""


async def system_resolve(host: str, port: int) -> list[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def parse_target(target: str, kind: Literal["tcp", "udp"]) -> tuple[str, int]:
    """Host and port of ``kind:host:port``; IPv6 addresses stand in brackets.

    Raises:
        InvalidRequest: it is none.
    """
    given, _, rest = target.partition(":")
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if (
        given != kind or not colon or not digits or not 1 <= int(port) <= 65535
        or not host or len(host) > 253 or any(c.isspace() or ord(c) < 33 for c in host)
    ):  # fmt: skip
        raise InvalidRequest(
            f"The target must be {kind}:HOST:PORT, IPv6 in brackets.", code="invalid_target"
        )
    return host, int(port)


class StreamCount:
    """How many streams of an opener are open; a context for each of them.

    Args:
        limit: how many at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0

    def __enter__(self) -> None:
        if self.now >= self.limit:
            raise TooManyRequests(
                f"This machine already holds {self.now} connections, its limit.",
                code="too_many_streams",
                retry_after=5,
            )
        self.now += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


async def allowed_addresses(
    policy: Policy, resolve: Resolve, kind: Literal["tcp", "udp"], host: str, port: int
) -> list[str]:
    """The addresses of *host* that *policy* allows, the preferred one first.

    Raises:
        Forbidden: code ``policy_denied``: it allows none.
        Unavailable: code ``resolve_failed``.
    """
    try:
        addresses = (await resolve(host, port))[:_MAX_ADDRESSES]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no valid name"
        raise Unavailable(
            f"{host!r} can't be resolved on the machine: {reason}.", code="resolve_failed"
        ) from None
    decisions = [policy.decide(kind, host=host, address=at, port=port) for at in addresses]
    allowed = [at for at, decision in zip(addresses, decisions, strict=True) if decision.allowed]
    if not allowed:
        if not decisions:
            raise Unavailable(f"{host!r} has no address.", code="resolve_failed")
        raise forbidden(f"{kind}:{host}:{port}", decisions[0])
    return allowed


def forbidden(target: str, decision: Decision) -> Forbidden:
    """What somebody gets who asks for what the policy does not allow."""
    return Forbidden(
        f"The machine's policy does not allow {target}: {decision.why}",
        code="policy_denied",
        hint="The machine's owner can allow it in the agent's policy file.",
    )
