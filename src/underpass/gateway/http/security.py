"""Who is asking, over HTTP and WebSocket alike: cookie or bearer, Origin, CSRF, address.

One function, :func:`authenticate`, serves every route and every socket; there is no second way in.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.responses import Response

from underpass.control.rate_limits import address_key
from underpass.control.subject import Subject
from underpass.core.errors import Forbidden, Unauthenticated
from underpass.core.ids import secrets_equal
from underpass.gateway.services import services_of

__all__ = [
    "COOKIE",
    "COOKIE_INSECURE",
    "CSRF_HEADER",
    "Admin",
    "Auditor",
    "Caller",
    "CodeHolder",
    "address_of",
    "admin",
    "auditor",
    "authenticate",
    "bearer_of",
    "caller",
    "check_origin",
    "clear_login_cookie",
    "cookie_of",
    "limit",
    "origin_of",
    "set_login_cookie",
]

COOKIE = "__Host-underpass"
COOKIE_INSECURE = "underpass"
"""Used only over plain HTTP to a host that is not loopback, where browsers refuse ``Secure``."""
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_TOKEN = 4096
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


async def authenticate(connection: HTTPConnection, *, guests: bool = False) -> Subject:
    """The person behind *connection*, from ``Authorization: Bearer`` or else the login cookie.

    A cookie alone never suffices where a foreign page could have sent it: WebSockets and writes
    need an Origin that is ours, writes also the CSRF token. A bearer token cannot be sent by a
    foreign page, so it may come without an Origin; with a foreign one it is refused all the same.

    Args:
        guests: guests will do, too (:data:`CodeHolder`); anywhere else they get 403.

    Raises:
        Unauthenticated: no credential, or one that is unknown, expired, revoked or disabled.
        Forbidden: the Origin is foreign or missing (``bad_origin``), or the CSRF token is
            (``bad_csrf``).
    """
    services = services_of(connection)
    socket = connection.scope["type"] == "websocket"
    writes = socket or connection.scope["method"] not in SAFE_METHODS
    token = bearer_of(connection)
    if token is not None:
        identity = await services.sign_in.identify(token, guests=guests)
        if writes and "origin" in connection.headers:
            check_origin(connection)
        via = "token"
    else:
        token = cookie_of(connection)
        if token is None:
            raise Unauthenticated("You are not signed in.", hint="Sign in and try again.")
        identity = await services.sign_in.identify(token, cookie=True)
        if writes:
            check_origin(connection)
        if writes and not socket:
            given = connection.headers.get(CSRF_HEADER, "")
            if not secrets_equal(given, identity.csrf_token):
                raise Forbidden(
                    "The CSRF token is missing or wrong.",
                    code="bad_csrf",
                    hint="Send the csrf_token from the login answer as X-CSRF-Token.",
                )
        via = "session"
    user = identity.subject
    return Subject(
        user_id=user.user_id,
        username=user.username,
        role=user.role,
        via=via,
        credential_id=user.credential_id,
        ip=address_of(connection),
    )


async def caller(connection: HTTPConnection) -> Subject:
    """Dependency: whoever is signed in."""
    return await authenticate(connection)


async def code_holder(connection: HTTPConnection) -> Subject:
    """Dependency: whoever is signed in, or a guest."""
    return await authenticate(connection, guests=True)


async def admin(connection: HTTPConnection) -> Subject:
    """Dependency: an admin, else 403."""
    subject = await authenticate(connection)
    if subject.role != "admin":
        raise Forbidden("Only admins may do this.", details={"rule": "role:admin"})
    return subject


async def auditor(connection: HTTPConnection) -> Subject:
    """Dependency: an admin or auditor, else 403."""
    subject = await authenticate(connection)
    if subject.role not in {"admin", "auditor"}:
        raise Forbidden("Only admins and auditors may do this.", details={"rule": "role:auditor"})
    return subject


Caller = Annotated[Subject, Depends(caller)]
CodeHolder = Annotated[Subject, Depends(code_holder)]
"""Only for what guests may do: one-time codes."""
Admin = Annotated[Subject, Depends(admin)]
Auditor = Annotated[Subject, Depends(auditor)]


def bearer_of(connection: HTTPConnection) -> str | None:
    """The token of ``Authorization: Bearer …``, or ``None`` when there is no such header.

    Raises:
        Unauthenticated: the header is there but is not a bearer token; falling back to the cookie
            would answer as somebody other than the sender meant.
    """
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
        raise Unauthenticated(
            "The Authorization header is not a bearer token.",
            hint="Send `Authorization: Bearer <token>`.",
        )
    return token


def cookie_of(connection: HTTPConnection) -> str | None:
    """The login cookie's value, or ``None``."""
    name = COOKIE if _may_be_secure(connection) else COOKIE_INSECURE
    value = connection.cookies.get(name)
    return value if value and len(value) <= _MAX_TOKEN else None


