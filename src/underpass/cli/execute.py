"""``underpass exec``: one command on a machine, its bytes and exit status passed through."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer

from underpass.cli import exits
from underpass.cli.arguments import MachineName
from underpass.cli.options import Connection, options_of
from underpass.cli.output import Output
from underpass.core.errors import UnderpassError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def execute(
    ctx: typer.Context,
    name: MachineName,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="The program and its arguments.")
    ],
    shell: Annotated[
        bool, typer.Option("--shell", "-s", help="Give the words to the machine's shell, joined.")
    ] = False,
    login: Annotated[
        str | None, typer.Option("--login", "-l", help="Be this user on the machine.")
    ] = None,
    no_stdin: Annotated[
        bool, typer.Option("--no-stdin", "-n", help="Do not read standard input.")
    ] = False,
) -> None:
    """Run one command on a machine, without a terminal; stdin, stdout and stderr are its own.

    The exit status is the command's; 128+N when signal N ended it; 255 when Underpass failed.
    Ctrl-C is passed on; the third one leaves.

    \b
    Examples:
      underpass exec web-1 -- uname -a
      tar c . | underpass exec web-1 -- tar x -C /srv
      underpass exec -s web-1 -- 'ls *.log | wc -l'
    """
    options = options_of(ctx)
    given = " ".join(command) if shell else command
    try:
        status = asyncio.run(_run(options.connection(), name, given, login, no_stdin))
    except UnderpassError as error:
        Output(options.json).failure(error)
        status = exits.OWN_FAILURE
    raise typer.Exit(status)


async def _run(
    connection: Connection, name: str, command: str | list[str], login: str | None, no_stdin: bool
) -> int:
    from underpass.cli.links import opened
    from underpass.cli.remote_command import RemoteCommand

    async with opened(connection, "exec", agent=name, command=command, login=login) as stream:
        remote = RemoteCommand(stream, stdin=None if no_stdin else 0)
        loop = asyncio.get_running_loop()
        running = asyncio.current_task()
        assert running is not None
        pressed = 0

        def interrupted() -> None:
            nonlocal pressed
            pressed += 1
            if pressed < 3:
                remote.signal("INT")
            else:
                running.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupted)
        loop.add_signal_handler(signal.SIGTERM, remote.signal, "TERM")
        try:
            end = await remote.run()
        except asyncio.CancelledError:
            stream.abort()
            return exits.INTERRUPTED
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)
    if end.text:
        print(f"underpass: {end.text}", file=sys.stderr)
    return end.status
