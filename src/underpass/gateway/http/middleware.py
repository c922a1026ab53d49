"""What happens to every request before and after its route: proxies, sizes, headers, the log."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from underpass.core.addresses import network_of
from underpass.core.errors import Internal, TooLarge
from underpass.core.logging import redact
from underpass.core.metrics import HTTP_REQUESTS, HTTP_SECONDS
from underpass.gateway.http.envelope import error_response

__all__ = [
    "BODY_TIMEOUT",
    "CONTENT_SECURITY_POLICY",
    "FORWARDED",
    "AccessLog",
    "BodyLimit",
    "ForwardedHeaders",
    "SecurityHeaders",
]

_log = structlog.get_logger(__name__)

FORWARDED: Final = "underpass.forwarded"
"""In the scope: somebody on the way says that the request was forwarded."""

_FORWARDING: Final = frozenset({b"forwarded", b"x-real-ip"})
_SIGNED: Final = frozenset(
    {b"x-underpass-id", b"x-underpass-timestamp", b"x-underpass-nonce", b"x-underpass-signature"}
)
"""The headers of agents' signed requests (spec 7); all others of that prefix are ours to set."""

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",  # the recording player's terminal is WebAssembly
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",  # xterm.js and Mantine set styles on elements
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
)


class ForwardedHeaders:
    """Believes ``X-Forwarded-For``, ``-Proto`` and ``-Host`` of listed proxies only, and takes
    them, and headers only we may set, away from everybody else.

    Args:
        trusted: addresses or networks of proxies.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str] = ()) -> None:
        self._app = app
        self._trusted = [network_of(network) for network in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            self.rewrite(scope)
        await self._app(scope, receive, send)

    def rewrite(self, scope: Scope) -> None:
        """Set ``client``, ``scheme`` and ``host`` of *scope* from what trusted proxies say."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        kept: list[tuple[bytes, bytes]] = []
        forwarded: dict[bytes, list[str]] = {}
        for name, value in headers:
            if name.startswith(b"x-forwarded-") or name in _FORWARDING:
                forwarded.setdefault(name, []).append(value.decode("latin-1"))
            elif not name.startswith(b"x-underpass-") or name in _SIGNED:
                kept.append((name, value))
        client = scope.get("client")
        if forwarded:
            scope[FORWARDED] = True
            if client is not None and self._is_trusted(client[0]):
                kept = self._believe(scope, kept, forwarded)
        if len(kept) != len(headers) or forwarded:
            scope["headers"] = kept

    def _believe(
        self, scope: Scope, kept: list[tuple[bytes, bytes]], forwarded: dict[bytes, list[str]]
    ) -> list[tuple[bytes, bytes]]:
        # From the right: each proxy appends whom it saw; the first that is no proxy of ours is
        # the client, and what stands left of it is whatever the client made up.
        for hop in reversed(_items(forwarded.get(b"x-forwarded-for", []))):
            address = _address(hop)
            if address is None:
                break
            scope["client"] = (address, 0)
            if not self._is_trusted(address):
                break
        protos = _items(forwarded.get(b"x-forwarded-proto", []))
        if protos and protos[-1].lower() in {"http", "https"}:
            secure = protos[-1].lower() == "https"
            if scope["type"] == "websocket":
                scope["scheme"] = "wss" if secure else "ws"
            else:
                scope["scheme"] = "https" if secure else "http"
        hosts = _items(forwarded.get(b"x-forwarded-host", []))
        if hosts and len(hosts[-1]) <= 255:
            kept = [(name, value) for name, value in kept if name != b"host"]
            kept.append((b"host", hosts[-1].encode("latin-1")))
        return kept

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._trusted)


BODY_TIMEOUT: Final = 30.0
"""Seconds in which a request's body must have come; ours are small."""


class BodyLimit:
    """Refuses request bodies that are too large, by what they announce and by what they are, and
    those that do not come to an end: who sends a byte now and then must not hold a connection.

    Args:
        limit: bytes.
        timeout: seconds from the head to the body's last byte.
    """

    def __init__(self, app: ASGIApp, limit: int, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length")
        if announced is not None and announced.isdigit() and int(announced) > self._limit:
            response = error_response(TooLarge(self._text()))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        received = 0
        deadline: float | None = asyncio.get_running_loop().time() + self._timeout

        async def limited() -> Message:
            nonlocal received, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, "The body did not come in time.", {"Connection": "close"}
                ) from None
            if message["type"] != "http.request" or not message.get("more_body", False):
                deadline = None  # what comes now is the end of the connection: no hurry
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._limit:
                    # The framework's own error: it passes through its body parsing unchanged.
                    raise HTTPException(413, self._text())
            return message

        await self._app(scope, limited, send)

    def _text(self) -> str:
        return f"The body is larger than {self._limit} bytes."


class SecurityHeaders:
    """Adds the headers that make browsers careful, unless the route has set its own.

    Args:
        hsts: tell browsers to use TLS only; not with a self-made certificate, whose warning could
            then not be passed.
    """

    def __init__(self, app: ASGIApp, hsts: bool = False) -> None:
        self._app = app
        self._hsts = hsts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS:
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
                if self._hsts and scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, with_headers)


class AccessLog:
    """Logs and counts requests, and turns a bug into a 500 that says nothing.

    The query never reaches the log: tickets of bare WebSocket clients are in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._websocket(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # noqa: BLE001 - the last place before uvicorn, which would log the query
            _log.error("request_failed", path=_path(scope), method=scope["method"], exc_info=True)
            if status == 0:
                error = Internal("Something went wrong on our side; the log has the details.")
                await error_response(error)(scope, receive, watched)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        _log.debug("websocket_opened", path=_path(scope), ip=client[0] if client else None)
        try:
            await self._app(scope, receive, send)
        except Exception:  # noqa: BLE001 - as above
            _log.error("websocket_failed", path=_path(scope), exc_info=True)
        finally:
            HTTP_REQUESTS.labels("WEBSOCKET", _route(scope), "101").inc()

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], _route(scope)
        known = method if method in _METHODS else "OTHER"
        HTTP_REQUESTS.labels(known, route, str(status)).inc()
        HTTP_SECONDS.labels(route).observe(seconds)
        quiet = status < 400 and method in {"GET", "HEAD"}
        log = _log.debug if quiet else _log.warning if status >= 500 else _log.info
        client = scope.get("client")
        log(
            "http_request",
            method=known,
            path=_path(scope),
            status=status,
            ms=round(seconds * 1000, 1),
            ip=client[0] if client else None,
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _path(scope: Scope) -> str:
    return redact(str(scope["path"]))[:300]


def _route(scope: Scope) -> str:
    """The route's template, never the path: labels must not grow with what people ask for."""
    return str(getattr(scope.get("route"), "path", "other"))


def _items(values: list[str]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def _address(hop: str) -> str | None:
    """The address in one element of X-Forwarded-For, with or without a port."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
