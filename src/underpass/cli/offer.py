"""``underpass offer``: a port of this machine for one person, once, with a code to tell them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from underpass.cli import exits
from underpass.cli.arguments import duration
from underpass.cli.expose import Stopped, stopping
from underpass.cli.guest import Server, as_somebody, with_server
from underpass.cli.mapping_arguments import Machine, target_of
from underpass.cli.options import Options
from underpass.cli.output import Output
from underpass.cli.this_machine import this_machine
from underpass.core.errors import Gone, InvalidRequest, UnderpassError

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["ROUTE", "app"]

ROUTE = "/api/v1/offers"
LOOK_EVERY = 2.0
"""Seconds between looks whether somebody has accepted it."""

For = Annotated[str, typer.Option("--for", metavar="TIME", help="How long the code is good.")]
Access = Annotated[
    str, typer.Option(metavar="TIME", help="How long it may be used once accepted, at most.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for somebody to use it.")]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def offer(ctx: typer.Context, server: Server = None) -> None:
    """Lend a port of this machine (or another) to one person of this gateway, with a code.

    The code works once. Whoever types it with "underpass accept" may open that one target, and
    nothing else, until the access ends; see and end it with "underpass offers". Prints the command
    for the other person; its last word is the code. Stays until the code is used; Ctrl-C revokes
    it. Without a login, where the gateway lets guests offer, this command itself carries what is
    lent: it stays until the access ends, and Ctrl-C ends it.

    \b
    Examples:
      underpass offer tcp 3306
      underpass offer tcp 10.0.0.7:80 --on office --for 1h --access 2d
      underpass offer unix /run/app.sock --detach
      underpass offer --server https://gw.example.org tcp 3306
    """
    with_server(ctx, server)


@app.command("tcp")
def tcp(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="PORT, or HOST:PORT as the machine sees it.")
    ],
    machine: Machine = None,
    lifetime: For = "10m",
    access: Access = "8h",
    detach: Detach = False,
    server: Server = None,
) -> None:
    """A TCP port. Without --on: of the machine this is typed on, whose agent must be enrolled
    (guests need none)."""
    _run(with_server(ctx, server), "tcp", target, machine, (lifetime, access), detach)


@app.command("unix")
def unix(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The socket, on the machine.")],
    machine: Machine = None,
    lifetime: For = "10m",
    access: Access = "8h",
    detach: Detach = False,
    server: Server = None,
) -> None:
    """A Unix socket; the other person gets a TCP port that leads to it."""
    _run(with_server(ctx, server), "unix", path, machine, (lifetime, access), detach)


def _run(
    options: Options,
    protocol: str,
    target: str,
    machine: str | None,
    times: tuple[str, str],
    detach: bool,
) -> None:
    from underpass.cli.api import Api

    output = Output(options.json)
    connection = options.connection()
    body = {
        "protocol": protocol, **target_of(protocol, target),
        "expires_in": duration(times[0]), "access_for": duration(times[1]),
    }  # fmt: skip
    if not connection.token:
        raise typer.Exit(_lend_as_guest(options, body, machine, detach))
    with stopping() as stopped, Api(connection) as api:
        agent = api.machine(machine) if machine else this_machine(api)
        made = api.post(ROUTE, **body, target_client_id=agent["id"])
        command = f"underpass accept {made['code']}"
        output.value({**made, "command": command}, command)
        output.note(
            f"{made['target']} on {made['machine']}: the code works once, until"
            f" {made['expires_at']}. Revoke it: underpass offers revoke {made['id']}"
        )
        if not detach:
            _wait(api, made["id"], stopped, output)
    raise typer.Exit(exits.INTERRUPTED if stopped.number == signal.SIGINT else exits.OK)


def _lend_as_guest(
    options: Options, body: dict[str, Any], machine: str | None, detach: bool
) -> int:
    """Lend a port of this machine without a login; the exit status.

    Raises:
        Unauthenticated: the gateway does not let guests offer.
        InvalidRequest: something was asked for that needs a login.
    """
    from underpass.cli.tunnel_options import Stopping, run_until_stopped

    connection = as_somebody(options.connection(), offering=True)
    for given, flag in ((machine, "--on"), (detach, "--detach")):
        if given:
            raise InvalidRequest(
                f"{flag} needs a login: a guest's offer is carried by the command itself.",
                code="login_needed",
                hint=f"Run: underpass login {connection.server}",
            )
    from underpass.cli.guest_host import lend

    async def program(stopping: Stopping) -> None:
        await lend(stopping, connection, body, Output(options.json))

    return run_until_stopped(options, program)


def _wait(api: Api, offer_id: str, stopped: Stopped, output: Output) -> None:
    """Wait until the code is used; a signal revokes it.

    Raises:
        Gone: the code has expired or was revoked.
    """
    path, last = f"{ROUTE}/{offer_id}", None
    while True:
        told = stopped.wait(LOOK_EVERY)
        try:
            found: dict[str, Any] = api.get(path)
            if told and found["status"] == "waiting":
                api.delete(path)
                output.note("Revoked.")
                return
        except UnderpassError as error:
            if told or error.status == 404:
                raise
            if error.message != last:
                output.note(error.message)  # a gateway that restarts comes back
            last = error.message
            continue
        if found["status"] == "accepted":
            output.note(f"Accepted by {found['accepted_by']}, until {found['expires_at']}.")
            return
        if found["status"] != "waiting":
            raise Gone(
                f"The code is no longer good: {found['status']}.", code=f"offer_{found['status']}"
            )
