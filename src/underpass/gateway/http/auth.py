"""Signing in and out, who am I, one's password, and short-lived access tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

import underpass
from underpass.control.sign_in import Login
from underpass.core.errors import InvalidRequest, Unauthenticated
from underpass.gateway.http.envelope import REFUSALS, Envelope, Nothing, ok
from underpass.gateway.http.people import (
    AccessTokenAsked,
    AccessTokenBody,
    Credentials,
    LoginBody,
    MeBody,
    PasswordChange,
    RevocationAsked,
)
from underpass.gateway.http.security import (
    Caller,
    address_of,
    bearer_of,
    check_origin,
    clear_login_cookie,
    cookie_of,
    set_login_cookie,
)
from underpass.gateway.services import services_of

__all__ = ["login_answer", "router"]

router = APIRouter(prefix="/api/v1/auth", tags=["sign-in"], responses=REFUSALS)


@router.post("/login", response_model=Envelope[LoginBody], summary="Sign in with a password")
async def login(body: Credentials, request: Request, response: Response) -> Any:
    """Exchange a name and password for a login.

    The answer's ``access_token`` works as ``Authorization: Bearer`` on every route; a browser also
    gets it as a cookie it can't read, and sends ``csrf_token`` back on writes. An unknown name, a
    wrong password and a disabled user get the same answer in the same time; wrong tries from one
    address have to wait longer and longer (429).
    """
    if "origin" in request.headers:
        check_origin(request)  # a foreign page must not sign people in as somebody else
    made = await services_of(request).sign_in.sign_in(
        body.username,
        body.password,
        ip=address_of(request),
        user_agent=request.headers.get("user-agent"),
    )
    return login_answer(made, request, response)


@router.post("/logout", response_model=Envelope[Nothing], summary="Sign out")
async def logout(caller: Caller, request: Request, response: Response) -> Any:
    """End the login this request came with; what was made from it ends, too."""
    await services_of(request).sign_in.sign_out(caller)
    clear_login_cookie(response, request)
    return ok()


@router.get("/me", response_model=Envelope[MeBody], summary="Who am I?")
async def me(caller: Caller, request: Request) -> Any:
    """The person behind the cookie or token."""
    services = services_of(request)
    token = bearer_of(request) or cookie_of(request)
    if token is None:
        raise Unauthenticated("You are not signed in.")
    identity = await services.sign_in.identify(token)
    return ok(
        {
            "user": await services.users.get(caller.user_id),
            "csrf_token": identity.csrf_token or None,
            "version": underpass.__version__,
            "node_id": services.secrets.node_id,
        }
    )


@router.post("/password", response_model=Envelope[Nothing], summary="Change one's password")
async def change_password(body: PasswordChange, caller: Caller, request: Request) -> Any:
    """Change one's own password. Every other login of the person ends."""
    await services_of(request).sign_in.change_password(caller, body.old, body.new)
    return ok()


@router.post("/token", response_model=Envelope[AccessTokenBody], summary="Make an access token")
async def make_access_token(body: AccessTokenAsked, caller: Caller, request: Request) -> Any:
    """Make a short-lived token with the caller's own rights (an hour unless asked otherwise).

    It is opaque; it ends with its time, with ``/auth/revoke``, and with the login or API key it
    was made from. Audiences and scopes come with JWTs; asking for them now is refused rather than
    ignored, because the token would be good for more than was asked.
    """
    if body.audience not in {None, "underpass"}:
        raise InvalidRequest(
            'audience: only "underpass" is supported by this version.',
            code="unsupported",
            details={"field": "audience"},
        )
    if body.scopes:
        raise InvalidRequest(
            "scopes: not supported by this version; the token would have all your rights.",
            code="unsupported",
            details={"field": "scopes"},
        )
    token, seconds = await services_of(request).api_tokens.create_access_token(
        caller, body.expires_in
    )
    return ok({"access_token": token, "token_type": "bearer", "expires_in": int(seconds)})


@router.post("/revoke", response_model=Envelope[Nothing], summary="End a token")
async def revoke(body: RevocationAsked, caller: Caller, request: Request) -> Any:
    """End one of one's own tokens (or, for an admin, anybody's). Unknown tokens are no error."""
    tokens = services_of(request).api_tokens
    if body.token:
        await tokens.revoke_secret(caller, body.token)
    elif body.jti:
        await tokens.revoke(caller, body.jti)
    else:
        raise InvalidRequest("Name the token to end: `token` or `jti`.")
    return ok()


def login_answer(made: Login, request: Request, response: Response) -> dict[str, Any]:
    """The body of a login, with the cookie put on *response*."""
    response.headers["Cache-Control"] = "no-store"
    lifetime = services_of(request).settings.session_lifetime
    set_login_cookie(response, request, made.token, lifetime)
    return ok(
        {
            "access_token": made.token,
            "token_type": "bearer",
            "expires_in": int(made.expires_in),
            "csrf_token": made.csrf_token,
            "user": made.user,
        }
    )
