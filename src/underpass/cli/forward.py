"""``underpass forward``: local ports whose connections end at a machine, whatever happens between.

A connection outlives the link that carries it: when the link or the gateway dies, both ends keep
what is under way and go on over the next link (``links/resumable.py``).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from underpass.cli.arguments import MachineName
from underpass.cli.forward_spec import ForwardSpec
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
from underpass.core.errors import UnderpassError

__all__ = ["app", "serve_forwards"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def forward(
    ctx: typer.Context,
    name: MachineName,
    forwards: Annotated[
        list[str],
        typer.Argument(
            metavar="FORWARD…",
            help="[BIND:]PORT[:HOST:PORT], or [BIND:]PORT:unix:PATH; PORT 0 takes a free one.",
        ),
    ],
    compression: Compression = "none",
    e2e: E2e = False,
    agent_key: AgentKey = None,
    carrier: Carrier = "auto",
    no_resume: NoResume = False,
    transport: Transport = None,
) -> None:
    """Make ports that a machine can reach local ports of this one, until Ctrl-C.

    Connections survive a lost link and a restarted gateway: they pause and go on, for up to two
    minutes. Prints "listening on HOST:PORT" for each forward once it is ready. Without BIND only
    this machine can connect.

    \b
    Examples:
      underpass forward db-1 5432                      5432 there
      underpass forward web-1 8080:80                  80 there
      underpass forward web-1 8080:10.0.0.7:80 9000    several, and hosts behind the machine
      underpass forward web-1 0:unix:/run/app.sock     a Unix socket, on any free port
    """
    options = options_of(ctx)
    wanted = [ForwardSpec.parse(text) for text in forwards]
    tunnel = TunnelOptions(compression, e2e, agent_key, carrier, not no_resume, transport)
    connection = options.connection()
    _ = connection.required_token
    from underpass.cli.api import Api

    with Api(connection) as api:
        machine = api.machine(name)
    raise typer.Exit(
        run_until_stopped(
            options,
            lambda stopping: serve_forwards(
                stopping, options, connection, machine, wanted, tunnel, called=typed_name(name)
            ),
        )
    )


async def serve_forwards(
    stopping: Stopping,
    options: Options,
    connection: Connection,
    machine: dict[str, Any],
    wanted: list[ForwardSpec],
    tunnel: TunnelOptions,
    *,
    called: str | None = None,
) -> None:
    """Listen for *wanted* and carry what connects to *machine*, until told to stop.

    Raises:
        UnderpassError: a port is not to be had, or the gateway refuses us for good.
    """
    from underpass.cli.agent_keys import KeyRefused
    from underpass.cli.local_listener import LocalListener, authority
    from underpass.cli.path import MachinePath, machine_path
    from underpass.links.relay import relay
    from underpass.links.sockets import SocketStream

    output = Output(options.json)

    def listener(path: MachinePath, spec: ForwardSpec) -> LocalListener:
        async def carry(stream: SocketStream) -> None:
            result = await relay(stream, await path.open(spec.target))
            if result.error is not None and result.error.code not in ORDINARY:
                raise result.error

        def failed(peer: str | None, error: UnderpassError) -> None:
            if isinstance(error, KeyRefused):
                return  # which ends the command, and is its last word
            reason = plain(" ".join(str(error).split()))
            output.note(f"underpass: {peer or 'a connection'} to {spec.target}: {reason}")

        return LocalListener(carry, failed)

    async with (
        machine_path(connection, machine, tunnel, output.note, called) as path,
        AsyncExitStack() as open_ports,
    ):
        listeners: list[LocalListener] = []
        for spec in wanted:
            listening = listener(path, spec)
            await listening.open(spec.bind, spec.port)
            open_ports.push_async_callback(listening.close)
            listeners.append(listening)
        places = [authority(each.host, each.port) for each in listeners]
        output.value(
            {
                "machine": machine["id"],
                "forwards": [
                    {"listening": place, "host": each.host, "port": each.port, "target": s.target}
                    for place, each, s in zip(places, listeners, wanted, strict=True)
                ],
            },
            "\n".join(f"listening on {place}" for place in places),
        )
        await stopping.wait(path.failed())
