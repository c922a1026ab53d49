"""``underpass version``: this program's version, and the gateway's when it answers."""

from __future__ import annotations

import platform

import typer

import underpass
from underpass.cli.options import options_of
from underpass.cli.output import Output

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def version(ctx: typer.Context) -> None:
    """Show the versions of this program, of Python, and of the gateway if it answers."""
    from underpass.cli.api import Api
    from underpass.core.errors import UnderpassError

    options = options_of(ctx)
    connection = options.connection()
    try:
        with Api(connection, timeout=3) as api:
            gateway: str | None = api.get("/version")["version"]
    except (UnderpassError, KeyError, TypeError):
        gateway = None
    value = {
        "version": underpass.__version__,
        "python": platform.python_version(),
        "server": connection.server,
        "gateway": gateway,
    }
    lines = [
        f"underpass {value['version']} on Python {value['python']}",
        f"gateway   {gateway or 'no answer'} at {connection.server}",
    ]
    Output(options.json).value(value, "\n".join(lines))
