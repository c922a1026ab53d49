"""``underpass login`` and ``logout``: a password becomes an API key for this machine, and back."""

from __future__ import annotations

import base64
import getpass
import platform
import sys
from dataclasses import replace
from typing import Annotated

import typer

from underpass.cli.options import Connection, Options, options_of, server_url
from underpass.cli.output import Output
from underpass.core.errors import InvalidRequest, Unauthenticated, UnderpassError

__all__ = ["apps"]

login_app = typer.Typer(rich_markup_mode=None, add_completion=False)
logout_app = typer.Typer(rich_markup_mode=None, add_completion=False)
apps = {"login": login_app, "logout": logout_app}


@login_app.command()
def login(
    ctx: typer.Context,
    server: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The gateway; default: the current one.")
    ] = None,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Default: asked for.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="F", help="Believe only this certificate from now on (sha256:…)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the API key.")] = None,
) -> None:
    """Sign in to a gateway; the key it gives is kept in ~/.config/underpass (0600).

    \b
    Examples:
      underpass login https://gw.example.org
      underpass login https://10.0.0.5:3000 --fingerprint sha256:…
      pass gw | underpass login http://localhost:3000 -u ana --password-stdin
    """
    options = options_of(ctx)
    found = options.connection(server)
    connection = Connection(found.server, fingerprint=fingerprint or found.fingerprint)
    username = username or _ask_username()
    password = _password(password_stdin, username, connection.server)
    _sign_in(options, connection, username, password, name or f"cli on {platform.node()}")


def _ask_username() -> str:
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no user name.", code="no_username", hint="Give --username.")
    return typer.prompt("User name", err=True)


def _password(from_stdin: bool, username: str, server: str) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "There is no terminal to ask for the password on.",
            code="no_terminal",
            hint="Give it on standard input with --password-stdin.",
        )
    return getpass.getpass(f"Password of {username} at {server}: ")


def _sign_in(
    options: Options, connection: Connection, username: str, password: str, name: str
) -> None:
    from underpass.cli.api import Api
    from underpass.cli.credentials import Credentials, Login

    with Api(connection) as api:
        try:
            answer = api.post("/api/v1/auth/login", username=username, password=password)
        except Unauthenticated as error:
            error.hint = "Check the user name and the password, then try again."
            raise
    signed_in = replace(connection, token=answer["access_token"])
    with Api(signed_in) as api:
        key = api.post("/api/v1/api-keys", name=name)
        # The key stays; the login it was made with has done its work.
        try:
            api.post("/api/v1/auth/logout")
        except UnderpassError as error:
            Output().note(f"The login itself was not ended: {error.message}")
    credentials = Credentials.load()
    earlier = credentials.logins.get(connection.server)
    credentials.remember(
        connection.server,
        Login(
            key["token"],
            key["id"],
            username,
            connection.fingerprint,
            # A key pinned before stays pinned: signing in again must not quietly trust another.
            earlier.gateway_key if earlier else None,
        ),
    )
    credentials.save()
    _pin(credentials, connection.server)
    Output(options.json).value(
        {"server": connection.server, "username": username, "key_id": key["id"]},
        f"Signed in to {connection.server} as {username}.",
    )


def _pin(credentials: object, server: str) -> None:
    """Make one link and keep the gateway's key, so that later links go to this gateway only."""
    import asyncio

    from underpass.cli.credentials import Credentials
    from underpass.cli.links import node_key

    assert isinstance(credentials, Credentials)
    login = credentials.logins[server]
    connection = Options().connection(server)
    try:
        key = asyncio.run(node_key(replace(connection, token=login.token)))
    except UnderpassError as error:
        Output().note(f"No link yet, so the gateway's key is not pinned: {error}")
        return
    login.gateway_key = base64.b64encode(key).decode()
    credentials.save()


@logout_app.command()
def logout(
    ctx: typer.Context,
    server: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The gateway; default: the current one.")
    ] = None,
) -> None:
    """Revoke this machine's API key and forget it."""
    from underpass.cli.api import Api
    from underpass.cli.credentials import Credentials

    options = options_of(ctx)
    connection = options.connection(server_url(server) if server else None)
    credentials = Credentials.load()
    forgotten = credentials.forget(connection.server)
    if forgotten is None:
        raise Unauthenticated(
            f"There is no login for {connection.server}.", hint="See: underpass login"
        )
    credentials.save()
    revoked = False
    try:
        with Api(replace(connection, token=forgotten.token)) as api:
            api.delete(f"/api/v1/api-keys/{forgotten.token_id}")
            revoked = True
    except UnderpassError as error:
        Output().note(f"Forgotten here, but not revoked there: {error}")
    Output(options.json).value(
        {"server": connection.server, "revoked": revoked}, f"Signed out of {connection.server}."
    )
