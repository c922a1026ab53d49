"""The gateway's HTTP API, as the commands use it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import underpass
from underpass.cli.lean_imports import absent
from underpass.cli.options import Connection
from underpass.core import errors
from underpass.core.errors import NotFound, Unavailable, UnderpassError
from underpass.core.ids import is_id
from underpass.links.trust import CertificateRejected, client_context

with absent("httpx._main"):
    import httpx

__all__ = ["Api", "is_local", "reaching"]

PAGE = 200
MAX_PAGES = 500
"""Listing stops there: a hundred thousand rows are for the API, not for a table."""

_KINDS: dict[int, type[UnderpassError]] = {
    kind.status: kind
    for kind in (
        errors.InvalidRequest, errors.Unauthenticated, errors.Forbidden, errors.NotFound,
        errors.Conflict, errors.Gone, errors.TooLarge, errors.TooManyRequests,
        errors.Unavailable, errors.Internal,
    )
}  # fmt: skip


def is_local(server: str) -> bool:
    """Whether *server* is this machine, to which no proxy leads."""
    host = httpx.URL(server).host
    return host in ("localhost", "::1") or host.startswith("127.")


class Api:
    """A blocking client; use it with ``with``.

    Args:
        connection: where, as whom.
        timeout: seconds for each request.
    """

    def __init__(self, connection: Connection, timeout: float = 20.0) -> None:
        self.connection = connection
        headers = {"User-Agent": f"underpass/{underpass.__version__}"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        verify: ssl.SSLContext | bool = True
        if connection.server.startswith("https"):
            verify = client_context(connection.fingerprint)
        self._client = httpx.Client(
            base_url=connection.server,
            headers=headers,
            verify=verify,
            timeout=timeout,
            trust_env=not is_local(connection.server),
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """Call a route; gives its data, without the envelope.

        Raises:
            UnderpassError: what the gateway answered, as the kind its status says; or
                :class:`Unavailable` when there was no answer of a gateway.
        """
        chosen = {name: value for name, value in (params or {}).items() if value is not None}
        with reaching(self.connection.server):
            answer = self._client.request(method, path, params=chosen, json=body)
        return _data(answer, self.connection.server)

    def get(self, path: str, **params: Any) -> Any:
        """``GET``; parameters that are None are left out."""
        return self.request("GET", path, params=params)

    def post(self, path: str, **body: Any) -> Any:
        """``POST`` with a JSON body."""
        return self.request("POST", path, body=body)

    def delete(self, path: str) -> Any:
        """``DELETE``."""
        return self.request("DELETE", path)

    def patch(self, path: str, **body: Any) -> Any:
        """``PATCH`` with only what changes."""
        return self.request("PATCH", path, body=body)

    def items(self, path: str, limit: int | None = None, **params: Any) -> list[dict[str, Any]]:
        """Every item of a list route, page by page, at most *limit*."""
        found: list[dict[str, Any]] = []
        for page in range(1, MAX_PAGES + 1):
            count = PAGE if limit is None else min(PAGE, limit)
            data = self.get(path, page=page, page_size=count, **params)
            if isinstance(data, list):
                return data[:limit]
            found += data["items"]
            enough = len(found) >= data["total"] or not data["items"]
            if enough or (limit is not None and len(found) >= limit):
                break
        return found[:limit]

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream a body that is not JSON."""
        with (
            reaching(self.connection.server),
            self._client.stream("GET", path) as answer,
        ):
            if answer.is_error:
                answer.read()
                _data(answer, self.connection.server)
            yield answer.iter_bytes()

    def machine(self, name: str) -> dict[str, Any]:
        """The machine called *name* (its name, host name or id).

        Raises:
            NotFound: there is none that this user may see.
            Conflict: several have this host name.
        """
        if is_id(name):
            return self.get(f"/api/v1/assets/{name}")
        machines = self.items("/api/v1/assets", q=name)
        for key in ("name", "hostname"):
            matches = [m for m in machines if str(m.get(key, "")).lower() == name.lower()]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise errors.Conflict(
                    f"{len(matches)} machines have the {key} {name!r}.",
                    code="ambiguous_machine",
                    hint="Use the id; see: underpass machines",
                )
        raise NotFound(
            f"There is no machine called {name!r} that you may see.",
            code="no_such_machine",
            hint="See: underpass machines",
        )


@contextmanager
def reaching(server: str) -> Iterator[None]:
    """Turn httpx's failures into what the person can do about them."""
    try:
        yield
    except httpx.TimeoutException:
        raise Unavailable(
            f"The gateway at {server} did not answer in time.",
            code="timeout",
            hint="Check with: underpass doctor",
        ) from None
    except httpx.TransportError as error:
        raise _explained(error, server) from None
    except httpx.InvalidURL as error:
        raise errors.InvalidRequest(f"{server!r} is not an address: {error}.") from None


def _explained(error: httpx.TransportError, server: str) -> UnderpassError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CertificateRejected):
            return cause
        if isinstance(cause, ssl.SSLCertVerificationError):
            if isinstance(cause.__cause__, CertificateRejected):
                return cause.__cause__
            return CertificateRejected(
                f"The certificate of {server} is not believed: {cause.verify_message}.",
                hint="Give --fingerprint for a self-made one, or SSL_CERT_FILE.",
            )
        cause = cause.__cause__ or cause.__context__
    reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return Unavailable(
        f"The gateway at {server} cannot be reached: {reason}.",
        code="unreachable",
        hint="Is it running, and is the address right? Check with: underpass doctor",
    )


def _data(answer: httpx.Response, server: str) -> Any:
    try:
        body = answer.json() if answer.content else None
    except ValueError:
        body = None
        if answer.is_success:
            raise Unavailable(
                f"What answers at {server} is no Underpass gateway.",
                code="not_a_gateway",
                hint="Check the address with: underpass doctor",
            ) from None
    if answer.is_error:
        raise _refusal(answer, body if isinstance(body, dict) else {}, server)
    if isinstance(body, dict) and "success" in body and "data" in body:
        return body["data"]
    return body


def _refusal(answer: httpx.Response, body: dict[str, Any], server: str) -> UnderpassError:
    status = answer.status_code
    kind = _KINDS.get(status, errors.Unavailable if status >= 500 else errors.InvalidRequest)
    message = body.get("message")
    if not isinstance(message, str) or not message:
        message = f"The gateway at {server} answered {status} {answer.reason_phrase}."
    hint = body.get("hint")
    if status == 401:
        hint = f"Run: underpass login {server}"  # the gateway's own hint is for the console
    waiting = answer.headers.get("Retry-After", "")
    return kind(
        message,
        code=str(body.get("code") or kind.code),
        hint=hint if isinstance(hint, str) else None,
        retry_after=float(waiting) if waiting.isdigit() else None,
    )
