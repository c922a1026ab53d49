"""``underpass quota``: what a person may use, and has used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from underpass.cli.mapping_arguments import amount
from underpass.cli.options import options_of
from underpass.cli.output import Output
from underpass.core.errors import NotFound
from underpass.core.ids import is_id

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["app", "limit_of"]

_ROWS = (
    ("max_mappings", "Mappings", "mappings"),
    ("max_active_mappings", "Active mappings", "active_mappings"),
    ("max_connections_per_mapping", "Connections of each mapping", None),
    ("bandwidth", "Bandwidth, each way", None),
    ("monthly_traffic", "Traffic this month", "traffic"),
    ("max_sessions", "Terminal sessions", "sessions"),
    ("max_clients", "Machines", "clients"),
    ("max_workspaces", "Workspaces", None),
)
"""Limit, what people call it, and what is used of it."""


class QuotaGroup(TyperGroup):
    """Takes ``quota ann`` for ``quota show ann``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=QuotaGroup, rich_markup_mode=None, add_completion=False, invoke_without_command=True
)

Who = Annotated[str, typer.Argument(metavar="USER", help="User name or id.")]
Count = typer.Option(metavar="N", help="A number, or none for no limit.")


@app.callback()
def quota(ctx: typer.Context) -> None:
    """Show what a person may use and has used; admins change it. Without arguments: your own.

    \b
    Examples:
      underpass quota
      underpass quota ann
      underpass quota set ann --monthly-traffic 10GB --bandwidth 1MB --max-mappings 5
      underpass quota set ann --monthly-traffic none
    """
    if ctx.invoked_subcommand is None:
        show(ctx)


def limit_of(text: str, *, in_bytes: bool = False) -> int | None:
    """A limit in the form people type it: ``5``, ``10GB``; ``none`` for no limit.

    Raises:
        typer.BadParameter: it is none of these.
    """
    plain = text.strip().lower()
    if plain in {"none", "unlimited"}:
        return None
    if in_bytes:
        return amount(text)
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 15):
        raise typer.BadParameter(f"{text!r} is no number; write 5, or none for no limit")
    return int(plain)


def _route(api: Api, who: str | None) -> str:
    """Where the quota of *who* is; one's own for None."""
    if who is None:
        user_id = api.get("/api/v1/auth/me")["user"]["id"]
    elif is_id(who):
        user_id = who
    else:
        user_id = _id_of(api, who)
    return f"/api/v1/users/{user_id}/quota"


def _id_of(api: Api, name: str) -> str:
    me = api.get("/api/v1/auth/me")["user"]
    if me["username"] == name.lower():
        return str(me["id"])
    for user in api.items("/api/v1/users", q=name):
        if user["username"] == name.lower():
            return str(user["id"])
    raise NotFound(f"There is no user called {name!r}.", hint="Check the name.")


@app.command("show")
def show(
    ctx: typer.Context,
    who: Annotated[
        str | None, typer.Argument(metavar="[USER]", help="User name or id; default yourself.")
    ] = None,
) -> None:
    """What a person may use, and has used."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        found = api.get(_route(api, who))
    _print(options.json, found)


@app.command("set")
def set_quota(
    ctx: typer.Context,
    who: Who,
    max_mappings: Annotated[str | None, Count] = None,
    max_active_mappings: Annotated[str | None, Count] = None,
    max_connections_per_mapping: Annotated[str | None, Count] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(metavar="N", help="Bytes a second of all tunnels, each way: 500k, 1MB; none."),
    ] = None,
    monthly_traffic: Annotated[
        str | None,
        typer.Option(metavar="N", help="Bytes of all tunnels, both ways, a month: 10GB; none."),
    ] = None,
    max_sessions: Annotated[str | None, Count] = None,
    max_clients: Annotated[str | None, Count] = None,
    max_workspaces: Annotated[str | None, Count] = None,
) -> None:
    """Change the limits that are given, at once; the others stay. For admins.

    \b
    Examples:
      underpass quota set ann --bandwidth 500k --max-connections-per-mapping 20
      underpass quota set ann --max-mappings none
    """
    from underpass.cli.api import Api

    counts = {
        "max_mappings": max_mappings, "max_active_mappings": max_active_mappings,
        "max_connections_per_mapping": max_connections_per_mapping, "max_sessions": max_sessions,
        "max_clients": max_clients, "max_workspaces": max_workspaces,
    }  # fmt: skip
    volumes = {"bandwidth": bandwidth, "monthly_traffic": monthly_traffic}
    wanted = {name: limit_of(text) for name, text in counts.items() if text is not None}
    for name, text in volumes.items():
        if text is not None:
            wanted[name] = limit_of(text, in_bytes=True)
    if not wanted:
        raise typer.BadParameter("nothing to change was given")
    options = options_of(ctx)
    with Api(options.connection()) as api:
        changed = api.post(_route(api, who), **wanted)
    _print(options.json, changed)


def _print(as_json: bool, found: dict[str, Any]) -> None:
    from underpass.control.quota import bytes_text

    usage = found["usage"]

    def text(name: str, value: int | None) -> str:
        if value is None:
            return "no limit"
        if name == "bandwidth":
            return f"{bytes_text(value)}/s"
        return bytes_text(value) if name == "monthly_traffic" else str(value)

    rows = [
        (what, "" if used is None else text(name, usage[used]), text(name, found[name]))
        for name, what, used in _ROWS
    ]
    Output(as_json).table(("What", "Used", "Limit"), rows, value=found)
    if not as_json:
        print(f"\nThe month's traffic renews on {usage['renews_at'][:10]} at 00:00 UTC.")
