"""``underpass serve``: a gateway in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from underpass.cli.lean_imports import absent

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve(
    ctx: typer.Context,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Default 0.0.0.0:3000; PORT sets it.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address others use, if it differs.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keys, database, recordings: ~/.underpass.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="sqlite:///…, postgresql://… or mysql://…."),
    ] = None,
    kv: Annotated[str | None, typer.Option(metavar="URL", help="memory:")] = None,
    broker: Annotated[str | None, typer.Option(metavar="URL", help="memory:")] = None,
    local_agent: Annotated[
        bool | None,
        typer.Option("--local-agent/--no-local-agent", help="Make this machine reachable, too."),
    ] = None,
    base_domain: Annotated[
        str | None, typer.Option(metavar="D", help="Host names under it are given to mappings.")
    ] = None,
    apps_domain: Annotated[
        str | None, typer.Option(metavar="D", help="A second domain, for forwarded apps.")
    ] = None,
    port_range: Annotated[
        str | None, typer.Option(metavar="A-B", help="Ports that public mappings may take.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")] = None,
    tls: Annotated[
        Literal["off", "self"] | None, typer.Option(help="self: make a certificate; agents pin it.")
    ] = None,
    quic: Annotated[
        bool | None, typer.Option("--quic/--no-quic", help="Links on the UDP port, too.")
    ] = None,
    guests: Annotated[
        Literal["off", "accept", "all"] | None,
        typer.Option(help="What people without an account may: use codes, or make them, too."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML settings (UNDERPASS_CONFIG).")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Default info.")
    ] = None,
    log_json: Annotated[
        bool | None, typer.Option("--log-json", help="One JSON object a line on stderr.")
    ] = None,
) -> None:
    """Start a gateway: console, API, agents and terminals on one port.

    Every flag is also a setting UNDERPASS_NAME and a line in the file of --config; see
    docs/reference/settings.md. SIGTERM drains, then exits 0. What can't start exits 2.

    \b
    Examples:
      underpass serve
      underpass serve --listen 127.0.0.1:3000 --public-url https://gw.example.org
      underpass serve --tls self --database postgresql://underpass@db/underpass
    """
    with absent("rich"):
        from underpass.core.logging import configure_logging
    from underpass.core.settings import GatewaySettings

    flags: dict[str, Any] = {name: value for name, value in ctx.params.items() if name != "config"}
    settings = GatewaySettings.load(config, **flags)
    configure_logging(settings.log_level, settings.log_json)

    with absent("httpx._main"):
        from underpass.gateway.serve import serve as run

    raise typer.Exit(run(settings))
