"""``underpass offer``: a port of this machine for one person, once, with a code to tell them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from underpass.cli import exits
from underpass.cli.arguments import duration
from underpass.cli.expose import Stopped, stopping, this_machine
from underpass.cli.mapping_arguments import Machine, target_of
from underpass.cli.options import options_of
from underpass.cli.output import Output
from underpass.core.errors import Gone, UnderpassError

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
def offer() -> None:
    """Lend a port of this machine (or another) to one person of this gateway, with a code.

    The code works once. Whoever types it with "underpass accept" may open that one target, and
    nothing else, until the access ends; see and end it with "underpass offers". Prints the command
    for the other person; its last word is the code. Stays until the code is used; Ctrl-C revokes
    it.

    \b
    Examples:
      underpass offer tcp 3306
      underpass offer tcp 10.0.0.7:80 --on office --for 1h --access 2d
      underpass offer unix /run/app.sock --detach
    """


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
) -> None:
    """A TCP port. Without --on: of the machine this is typed on, whose agent must be enrolled."""
    _run(ctx, "tcp", target, machine, (lifetime, access), detach)


@app.command("unix")
def unix(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The socket, on the machine.")],
    machine: Machine = None,
    lifetime: For = "10m",
    access: Access = "8h",
    detach: Detach = False,
) -> None:
    """A Unix socket; the other person gets a TCP port that leads to it."""
    _run(ctx, "unix", path, machine, (lifetime, access), detach)


def _run(
    ctx: typer.Context,
    protocol: str,
    target: str,
    machine: str | None,
    times: tuple[str, str],
    detach: bool,
) -> None:
    from underpass.cli.api import Api

    options = options_of(ctx)
    output = Output(options.json)
    body = {
        "protocol": protocol, **target_of(protocol, target),
        "expires_in": duration(times[0]), "access_for": duration(times[1]),
    }  # fmt: skip
    with stopping() as stopped, Api(options.connection()) as api:
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
