"""``underpass accept``: a local port whose connections end at what somebody offered with a code."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import typer

from underpass.cli.arguments import duration
from underpass.cli.forward import serve_forwards
from underpass.cli.forward_spec import DEFAULT_BIND, ForwardSpec
from underpass.cli.guest import Server, as_somebody, with_server
from underpass.cli.offer import ROUTE
from underpass.cli.options import Connection, Options
from underpass.cli.output import Output
from underpass.cli.tunnel_options import (
    AgentKey,
    Carrier,
    Compression,
    E2e,
    NoResume,
    Stopping,
    Transport,
    TunnelOptions,
    run_until_stopped,
)
from underpass.core.errors import Gone, InvalidRequest, NotFound, UnderpassError
from underpass.core.ids import is_id

__all__ = ["app"]

LOOK_EVERY = 5.0
"""Seconds between looks whether the offer still holds."""
_TIMEOUT = 8.0
_LISTEN = re.compile(r"(?:(\[[^\]]+\]|[^:\[\]]+):)?([0-9]{1,5})")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def accept(
    ctx: typer.Context,
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="As underpass offer printed it; or the id later.")
    ],
    listen: Annotated[
        str, typer.Option("--listen", "-l", metavar="[HOST:]PORT", help="Where; 0: any free port.")
    ] = "0",
    lifetime: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long you need it; as offered if not said."),
    ] = None,
    compression: Compression = "none",
    e2e: E2e = False,
    agent_key: AgentKey = None,
    carrier: Carrier = "auto",
    no_resume: NoResume = False,
    transport: Transport = None,
    server: Server = None,
) -> None:
    """Make what somebody offered with a code a local port of this machine, until Ctrl-C.

    The code is used up by this. The access stays until it ends or is revoked: to listen again,
    give the offer's id in the code's place (underpass offers shows it). Prints "listening on
    HOST:PORT" once it is ready. Without HOST only this machine can connect. Nobody needs a login
    where the gateway allows guests.

    \b
    Examples:
      underpass accept 7K3M-9QXD-4TNB --listen 13306
      underpass accept 7k3m9qxd4tnb --listen 0.0.0.0:8080 --for 1h
      underpass accept 7K3M-9QXD-4TNB --server https://gw.example.org --listen 13306
    """
    options = with_server(ctx, server)
    bind, port = _place(listen)
    seconds = None if lifetime is None else duration(lifetime)
    tunnel = TunnelOptions(compression, e2e, agent_key, carrier, not no_resume, transport)
    signed_in = options.connection()

    async def program(stopping: Stopping) -> None:
        await _check_free(bind, port)  # a port that is taken must not cost the code
        connection = await asyncio.to_thread(as_somebody, signed_in)
        offer = await asyncio.to_thread(_accepted, connection, code, seconds)
        Output(options.json).note(
            f"{offer['target']} on {offer['machine']}, offered by {offer['username']}: yours until"
            f" {offer['expires_at']}."
            + (f" Again later: underpass accept {offer['id']}" if signed_in.token else "")
        )
        await _serve(stopping, options, connection, offer, (bind, port), tunnel)

    raise typer.Exit(run_until_stopped(options, program))


def _place(text: str) -> tuple[str, int]:
    """Address and port in ``13306``, ``0.0.0.0:13306``, ``[::1]:13306``.

    Raises:
        InvalidRequest: code ``bad_listen``.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise InvalidRequest(
            f"{text!r} is no place to listen at.", code="bad_listen", hint="Write [HOST:]PORT."
        )
    return (match[1] or DEFAULT_BIND).strip("[]"), int(match[2])


async def _check_free(bind: str, port: int) -> None:
    from underpass.cli.local_listener import LocalListener
    from underpass.links.sockets import SocketStream

    async def nothing(_stream: SocketStream) -> None:
        pass

    listener = LocalListener(nothing, lambda _peer, _error: None)
    await listener.open(bind, port)
    await listener.close()


def _accepted(connection: Connection, code: str, seconds: int | None) -> dict[str, Any]:
    """The offer, now one's own."""
    from underpass.cli.api import Api

    with Api(connection) as api:
        if not is_id(code.lower()):
            return api.post(f"{ROUTE}/accept", code=code, expires_in=seconds)
        offer = api.get(f"{ROUTE}/{code.lower()}")
        if offer["status"] == "waiting":
            raise InvalidRequest(
                "Nobody has accepted this offer yet, and its id is no code.", code="bad_code"
            )
        _check_holds(offer)
        return offer


def _check_holds(offer: dict[str, Any]) -> None:
    if offer["status"] != "accepted":
        raise Gone(f"The offer has ended: {offer['status']}.", code=f"offer_{offer['status']}")


async def _serve(
    stopping: Stopping,
    options: Options,
    connection: Connection,
    offer: dict[str, Any],
    place: tuple[str, int],
    tunnel: TunnelOptions,
) -> None:
    """Carry connections as ``forward`` does, as long as the offer holds."""
    machine = {"id": offer["target_client_id"], "key_fingerprint": offer["machine_key"]}
    spec = ForwardSpec(*place, offer["target"])
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(
            _outcome(serve_forwards(stopping, options, connection, machine, [spec], tunnel))
        )
        watching = group.create_task(_end_of(connection, offer["id"]))
        await asyncio.wait((serving, watching), return_when=asyncio.FIRST_COMPLETED)
        error = serving.result() if serving.done() else watching.result()
        serving.cancel()
        watching.cancel()
    if error is not None:
        raise error


async def _outcome(serving: Any) -> UnderpassError | None:
    try:
        await serving
    except UnderpassError as error:
        return error
    return None


async def _end_of(connection: Connection, offer_id: str) -> UnderpassError:
    """Wait until the offer has ended; how."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            _check_holds(await asyncio.to_thread(_read, connection, offer_id))
        except (Gone, NotFound) as error:
            return error
        except UnderpassError:
            continue  # a gateway that restarts comes back; connections wait for it, too


def _read(connection: Connection, offer_id: str) -> dict[str, Any]:
    from underpass.cli.api import Api

    with Api(connection, timeout=_TIMEOUT) as api:
        return api.get(f"{ROUTE}/{offer_id}")
