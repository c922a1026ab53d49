"""``underpass check``: is the file that declares this machine's mappings right? Asks nobody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from underpass.cli import exits
from underpass.cli.options import options_of
from underpass.cli.output import Output
from underpass.core.errors import InvalidRequest

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_PLACES = (Path("underpass.yaml"), Path("~/.underpass/underpass.yaml"))


@app.command()
def check(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Default: underpass.yaml here, or in ~/.underpass."),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print one with every key and its default.")
    ] = False,
) -> None:
    """Check an underpass.yaml, which declares what this machine publishes; asks no gateway.

    Status 0: it is right. 1: it is not, and every mistake is printed with its line. 2: there is
    no such file. Whether ports are free and the machine may declare, only the gateway knows.

    \b
    Examples:
      underpass check
      underpass check /etc/underpass.yaml
      underpass check --example > underpass.yaml
    """
    from underpass.agent.declared import DeclaredError, parse_declared

    output = Output(options_of(ctx).json)
    if example:
        from underpass.agent.declared_example import EXAMPLE

        output.value({"example": EXAMPLE}, EXAMPLE.rstrip("\n"))
        return
    path = file or next((place for place in _PLACES if place.expanduser().exists()), _PLACES[0])
    path = path.expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(
            f"Can't read {path}: {error.strerror}.",
            code="unreadable",
            hint="Print an example: underpass check --example",
        ) from None
    try:
        found = parse_declared(data, str(path))
    except DeclaredError as error:
        if options_of(ctx).json:
            output.value({"file": str(path), "valid": False, "errors": _errors(error)}, "")
        else:
            for line in error.lines:
                print(line, file=sys.stderr)
        raise typer.Exit(exits.FAILED) from None
    names = [each.name for each in found]
    count = f"{len(names)} mapping{'' if len(names) == 1 else 's'}"
    output.value(
        {"file": str(path), "valid": True, "errors": [], "mappings": names},
        f"{path} is right: {count}{': ' if names else ''}{', '.join(names)}.",
    )


def _errors(error: Any) -> list[dict[str, Any]]:
    return [{"line": each.line or None, "error": each.text} for each in error.problems]
