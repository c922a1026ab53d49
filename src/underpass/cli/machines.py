"""``underpass machines``: list, show, change and remove machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from underpass.cli.arguments import MachineName, labels
from underpass.cli.options import options_of
from underpass.cli.output import Output, ago, size

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, invoke_without_command=True)


@app.callback()
def machines(ctx: typer.Context) -> None:
    """List, show and change machines; without a subcommand: list.

    \b
    Examples:
      underpass machines
      underpass machines list --label env=prod --status online
      underpass --json machines show web-1
      underpass machines set web-1 --label env=prod --allow bob
    """
    if ctx.invoked_subcommand is None:
        list_machines(ctx)


@app.command("list")
def list_machines(
    ctx: typer.Context,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Name contains this.")] = None,
    status: Annotated[
        str | None, typer.Option(help="online, offline, degraded or maintenance.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Has this label.")
    ] = None,
) -> None:
    """The machines you may see."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    wanted = labels(label)
    with Api(options.connection()) as api:
        found = api.items("/api/v1/assets", q=text)
    found = [
        machine
        for machine in found
        if (status is None or machine["status"] == status)
        and wanted.items() <= (machine.get("labels") or {}).items()
    ]
    now = time.time()
    Output(options.json).table(
        ("Name", "Status", "Labels", "System", "CPU", "Memory", "Seen", "Version"),
        [_row(machine, now) for machine in found],
        value=found,
        empty="No machine yet. Add one: underpass token create, then run its join command there.",
    )


def _row(machine: dict[str, Any], now: float) -> tuple[Any, ...]:
    facts, load = machine.get("static_info") or {}, machine.get("dynamic_info") or {}
    memory = load.get("memory_percent")
    cpu = load.get("cpu_percent")
    return (
        machine.get("name") or machine["hostname"],
        machine["status"],
        " ".join(f"{key}={value}" for key, value in sorted((machine.get("labels") or {}).items())),
        " ".join(filter(None, (facts.get("os"), facts.get("os_version"), facts.get("arch")))),
        "" if cpu is None else f"{cpu:.0f} %",
        "" if memory is None else f"{memory:.0f} % of {size(load.get('memory_total'))}",
        ago(machine.get("last_seen_at"), now),
        machine.get("version"),
    )


@app.command("show")
def show(ctx: typer.Context, name: MachineName) -> None:
    """Everything known about one machine."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        machine = api.get(f"/api/v1/assets/{api.machine(name)['id']}")
    _print(options.json, machine)


def _print(as_json: bool, machine: dict[str, Any]) -> None:
    rows = [
        (key, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in machine.items()
        if not isinstance(value, dict)
    ]
    for group in ("labels", "static_info", "dynamic_info"):
        rows += [(f"{group}.{key}", value) for key, value in (machine.get(group) or {}).items()]
    Output(as_json).table(("Field", "Value"), rows, value=machine)


@app.command("set")
def change(
    ctx: typer.Context,
    name: MachineName,
    new_name: Annotated[str | None, typer.Option("--name", help="Call it this.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="Set a label; KEY= removes it."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="USER", help="Let this user in.")
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option("--deny", metavar="USER", help="No longer let in.")
    ] = None,
    status: Annotated[
        Literal["maintenance", "online"] | None,
        typer.Option(help="maintenance: no new sessions; online: back to normal."),
    ] = None,
    may_declare: Annotated[
        bool | None,
        typer.Option(
            "--may-declare/--no-may-declare",
            help="Whether mappings in its underpass.yaml count.",
        ),
    ] = None,
) -> None:
    """Change a machine's name, labels, users or status."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        machine = api.machine(name)
        changes: dict[str, Any] = {}
        if new_name:
            changes["name"] = new_name
        if label:
            merged = (machine.get("labels") or {}) | labels(label)
            changes["labels"] = {key: value for key, value in merged.items() if value}
        if allow or deny:
            denied, allowed = _user_ids(api, deny), _user_ids(api, allow)
            users = [u for u in machine.get("allowed_users") or [] if u not in denied]
            changes["allowed_users"] = [*users, *(u for u in allowed if u not in users)]
        if status:
            changes["status"] = status
        if may_declare is not None:
            changes["may_declare"] = may_declare
        if not changes:
            raise typer.BadParameter("nothing to change was given")
        changed = api.patch(f"/api/v1/assets/{machine['id']}", **changes)
    _print(options.json, changed if isinstance(changed, dict) else machine | changes)


def _user_ids(api: Api, names: list[str] | None) -> list[str]:
    """The ids of users given by name or id; the gateway judges ids it does not know."""
    if not names:
        return []
    by_name = {user["username"]: user["id"] for user in api.items("/api/v1/users")}
    return [by_name.get(name, name) for name in names]


@app.command("remove")
def remove(
    ctx: typer.Context,
    name: MachineName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a machine: its links and sessions end, its key has to be approved anew."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        machine = api.machine(name)
        if not yes:
            typer.confirm(f"Remove {name} and end its sessions?", abort=True, err=True)
        api.delete(f"/api/v1/assets/{machine['id']}")
    Output(options.json).value({"id": machine["id"], "removed": True}, f"Removed {name}.")
