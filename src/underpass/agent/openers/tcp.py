"""Opens the targets ``tcp:host:port`` and ``unix:path`` on the agent's side."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from underpass.agent.layers import Identity, accept_layers, check_layers
from underpass.agent.openers import Opener
from underpass.agent.openers.destinations import (
    Resolve,
    StreamCount,
    allowed_addresses,
    forbidden,
    parse_target,
    system_resolve,
)
from underpass.agent.policy import Policy
from underpass.core.errors import InvalidRequest, Unavailable
from underpass.links.deadline import Deadline
from underpass.links.link import Opening
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream, connect_tcp, connect_unix

__all__ = ["Resolve", "parse_tcp_target", "system_resolve", "tcp_opener", "unix_opener"]

_log = structlog.get_logger(__name__)

CONNECT_TIMEOUT: Final = 8.0
"""Seconds for resolving and connecting; less than the 10 the opening side waits."""
MAX_STREAMS: Final = 16_384
"""Connections one agent holds at a time."""
_MAX_PLAIN: Final = 1024
"""Targets whose address and permission are remembered."""


def parse_tcp_target(target: str) -> tuple[str, int]:
    """:func:`underpass.agent.openers.destinations.parse_target` for ``tcp``."""
    return parse_target(target, "tcp")


def tcp_opener(
    policy: Policy,
    *,
    identity: Identity | None = None,
    resolve: Resolve = system_resolve,
    connect: Callable[..., Awaitable[SocketStream]] = connect_tcp,
    timeout: float = CONNECT_TIMEOUT,
    max_streams: int = MAX_STREAMS,
) -> Opener:
    """The opener for ``tcp:host:port``.

    Args:
        policy: decides about every address.
        identity: proves who we are on streams encrypted end to end; None refuses those.
        resolve: where names become addresses.
        timeout: seconds for resolving and connecting together.
        max_streams: connections at a time at most.
    """
    count = StreamCount(max_streams)
    # Targets that are addresses, which nobody has to resolve, and that the policy allowed: it
    # never changes, so neither does its answer.
    plain: dict[str, tuple[str, int]] = {}

    async def open_tcp(opening: Opening) -> None:
        target = opening.target
        known = plain.get(target)
        host, port = known or parse_tcp_target(target)
        check_layers(opening, identity)
        with count:
            if known is not None:
                remote = await connect(host, port, timeout)
            else:
                try:
                    with Deadline(timeout):
                        addresses = await allowed_addresses(policy, resolve, "tcp", host, port)
                        remote = await _connect_first(connect, addresses, host, port, timeout)
                except TimeoutError:
                    raise Unavailable(
                        f"{host}:{port} did not answer within {timeout:g} seconds.",
                        code="connect_timeout",
                    ) from None
                if addresses == [host] and _is_address(host):
                    if len(plain) >= _MAX_PLAIN:
                        plain.clear()
                    plain[target] = (host, port)
            await _serve(opening, identity, remote)

    return open_tcp


def unix_opener(
    policy: Policy,
    *,
    identity: Identity | None = None,
    timeout: float = CONNECT_TIMEOUT,
    max_streams: int = MAX_STREAMS,
) -> Opener:
    """The opener for ``unix:path``; links in the path are resolved before the policy decides."""
    count = StreamCount(max_streams)

    async def open_unix(opening: Opening) -> None:
        path = opening.target.partition(":")[2]
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest(
                "The target must be unix: and an absolute path.", code="invalid_target"
            )
        check_layers(opening, identity)
        real = await asyncio.to_thread(os.path.realpath, path)
        decision = policy.decide("unix", path=real)
        if not decision.allowed:
            raise forbidden(opening.target, decision)
        with count:
            await _serve(opening, identity, await connect_unix(real, timeout))

    return open_unix


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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


async def _serve(opening: Opening, identity: Identity | None, remote: SocketStream) -> None:
    try:
        stream = await accept_layers(opening, identity)
    except BaseException:
        remote.abort()
        raise
    user: Any = opening.meta.get("user")
    _log.debug("stream_opened", target=opening.target, user=user)
    await relay(stream, remote)
