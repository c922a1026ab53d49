"""The bodies of sign-in, users and API keys: what is asked, and by allow-list what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AccessTokenAsked",
    "AccessTokenBody",
    "ApiKeyAsked",
    "ApiKeyBody",
    "ApiKeyCreated",
    "Credentials",
    "LoginBody",
    "MeBody",
    "PasswordChange",
    "RevocationAsked",
    "SetupAsked",
    "SetupState",
    "UserAsked",
    "UserBody",
    "UserPatch",
]

Role = Literal["admin", "auditor", "user"]
Secret = Annotated[str, Field(max_length=1024, json_schema_extra={"format": "password"})]
Name = Annotated[str, Field(max_length=128)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class UserBody(BaseModel):
    """A person who can sign in."""

    id: str
    username: str
    email: str | None = None
    role: Role
    disabled: bool
    created_at: str
    last_login_at: str | None = None


class Credentials(_Asked):
    """A name and a password."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "ada", "password": "correct horse battery staple"}]
        }
    )

    username: Name
    password: Secret


class SetupAsked(Credentials):
    """What makes the first admin."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "the code the gateway printed",
                    "username": "ada",
                    "password": "correct horse battery staple",
                }
            ]
        }
    )

    code: Secret


class SetupState(BaseModel):
    """Whether the first admin is still to be made."""

    needed: bool


class LoginBody(BaseModel):
    """A login: for scripts as a bearer token, for browsers also as a cookie."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds until it ends if it is not used.")
    csrf_token: str = Field(description="Sent back as X-CSRF-Token on writes made with the cookie.")
    user: UserBody


class MeBody(BaseModel):
    """Who is signed in."""

    user: UserBody
    csrf_token: str | None = Field(
        default=None, description="Only for a login; API tokens need none."
    )
    version: str
    node_id: str


class PasswordChange(_Asked):
    """One's own password, old and new."""

    old: Secret
    new: Secret


class AccessTokenAsked(_Asked):
    """What a short-lived access token should be good for."""

    audience: Annotated[str | None, Field(max_length=64)] = None
    expires_in: Annotated[int | None, Field(ge=1, le=86400)] = None
    scopes: Annotated[list[str] | None, Field(max_length=32)] = None


class AccessTokenBody(BaseModel):
    """A short-lived access token (opaque for now; JWTs come with the WebSocket gateway)."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int


class RevocationAsked(_Asked):
    """Which token to end: by its text, or by the id of an API key."""

    token: Secret | None = None
    jti: Annotated[str | None, Field(max_length=64)] = None


class UserAsked(Credentials):
    """A user to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"username": "grace", "password": "correct horse battery staple", "role": "user"}
            ]
        }
    )

    role: Role = "user"
    email: Annotated[str | None, Field(max_length=254)] = None


class UserPatch(_Asked):
    """What to change about a user; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = None
    email: Annotated[str | None, Field(max_length=254)] = None
    password: Secret | None = None


class ApiKeyAsked(_Asked):
    """An API key to be made; without ``expires_in`` it works until it is revoked."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "backup script", "expires_in": 7776000}]}
    )

    name: Name
    expires_in: Annotated[int | None, Field(ge=1)] = None


class ApiKeyBody(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    created_at: str
    expires_at: str | None = None
    last_used_at: str | None = None


class ApiKeyCreated(ApiKeyBody):
    """A new API key; ``token`` is shown this once."""

    token: str