def set_login_cookie(
    response: Response, connection: HTTPConnection, token: str, max_age: float
) -> None:
    """Give the browser its login. ``__Host-`` and ``Secure`` wherever browsers accept them."""
    secure = _may_be_secure(connection)
    response.set_cookie(
        COOKIE if secure else COOKIE_INSECURE,
        token,
        max_age=int(max_age),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def clear_login_cookie(response: Response, connection: HTTPConnection) -> None:
    """Take the login away from the browser."""
    secure = _may_be_secure(connection)
    response.delete_cookie(
        COOKIE if secure else COOKIE_INSECURE,
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def check_origin(connection: HTTPConnection) -> None:
    """Compare Origin with where the request went, exactly: scheme, host and port; fail closed.

    Raises:
        Forbidden: it is missing, ``null``, malformed or foreign (code ``bad_origin``).
    """
    given = connection.headers.get("origin")
    origin = _origin(given) if given else None
    if origin is None or origin not in _own_origins(connection):
        raise Forbidden(
            "The request does not come from this gateway's own pages.",
            code="bad_origin",
            hint="Behind a proxy, set public_url and trusted_proxies.",
        )


def origin_of(connection: HTTPConnection) -> str:
    """Our own address as the other side sees it: ``public_url`` if set, else scheme and Host."""
    configured = services_of(connection).settings.public_url
    if configured:
        return configured
    scheme = "https" if _is_tls(connection) else "http"
    return f"{scheme}://{connection.headers.get('host', 'localhost')}"


def address_of(connection: HTTPConnection) -> str | None:
    """The other side's address; the forwarded-headers middleware has dealt with proxies."""
    return connection.client.host if connection.client else None


async def limit(connection: HTTPConnection, name: str, times: int, period: float) -> None:
    """Refuse the address with 429 when it passes *times* in *period* seconds."""
    await services_of(connection).limits.hit(
        name, address_key(address_of(connection)), times, period
    )


def _own_origins(connection: HTTPConnection) -> set[tuple[str, str, int]]:
    own: set[tuple[str, str, int]] = set()
    host = connection.headers.get("host")
    if host:
        here = _origin(("https" if _is_tls(connection) else "http") + "://" + host)
        if here is not None:
            own.add(here)
    configured = services_of(connection).settings.public_url
    if configured:
        public = _origin(configured)
        if public is not None:
            own.add(public)
    return own


def _origin(text: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.scheme, parts.hostname.lower(), port or _DEFAULT_PORTS[parts.scheme]


def _is_tls(connection: HTTPConnection) -> bool:
    if connection.scope.get("scheme") in {"https", "wss"}:
        return True
    # A TLS proxy that is not listed as trusted still serves our public name over TLS only.
    configured = services_of(connection).settings.public_url or ""
    return configured == "https://" + connection.headers.get("host", "").lower()


def _may_be_secure(connection: HTTPConnection) -> bool:
    if _is_tls(connection):
        return True
    origin = _origin("http://" + connection.headers.get("host", ""))
    return origin is not None and (origin[1] in _LOOPBACK_NAMES or origin[1].endswith(".localhost"))
