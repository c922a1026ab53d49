"""What machines ask: alive, ready, metrics, and who this gateway is."""

from __future__ import annotations

import ipaddress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import underpass
from underpass.core import metrics
from underpass.core.errors import UnderpassError
from underpass.gateway.http.envelope import Envelope, ok
from underpass.gateway.http.middleware import FORWARDED
from underpass.gateway.http.security import address_of, admin, origin_of
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """How it is."""

    status: str


class Version(BaseModel):
    """What runs."""

    version: str


class Info(BaseModel):
    """Who this gateway is, for whoever is about to enrol or sign in."""

    version: str
    node_id: str
    gateway_key: str = Field(description="Base64 of the raw Ed25519 key that links are pinned to.")
    key_fingerprint: str
    tls_fingerprint: str | None = Field(
        default=None, description="Of our own certificate; null when a proxy terminates TLS."
    )
    public_url: str
    setup_needed: bool


@router.get("/health", response_model=Health, summary="Is the process alive?")
async def health() -> Any:
    """200 as long as the event loop turns."""
    return {"status": "ok"}


@router.get(
    "/ready",
    response_model=Health,
    summary="Can it serve?",
    responses={503: {"model": Health, "description": "Starting, draining, or no database."}},
)
async def ready(request: Request) -> Any:
    """200 when it serves: port bound, database answering, no shutdown under way."""
    services = services_of(request)
    headers = {"Cache-Control": "no-store"}
    if not services.ready:
        return JSONResponse({"status": "not ready"}, 503, headers)
    try:
        await services.database.ping()
    except UnderpassError:
        return JSONResponse({"status": "database unreachable"}, 503, headers)
    return JSONResponse({"status": "ready"}, 200, headers)


@router.get("/version", response_model=Version, summary="Which version is this?")
async def version() -> Any:
    """The gateway's version."""
    return {"version": underpass.__version__}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """Metrics in the Prometheus text format; from this machine itself, or for admins."""
    if not _from_this_machine(request):
        await admin(request)
    return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)


@router.get("/api/v1/info", response_model=Envelope[Info], summary="Which gateway is this?")
async def info(request: Request) -> Any:
    """Version and keys; nothing here is secret."""
    services = services_of(request)
    return ok(
        {
            "version": underpass.__version__,
            "node_id": services.secrets.node_id,
            "gateway_key": services.secrets.gateway_key,
            "key_fingerprint": services.secrets.key_fingerprint,
            "tls_fingerprint": services.tls_fingerprint,
            "public_url": origin_of(request),
            "setup_needed": await services.setup.needed(),
        }
    )


def _from_this_machine(request: Request) -> bool:
    """Whether a program here asks; a proxy here that was not listed passes strangers on."""
    if request.scope.get(FORWARDED):
        return False
    try:
        return ipaddress.ip_address(address_of(request) or "").is_loopback
    except ValueError:
        return False
