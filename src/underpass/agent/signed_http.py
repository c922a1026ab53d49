"""An agent's requests to the gateway over plain HTTPS: pinned, bounded, signed where it must be."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec

from underpass.agent.corrected_clock import CorrectedClock
from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.trust import client_context
from underpass.wire.signatures import sign_body, sign_headers

__all__ = ["GatewayRefused", "GatewayUnreachable", "SignedHttp"]

TIMEOUT = 10.0
MAX_ANSWER = 1024 * 1024


class GatewayUnreachable(Unavailable):
    """No answer: the network, the certificate, or something that is no Underpass gateway."""

    code = "gateway_unreachable"


class GatewayRefused(UnderpassError):
    """The gateway answered with an error; ``code``, ``status``, ``details`` are its own."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None) -> None:
        known = {"success", "code", "message", "hint", "retry_after"}
        super().__init__(
            str(body.get("message") or f"The gateway answered {status}.")[:500],
            code=str(body.get("code") or "http_error")[:64],
            hint=str(body["hint"])[:500] if body.get("hint") else None,
            retry_after=retry_after,
            details={key: value for key, value in body.items() if key not in known},
        )
        self.status = status


class SignedHttp:
    """A client of one gateway. Close it with :meth:`close`.

    Args:
        server: the gateway's URL.
        clock: gives timestamps.
        agent_id: ours.
        secret: gives our secret when a request has to be signed.
        fingerprint: believe only the certificate with this fingerprint; it is checked inside the
            TLS handshake, before a byte of ours is sent. ``SSL_CERT_FILE`` is honoured without.
        transport: for tests.
    """

    def __init__(
        self,
        server: str,
        clock: CorrectedClock,
        *,
        agent_id: str,
        secret: Callable[[], bytes | None],
        fingerprint: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.clock = clock
        self._agent_id = agent_id
        self._secret = secret
        self._client = httpx.AsyncClient(
            base_url=self.server,
            verify=client_context(fingerprint),
            timeout=TIMEOUT,
            follow_redirects=False,
            transport=transport,
            headers={"User-Agent": "underpass-agent", "Accept": "application/json"},
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=1),
        )

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send JSON, get JSON.

        Raises:
            GatewayRefused: an answer other than 2xx.
            GatewayUnreachable: no usable answer within 10 s.
        """
        return await self._send("POST", path, content=msgspec.json.encode(body))

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """Ask without signing; raises as :meth:`post`."""
        return await self._send("GET", path, params=dict(params))

    async def signed_post(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Send *fields* with id, timestamp, nonce and signature; raises as :meth:`post`."""
        return await self.post(path, self.sign("POST", path, fields))

    async def signed_get(self, path_query: str) -> Any:
        """Ask with the ``X-Underpass-*`` headers; the JSON of the answer, whatever its kind.

        Raises:
            GatewayRefused, GatewayUnreachable: as :meth:`post`.
        """
        return await self._send(
            "GET", path_query, headers=self.headers("GET", path_query), any=True
        )

    def sign(self, method: str, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """*fields* as a signed body (spec 7, Signatures)."""
        stamped = {
            **fields,
            "id": self._agent_id,
            "timestamp": self.clock.stamp(),
            "nonce": secrets.token_hex(16),
        }
        return sign_body(self._key(), method, path, stamped)

    def headers(self, method: str, path_query: str) -> dict[str, str]:
        """The headers of a signed request without body; for WebSockets, too."""
        return sign_headers(
            self._key(),
            method,
            path_query,
            agent_id=self._agent_id,
            timestamp=self.clock.now(),
            nonce=secrets.token_hex(16),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _key(self) -> bytes:
        secret = self._secret()
        if secret is None:
            raise Unavailable("This agent is not enrolled.", code="not_enrolled")
        return secret

    async def _send(self, method: str, path: str, *, any: bool = False, **options: Any) -> Any:  # noqa: A002
        try:
            async with self._client.stream(method, path, **options) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise GatewayUnreachable("The gateway's answer is too large.")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise GatewayUnreachable(
                f"The gateway {self.server} cannot be reached: {reason[:300]}."
            ) from error
        try:
            value = msgspec.json.decode(bytes(body))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = None
        if response.is_success and (any or isinstance(value, dict)) and value is not None:
            return value
        if isinstance(value, dict) and "code" in value:
            raise GatewayRefused(response.status_code, value, _retry_after(response))
        if response.is_success or response.is_redirect or response.status_code in {404, 405}:
            raise GatewayUnreachable(
                f"At {self.server} is no Underpass gateway.", code="no_gateway"
            )
        raise GatewayRefused(response.status_code, {}, _retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isdigit() else None
