"""The HTTP and WebSocket application of a gateway: routers, error shapes, middleware, OpenAPI."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

import underpass
from underpass.core.settings import GatewaySettings
from underpass.gateway.http import (
    api_keys,
    assets,
    auth,
    enrolments,
    events,
    guests,
    health,
    heartbeat,
    join_tokens,
    links,
    live,
    mapping_lists,
    mappings,
    offers,
    quotas,
    recordings,
    sessions,
    setup,
    tty,
    users,
)
from underpass.gateway.http.console import Console
from underpass.gateway.http.envelope import install_error_handlers
from underpass.gateway.http.middleware import (
    AccessLog,
    BodyLimit,
    ForwardedHeaders,
    SecurityHeaders,
)
from underpass.gateway.services import Services, services_of

__all__ = ["ROUTERS", "Services", "make_app", "run_gateway", "services_of"]

ROUTERS: Final = (
    health,
    setup,
    auth,
    users,
    api_keys,
    events,
    live,
    enrolments,
    join_tokens,
    assets,
    heartbeat,
    tty,
    sessions,
    recordings,
    mappings,
    mapping_lists,
    quotas,
    offers,
    guests,
    links,
)
"""One module per noun, each with a ``router``."""

_TAGS: Final = [
    {"name": "set-up", "description": "Making the first admin."},
    {"name": "sign-in", "description": "Logins, passwords and access tokens."},
    {"name": "users", "description": "The people who can sign in."},
    {"name": "API keys", "description": "Long-lived tokens for scripts."},
    {"name": "events", "description": "The audit trail."},
    {"name": "live", "description": "Changes as they happen."},
    {"name": "machines", "description": "The machines: facts, metrics, labels, who may use them."},
    {"name": "enrolments", "description": "Letting machines in."},
    {"name": "join tokens", "description": "Secrets that let a machine in at once."},
    {"name": "heartbeat", "description": "What agents without a link say every half minute."},
    {"name": "terminals", "description": "Tickets for terminals, and what polling agents ask."},
    {"name": "sessions", "description": "Terminal sessions, live and over."},
    {"name": "recordings", "description": "What the terminals showed."},
    {"name": "mappings", "description": "What comes in at a port here goes out at a machine."},
    {"name": "quotas", "description": "What people may use, and have used."},
    {"name": "offers", "description": "A target lent to whoever has a code, once."},
    {"name": "guests", "description": "A login without an account, for one-time codes alone."},
    {"name": "health", "description": "For monitoring, and for whoever is about to connect."},
]


async def run_gateway(settings: GatewaySettings) -> int:
    """:func:`underpass.gateway.serve.run_gateway`, where the contract expects it."""
    from underpass.gateway import serve

    return await serve.run_gateway(settings)


def make_app(services: Services) -> FastAPI:
    """The application over *services*."""
    settings = services.settings
    app = FastAPI(
        title="Underpass",
        version=underpass.__version__,
        summary="Reach any machine, container or port you own.",
        description=(
            "Success answers `{success: true, code: 0, data}`, refusals "
            "`{success: false, code, message, hint?}` with a fitting status. Sign in with "
            "`POST /api/v1/auth/login` and send `Authorization: Bearer <access_token>`."
        ),
        license_info={"name": "Apache-2.0"},
        openapi_tags=_TAGS,
        docs_url=None,  # its pages load scripts from elsewhere, which our CSP forbids
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(ForwardedHeaders, trusted=settings.trusted_proxies),
            Middleware(SecurityHeaders, hsts=settings.tls_cert is not None),
            Middleware(AccessLog),
            Middleware(BodyLimit, limit=settings.max_body),
        ],
    )
    app.state.services = services
    install_error_handlers(app)
    for module in ROUTERS:
        app.include_router(module.router)
    app.router.default = Console()
    return app


def _operation_id(route: APIRoute) -> str:
    """``assets_read``: noun and verb, so that a generated client reads well."""
    module = route.endpoint.__module__.rpartition(".")[2]
    return f"{module}_{route.name}"
