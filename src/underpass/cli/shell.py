"""``underpass shell``: a terminal on a machine, as if one sat at it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import Annotated

import typer

from underpass.cli import exits
from underpass.cli.arguments import MachineName
from underpass.cli.options import options_of
from underpass.cli.output import Output
from underpass.core.errors import UnderpassError

__all__ = ["app", "command_line"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


def command_line(words: list[str] | None) -> str | None:
    """The command for the machine's shell: one word as it is (``'a | b'``), several quoted."""
    if not words:
        return None
    return words[0] if len(words) == 1 else shlex.join(words)


@app.command()
def shell(
    ctx: typer.Context,
    name: MachineName,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND…]", help="Run this instead of the login shell."),
    ] = None,
    login: Annotated[
        str | None, typer.Option("--login", "-l", help="Be this user on the machine.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="SESSION", help="Come back to a session that is still alive."),
    ] = None,
    no_escape: Annotated[
        bool, typer.Option("--no-escape", help="Do not understand ~. and ~? at line starts.")
    ] = False,
) -> None:
    """Open a terminal on a machine; it comes back by itself when the connection is lost.

    At the start of a line, ~. leaves (the session lives on for its grace time). The exit status
    is the program's; 128+N when signal N ended it; 255 when Underpass failed.

    \b
    Examples:
      underpass shell web-1
      underpass shell web-1 -- htop
      underpass shell web-1 --resume 3f0c…
    """
    options = options_of(ctx)
    try:
        status = _run(ctx, name, command, login, resume, no_escape)
    except UnderpassError as error:
        Output(options.json).failure(error)
        status = exits.OWN_FAILURE
    raise typer.Exit(status)


def _run(
    ctx: typer.Context,
    name: str,
    command: list[str] | None,
    login: str | None,
    resume: str | None,
    no_escape: bool,
) -> int:
    from underpass.cli.api import Api
    from underpass.cli.raw_mode import terminal_size
    from underpass.cli.terminal import TerminalWindow, shell_ticket
    from underpass.wire.tty_client import TtyClient

    connection = options_of(ctx).connection()
    _ = connection.required_token
    with Api(connection) as api:
        machine = api.machine(name)
    engine = TtyClient(escapes=sys.stdin.isatty() and not no_escape, session_id=resume)
    ticket = shell_ticket(
        connection, machine["id"], lambda: terminal_size(1), command_line(command), login
    )
    return asyncio.run(TerminalWindow(connection, ticket, engine).run())
