"""Opens the targets ``tcp:host:port`` and ``unix:path`` on the agent's side.

A name is resolved first, the policy decides about each address, and exactly the address it allowed
is dialled: whoever controls the name's DNS gains nothing by changing it in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from underpass.agent.openers import Opener
from underpass.agent.policy import Decision, Policy
from underpass.core.errors import Forbidden, InvalidRequest, TooManyRequests, Unavailable
from underpass.links.link import Opening
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream, connect_tcp, connect_unix

__all__ = ["Resolve", "parse_tcp_target", "tcp_opener", "unix_opener"]

_log = structlog.get_logger(__name__)

CONNECT_TIMEOUT: Final = 8.0
"""Seconds for resolving and connecting; less than the 10 the opening side waits."""
MAX_STREAMS: Final = 16_384
"""Connections one agent holds at a time."""
_MAX_ADDRESSES: Final = 8

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives a host's addresses, the preferred one first."""


async def system_resolve(host: str, port: int) -> list[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def parse_tcp_target(target: str) -> tuple[str, int]:
    """Host and port of ``tcp:host:port``; IPv6 addresses stand in brackets.

    Raises:
        InvalidRequest: it is none.
    """
    kind, _, rest = target.partition(":")
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if (
        kind != "tcp" or not colon or not digits or not 1 <= int(port) <= 65535
        or not host or len(host) > 253 or any(c.isspace() or ord(c) < 33 for c in host)
    ):  # fmt: skip
        raise InvalidRequest(
            "The target must be tcp:HOST:PORT, IPv6 in brackets.", code="invalid_target"
        )
    return host, int(port)


class _Count:
    """How many streams of all socket openers are open."""

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


def tcp_opener(
    policy: Policy,
    *,
    resolve: Resolve = system_resolve,
    connect: Callable[..., Awaitable[SocketStream]] = connect_tcp,
    timeout: float = CONNECT_TIMEOUT,
    max_streams: int = MAX_STREAMS,
) -> Opener:
    """The opener for ``tcp:host:port``.

    Args:
        policy: decides about every address.
        resolve: where names become addresses.
        timeout: seconds for resolving and connecting together.
        max_streams: connections at a time at most.
    """
    count = _Count(max_streams)

    async def open_tcp(opening: Opening) -> None:
        host, port = parse_tcp_target(opening.target)
        with count:
            try:
                async with asyncio.timeout(timeout):
                    addresses = await _allowed(policy, resolve, host, port)
                    remote = await _connect_first(connect, addresses, host, port, timeout)
            except TimeoutError:
                raise Unavailable(
                    f"{host}:{port} did not answer within {timeout:g} seconds.",
                    code="connect_timeout",
                ) from None
            await _serve(opening, remote)

    return open_tcp


def unix_opener(
    policy: Policy, *, timeout: float = CONNECT_TIMEOUT, max_streams: int = MAX_STREAMS
) -> Opener:
    """The opener for ``unix:path``; links in the path are resolved before the policy decides."""
    count = _Count(max_streams)

    async def open_unix(opening: Opening) -> None:
        path = opening.target.partition(":")[2]
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest(
                "The target must be unix: and an absolute path.", code="invalid_target"
            )
        real = await asyncio.to_thread(os.path.realpath, path)
        decision = policy.decide("unix", path=real)
        if not decision.allowed:
            raise _forbidden(opening.target, decision)
        with count:
            await _serve(opening, await connect_unix(real, timeout))

    return open_unix


async def _allowed(policy: Policy, resolve: Resolve, host: str, port: int) -> list[str]:
    try:
        addresses = (await resolve(host, port))[:_MAX_ADDRESSES]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no valid name"
        raise Unavailable(
            f"{host!r} can't be resolved on the machine: {reason}.", code="resolve_failed"
        ) from None
    decisions = [policy.decide("tcp", host=host, address=at, port=port) for at in addresses]
    allowed = [at for at, decision in zip(addresses, decisions, strict=True) if decision.allowed]
    if not allowed:
        if not decisions:
            raise Unavailable(f"{host!r} has no address.", code="resolve_failed")
        raise _forbidden(f"tcp:{host}:{port}", decisions[0])
    return allowed


async def _connect_first(
    connect: Callable[..., Awaitable[SocketStream]],
    addresses: list[str],
    host: str,
    port: int,
    timeout: float,
) -> SocketStream:
    failure: Unavailable | None = None
    for address in addresses:
        try:
            return await connect(address, port, timeout)
        except Unavailable as error:
            failure = failure or error
    assert failure is not None
    shown = failure.message.replace(f"{addresses[0]}:{port}", f"{host}:{port}", 1)
    raise Unavailable(shown, code=failure.code)


async def _serve(opening: Opening, remote: SocketStream) -> None:
    try:
        stream = opening.accept()
    except BaseException:
        remote.abort()
        raise
    user: Any = opening.meta.get("user")
    _log.debug("stream_opened", target=opening.target, user=user)
    await relay(stream, remote)


def _forbidden(target: str, decision: Decision) -> Forbidden:
    return Forbidden(
        f"The machine's policy does not allow {target}: {decision.why}",
        code="policy_denied",
        hint="The machine's owner can allow it in the agent's policy file.",
    )
