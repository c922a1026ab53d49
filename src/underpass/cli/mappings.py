"""``underpass mappings``: what comes in at a port here goes out at a machine, for good."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from underpass.cli.arguments import complete_machine
from underpass.cli.mapping_arguments import (
    Allow,
    At,
    Balance,
    Bandwidth,
    Bind,
    Burst,
    Carrier,
    Compression,
    Connections,
    Deny,
    E2e,
    Group,
    Health,
    Idle,
    Name,
    PasswordStdin,
    Port,
    PortRange,
    ProxyProtocol,
    Username,
    asked,
    given_password,
    health_of,
    source_of,
    target_of,
)
from underpass.cli.options import options_of
from underpass.cli.output import Output, ago, size
from underpass.core.errors import Conflict, NotFound, UnderpassError
from underpass.core.ids import is_id

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["app", "find_mapping", "target_text"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, invoke_without_command=True)

ROUTE = "/api/v1/mappings"
Which = Annotated[str, typer.Argument(metavar="NAME", help="The mapping's name or id.")]


@app.callback()
def mappings(ctx: typer.Context) -> None:
    """List, make and change mappings; without a subcommand: list.

    \b
    Examples:
      underpass mappings
      underpass mappings create tcp 22 --on web-1 --name web-1-ssh
      underpass mappings create udp 10.0.0.7:53 --on web-1 --port 20053
      underpass mappings update web-1-ssh --bandwidth 1M --allow 192.0.2.0/24
      underpass mappings disable web-1-ssh
    """
    if ctx.invoked_subcommand is None:
        list_mappings(ctx)


@app.command("list")
def list_mappings(
    ctx: typer.Context,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Name or target contains this.")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option("--machine", "-m", help="To or at this.", autocompletion=complete_machine),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="tcp, udp, socks5 or unix.")] = None,
    status: Annotated[str | None, typer.Option(help="active, disabled or error.")] = None,
) -> None:
    """Your mappings; everybody's, for admins and auditors."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        agent = api.machine(machine)["id"] if machine else None
        found = api.items(
            ROUTE, q=text, client_id=agent, protocol=protocol, status=status, sort="name"
        )
        names = _machine_names(api) if found else {}
    now = time.time()
    Output(options.json).table(
        ("Name", "From", "To", "Machine", "Status", "Health", "Open", "Sent", "Received", "Active"),
        [_row(mapping, names, now) for mapping in found],
        value=found,
        empty="No mapping yet. Make one: underpass mappings create tcp 22 --on MACHINE",
    )


def _machine_names(api: Api) -> dict[str, str]:
    try:
        machines = api.items("/api/v1/assets", limit=1000)
    except UnderpassError:
        return {}  # only for the table
    return {machine["id"]: machine.get("name") or machine["hostname"] for machine in machines}


def _row(mapping: dict[str, Any], names: dict[str, str], now: float) -> tuple[Any, ...]:
    stats, health = mapping["stats"], mapping.get("health_status")
    return (
        mapping["name"],
        source_text(mapping, names),
        target_text(mapping),
        names.get(mapping["target_client_id"], mapping["target_client_id"]),
        mapping["status"] + (", declared" if mapping.get("declared_by") else ""),
        health["health"] if health else None,
        stats["active"],
        size(stats["bytes_sent"]),
        size(stats["bytes_received"]),
        ago(stats["last_active_at"], now),
    )


def source_text(mapping: dict[str, Any], names: dict[str, str]) -> str:
    """Where traffic comes in, in one word: its public address, or a port of a machine."""
    source = mapping["source"]
    if source.get("client_id"):
        at = names.get(source["client_id"], source["client_id"])
        return f"{at}:{source.get('port') or source.get('port_range')}"
    if source.get("port_range"):
        return f"{mapping['protocol']}:{source['port_range']}"
    return str(mapping["public_url"])


def target_text(mapping: dict[str, Any]) -> str:
    """Where it goes, in one word."""
    if mapping["target_path"]:
        return str(mapping["target_path"])
    if mapping["target_port"] is None:
        return "anywhere"
    host = mapping["target_host"]
    return (
        f"[{host}]:{mapping['target_port']}" if ":" in host else f"{host}:{mapping['target_port']}"
    )


def find_mapping(api: Api, which: str) -> dict[str, Any]:
    """The mapping of this name or id.

    Raises:
        NotFound, Conflict: none, or several: other people's, or declared by machines.
    """
    if is_id(which):
        return api.get(f"{ROUTE}/{which}")
    found = [one for one in api.items(ROUTE, q=which) if one["name"] == which]
    if len(found) == 1:
        return found[0]
    if found:
        raise Conflict(f"{len(found)} mappings are called {which!r}.", hint="Use its id.")
    raise NotFound(f"There is no mapping called {which!r}.", hint="See: underpass mappings")


