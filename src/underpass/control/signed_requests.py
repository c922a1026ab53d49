"""Agents' signed requests without a body (poll mode): who signed, how old, never seen before."""

from __future__ import annotations

from collections.abc import Mapping

from underpass.control.agent_secrets import AgentSecrets
from underpass.control.nonces import WINDOW, Nonces
from underpass.core.clock import Clock
from underpass.core.errors import NotFound, Unauthenticated
from underpass.wire.signatures import parse_signed_headers, verify_headers

__all__ = ["SignedRequests", "check_clock", "unknown_agent"]


def check_clock(timestamp: float, now: float) -> None:
    """Refuse what was signed more than 120 s ago or ahead.

    Raises:
        Unauthenticated: ``clock_skew``; ``details["server_time"]`` is *now*, so that the agent
            can correct itself once.
    """
    if abs(now - timestamp) > WINDOW:
        ahead = "ahead" if timestamp > now else "behind"
        raise Unauthenticated(
            f"The request's clock is {abs(now - timestamp):.0f} s {ahead}; "
            f"at most {WINDOW:.0f} s are accepted.",
            code="clock_skew",
            hint="Set the machine's clock (NTP).",
            details={"server_time": now},
        )


def unknown_agent() -> NotFound:
    """What an agent hears whose machine was deleted or never let in: enrol (again)."""
    return NotFound(
        "No machine with this id is enrolled here.",
        code="unknown_agent",
        hint="Let the agent enrol again.",
    )


class SignedRequests:
    """Verifies ``X-Underpass-{Id,Timestamp,Nonce,Signature}`` (spec 7, Signatures)."""

    def __init__(self, secrets: AgentSecrets, nonces: Nonces, clock: Clock) -> None:
        self._secrets = secrets
        self._nonces = nonces
        self._clock = clock

    async def verify(self, method: str, path_query: str, headers: Mapping[str, str]) -> str:
        """The id of the agent that signed this request.

        Args:
            method: of the request, e.g. ``GET``.
            path_query: path and query exactly as they came, e.g. ``/a/b?c=1``.
            headers: looked up in lower case.

        Raises:
            Unauthenticated: ``unsigned``, ``clock_skew`` or ``bad_signature``.
            NotFound: ``unknown_agent``.
            Conflict: ``replayed``.
        """
        signed = parse_signed_headers(headers)
        check_clock(signed.timestamp, self._clock.now())
        secret = await self._secrets.of(signed.id)
        if secret is None:
            raise unknown_agent()
        verify_headers(secret, method, path_query, signed)
        await self._nonces.burn("request", signed.id, signed.nonce)
        return signed.id
