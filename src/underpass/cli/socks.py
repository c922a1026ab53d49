"""``underpass socks``: a local SOCKS5 and HTTP proxy whose connections leave at a machine."""

from __future__ import annotations

import hmac
import ipaddress
import os
from typing import Annotated, Any

import typer

from underpass.cli.arguments import MachineName
from underpass.cli.options import Connection, Options, options_of
from underpass.cli.output import Output, plain
from underpass.cli.tunnel_options import (
    ORDINARY,
    AgentKey,
    Carrier,
    Compression,
    E2e,
    NoResume,
    Stopping,
    Transport,
    TunnelOptions,
    run_until_stopped,
    typed_name,
)
from underpass.core.errors import InvalidRequest, UnderpassError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PASSWORD = "UNDERPASS_SOCKS_PASSWORD"  # noqa: S105 - the variable's name


@app.command()
def socks(
    ctx: typer.Context,
    name: MachineName,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")
    ] = 1080,
    bind: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    username: Annotated[
        str | None,
        typer.Option(help=f"Demand this login; the password comes from {PASSWORD}."),
    ] = None,
    compression: Compression = "none",
    e2e: E2e = False,
    agent_key: AgentKey = None,
    carrier: Carrier = "auto",
    no_resume: NoResume = False,
    transport: Transport = None,
) -> None:
    """Be a proxy on this machine whose connections leave at another, until Ctrl-C.

    SOCKS5 (with UDP) and HTTP CONNECT on one port. Names are resolved on the machine, and its
    policy decides what can be reached. Connections survive a lost link and a restarted gateway.
    Prints "listening on HOST:PORT" once it is ready.

    \b
    Examples:
      underpass socks web-1
      curl --proxy socks5h://127.0.0.1:1080 http://intranet/
      curl --proxy http://127.0.0.1:1080 https://intranet/
    """
    options = options_of(ctx)
    login = _login(username, bind)
    tunnel = TunnelOptions(compression, e2e, agent_key, carrier, not no_resume, transport)
    connection = options.connection()
    _ = connection.required_token
    from underpass.cli.api import Api

    with Api(connection) as api:
        machine = api.machine(name)
    raise typer.Exit(
        run_until_stopped(
            options,
            lambda stopping: _run(
                stopping,
                options,
                connection,
                machine,
                typed_name(name),
                (bind, port),
                login,
                tunnel,
            ),
        )
    )


def _login(username: str | None, bind: str) -> tuple[str, str] | None:
    """User name and password to demand.

    Raises:
        InvalidRequest: there is no password, or everybody in the network could come in.
    """
    password = os.environ.get(PASSWORD, "")
    if username is not None:
        if not (username and password):
            raise InvalidRequest(
                "A login needs a user name and a password.",
                code="no_password",
                hint=f"Set {PASSWORD}.",
            )
        return username, password
    try:
        loopback = ipaddress.ip_address(bind).is_loopback
    except ValueError:
        loopback = bind.lower() == "localhost"
    if not loopback:
        raise InvalidRequest(
            "A proxy without a login is for this machine only.",
            code="login_needed",
            hint=f"Give --username, and the password in {PASSWORD}.",
        )
    return None


async def _run(
    stopping: Stopping,
    options: Options,
    connection: Connection,
    machine: dict[str, Any],
    called: str | None,
    where: tuple[str, int],
    login: tuple[str, str] | None,
    tunnel: TunnelOptions,
) -> None:
    from underpass.cli.agent_keys import KeyRefused
    from underpass.cli.local_listener import LocalListener, authority
    from underpass.cli.path import machine_path
    from underpass.cli.socks_service import SocksService

    output = Output(options.json)

    async def check(username: str, password: str) -> bool:
        assert login is not None
        same = [
            hmac.compare_digest(given.encode(), wanted.encode())
            for given, wanted in zip((username, password), login, strict=True)
        ]
        return all(same)

    def failed(peer: str | None, error: UnderpassError) -> None:
        # A wrong key ends the command, and is its last word.
        if error.code not in ORDINARY and not isinstance(error, KeyRefused):
            reason = plain(" ".join(str(error).split()))
            output.note(f"underpass: {peer or 'a connection'}: {reason}")

    async with machine_path(connection, machine, tunnel, output.note, called) as path:
        service = SocksService(path.open, check if login is not None else None, where[0])
        listener = LocalListener(service.serve, failed)
        await listener.open(*where)
        try:
            place = authority(listener.host, listener.port)
            output.value(
                {"machine": machine["id"], "listening": place, "host": listener.host,
                 "port": listener.port},
                f"listening on {place}",
            )  # fmt: skip
            await stopping.wait(path.failed())
        finally:
            await listener.close()