@app.command("show")
def show(ctx: typer.Context, which: Which) -> None:
    """Everything known about one mapping."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        mapping = find_mapping(api, which)
    _print(options.json, mapping)


def _print(as_json: bool, mapping: dict[str, Any]) -> None:
    rows: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        if not isinstance(value, dict):
            rows.append((key, value))
            continue
        for name, part in value.items():
            shown = ", ".join(map(str, part)) if isinstance(part, list) else part
            rows.append((f"{key}.{name}", shown))
    Output(as_json).table(("Field", "Value"), rows, value=mapping)


@app.command("create")
def create(
    ctx: typer.Context,
    protocol: Annotated[
        Literal["tcp", "udp", "socks5", "unix"],
        typer.Argument(metavar="PROTOCOL", help="tcp, udp, socks5 or unix."),
    ],
    machine: Annotated[
        str,
        typer.Option("--on", metavar="MACHINE", help="Where the target is.",
                     autocompletion=complete_machine),
    ],
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="PORT, HOST:PORT as the machine sees it; PATH."),
    ] = None,
    port: Port = None,
    port_range: PortRange = None,
    bind: Bind = None,
    at: At = None,
    name: Name = None,
    bandwidth: Bandwidth = None,
    burst: Burst = None,
    connections: Connections = None,
    allow: Allow = None,
    deny: Deny = None,
    proxy_protocol: ProxyProtocol = None,
    compression: Compression = None,
    e2e: E2e = None,
    carrier: Carrier = None,
    idle: Idle = None,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    group: Group = None,
    balance: Balance = None,
    health: Health = None,
    disabled: Annotated[bool, typer.Option(help="Only store it.")] = False,
) -> None:  # fmt: skip
    """Make a mapping; it stays until it is deleted. Prints its public address.

    \b
    Examples:
      underpass mappings create tcp 22 --on web-1
      underpass mappings create unix /run/app.sock --on web-1 --port 20080
      underpass mappings create socks5 --on web-1 --username ann
      underpass mappings create tcp 5432 --on db-1 --at laptop --port 15432
      underpass mappings create tcp 80 --on web-1 --group web --health http:/ok,interval=5
    """
    from underpass.cli.api import Api

    options = options_of(ctx)
    password = None if username is None else given_password(password_stdin)
    body = asked(
        protocol=protocol, name=name, group=group, balance=balance,
        status="disabled" if disabled else None, **target_of(protocol, target),
        bandwidth=bandwidth, burst=burst, connections=connections, idle=idle,
        options={
            "allow_ips": allow, "deny_ips": deny, "proxy_protocol": proxy_protocol,
            "compression": compression, "e2e": e2e, "carrier": carrier, "username": username,
            "password": password,
        },
    )  # fmt: skip
    body |= health_of(health)
    with Api(options.connection()) as api:
        body["target_client_id"] = api.machine(machine)["id"]
        body["source"] = source_of(port, port_range, bind, api.machine(at)["id"] if at else None)
        made = api.post(ROUTE, **body)
    if username is not None and not password_stdin:
        made["password"] = password
    text = made["public_url"] or f"Made {made['name']}."
    Output(options.json).value(
        made, f"{text}\npassword of {username}: {password}" if "password" in made else text
    )


@app.command("update")
def update(
    ctx: typer.Context,
    which: Which,
    target: Annotated[str | None, typer.Option("--to", help="Another target.")] = None,
    machine: Annotated[
        str | None,
        typer.Option("--on", metavar="MACHINE", help="On another machine.",
                     autocompletion=complete_machine),
    ] = None,
    port: Port = None,
    port_range: PortRange = None,
    bind: Bind = None,
    at: At = None,
    name: Name = None,
    bandwidth: Bandwidth = None,
    burst: Burst = None,
    connections: Connections = None,
    allow: Allow = None,
    deny: Deny = None,
    proxy_protocol: ProxyProtocol = None,
    compression: Compression = None,
    e2e: E2e = None,
    carrier: Carrier = None,
    idle: Idle = None,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    group: Group = None,
    balance: Balance = None,
    health: Health = None,
) -> None:  # fmt: skip
    """Change what is given; open connections stay, unless the port changes.

    --allow and --deny replace the lists; "any" empties them.

    \b
    Examples:
      underpass mappings update web-1-ssh --bandwidth 500k --connections 10
      underpass mappings update web-1-ssh --port 20022 --allow any
    """
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        mapping = find_mapping(api, which)
        changes = asked(
            name=name, group=group, balance=balance,
            **({} if target is None else target_of(mapping["protocol"], target)),
            bandwidth=bandwidth, burst=burst, connections=connections, idle=idle,
            options={
                "allow_ips": allow, "deny_ips": deny, "proxy_protocol": proxy_protocol,
                "compression": compression, "e2e": e2e, "carrier": carrier, "username": username,
                "password": given_password(True) if password_stdin else None,
            },
        )  # fmt: skip
        changes |= health_of(health)
        if machine:
            changes["target_client_id"] = api.machine(machine)["id"]
        source = source_of(port, port_range, bind, api.machine(at)["id"] if at else None)
        if source:
            kept = {} if port_range or port is not None else mapping["source"]
            changes["source"] = {key: kept[key] for key in kept if kept[key] is not None} | source
        if not changes:
            raise typer.BadParameter("nothing to change was given")
        changed = api.patch(f"{ROUTE}/{mapping['id']}", **changes)
    _print(options.json, changed)


def _set_status(ctx: typer.Context, which: str, status: str, done: str) -> None:
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        mapping = find_mapping(api, which)
        changed = api.patch(f"{ROUTE}/{mapping['id']}", status=status)
    Output(options.json).value(changed, f"{done} {mapping['name']}.")


@app.command("enable")
def enable(ctx: typer.Context, which: Which) -> None:
    """Let traffic in again, at the same port."""
    _set_status(ctx, which, "active", "Enabled")


@app.command("disable")
def disable(ctx: typer.Context, which: Which) -> None:
    """Let no traffic in; what is open ends. Its port stays its own."""
    _set_status(ctx, which, "disabled", "Disabled")


@app.command("delete")
def delete(ctx: typer.Context, which: Which) -> None:
    """Remove a mapping; what is open ends, and others may have its port."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        mapping = find_mapping(api, which)
        api.delete(f"{ROUTE}/{mapping['id']}")
    value = {"id": mapping["id"], "deleted": True}
    Output(options.json).value(value, f"Deleted {mapping['name']}.")
