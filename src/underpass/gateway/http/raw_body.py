"""Bodies of signed requests: the bytes as they came, up to a cap; bytes are what is signed."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from underpass.core.errors import InvalidRequest, TooLarge

__all__ = ["raw_body"]


async def raw_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        TooLarge: more than *limit* bytes (``body_too_large``); the rest is not read.
        InvalidRequest: the sender hung up half-way.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise InvalidRequest("The body is incomplete.") from None
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.", code="body_too_large")
