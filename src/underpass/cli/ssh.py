"""``underpass ssh-proxy`` and ``ssh-config``: stock ssh, scp, rsync and editors reach machines."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from underpass.cli import exits
from underpass.cli.arguments import MachineName
from underpass.cli.options import Connection, Options, options_of
from underpass.cli.output import Output
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.core.whole_file import replace_file

__all__ = ["apps", "host_alias", "proxy_command", "ssh_entries"]

proxy_app = typer.Typer(rich_markup_mode=None, add_completion=False)
config_app = typer.Typer(rich_markup_mode=None, add_completion=False)
apps = {"ssh-proxy": proxy_app, "ssh-config": config_app}

Port = Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="The sshd's port.")]
FILE = "underpass.conf"
"""Beside ``~/.ssh/config``, which takes it in with ``Include underpass.conf``."""


@proxy_app.command()
def ssh_proxy(
    ctx: typer.Context,
    name: MachineName,
    port: Annotated[
        int, typer.Argument(metavar="[PORT]", min=1, max=65535, help="The sshd's port.")
    ] = 22,
) -> None:
    """Carry one SSH connection to a machine's own sshd, through its agent.

    \b
    Examples:
      ssh -o ProxyCommand='underpass ssh-proxy %h %p' root@web-1
      underpass ssh-config --write       does this for all machines
    """
    options = options_of(ctx)
    try:
        asyncio.run(_carry(options.connection(), name, port))
    except UnderpassError as error:
        Output().failure(error)
        raise typer.Exit(exits.OWN_FAILURE) from None


async def _carry(connection: Connection, name: str, port: int) -> None:
    from underpass.cli.links import opened
    from underpass.cli.stdio import StdioStream
    from underpass.links.relay import relay

    target = f"tcp:127.0.0.1:{port}"
    async with opened(connection, target, interactive=True, agent=name) as stream:
        result = await relay(StdioStream(), stream)
    if result.error is not None and result.error.code != "broken_pipe":
        raise result.error


@config_app.command()
def ssh_config(
    ctx: typer.Context,
    write: Annotated[
        bool, typer.Option("--write", "-w", help=f"Write ~/.ssh/{FILE} instead of printing.")
    ] = False,
    include: Annotated[
        bool, typer.Option("--include", help="With --write: put the Include into ~/.ssh/config.")
    ] = False,
    port: Port = 22,
    user: Annotated[str | None, typer.Option(help="Log in as this user.")] = None,
    suffix: Annotated[str, typer.Option(help="What follows a machine's name.")] = ".underpass",
) -> None:
    """Write the ssh configuration for your machines: ssh NAME.underpass then works.

    \b
    Examples:
      underpass ssh-config --write --include
      ssh web-1.underpass
      scp file web-1.underpass:/tmp/
      rsync -a dir/ web-1.underpass:dir/
    """
    from underpass.cli.api import Api

    options = options_of(ctx)
    connection = options.connection()
    with Api(connection) as api:
        machines = api.items("/api/v1/assets")
    entries = ssh_entries(
        machines, proxy_command(options, connection), port=port, user=user, suffix=suffix
    )
    hosts = [host_alias(machine, suffix) for machine in machines]
    if not write:
        Output(options.json).value({"hosts": hosts, "config": entries}, entries)
        return
    path = Path("~/.ssh").expanduser() / FILE
    _replace(path, entries)
    included = _include(path.parent / "config", add=include)
    hint = "" if included else f"\nPut this line at the top of ~/.ssh/config: Include {FILE}"
    Output(options.json).value(
        {"path": str(path), "hosts": hosts, "included": included},
        f"{len(hosts)} machines written to {path}.{hint}",
    )


def host_alias(machine: dict[str, Any], suffix: str) -> str:
    """What to type after ``ssh``: the machine's name in characters ssh takes, and *suffix*."""
    name = str(machine.get("name") or machine["hostname"]).lower()
    return (re.sub(r"[^a-z0-9._-]+", "-", name).strip("-.") or str(machine["id"])) + suffix


def proxy_command(options: Options, connection: Connection) -> list[str]:
    """How ssh calls us, from any directory: the program and the options that name the gateway.

    The token is not in it: it comes from ``login`` or ``UNDERPASS_TOKEN``.
    """
    program = Path(sys.argv[0])
    words = (
        [str(program.absolute())]
        if program.name == "underpass" and os.access(program, os.X_OK)
        else [sys.executable, "-m", "underpass.cli.main"]
    )
    words += ["--server", connection.server]
    if options.fingerprint:
        words += ["--fingerprint", options.fingerprint]
    return words


def ssh_entries(
    machines: list[dict[str, Any]],
    command: list[str],
    *,
    port: int = 22,
    user: str | None = None,
    suffix: str = ".underpass",
) -> str:
    """The configuration, one ``Host`` for each machine.

    Host keys are remembered by the machine's id: a machine that takes over another's name does not
    take over its trust.
    """
    lines = ["# Written by `underpass ssh-config`; changes are lost when it runs again."]
    seen: set[str] = set()
    for machine in machines:
        alias = host_alias(machine, suffix)
        if alias in seen:
            alias = f"{machine['id']}{suffix}"
        seen.add(alias)
        called = shlex.join([*command, "ssh-proxy", str(machine["id"]), str(port)])
        lines += [
            "",
            f"Host {alias}",
            f"  HostKeyAlias underpass-{machine['id']}",
            *([f"  User {user}"] if user else []),
            # ssh expands % in it before the shell sees it.
            f"  ProxyCommand {called.replace('%', '%%')}",
        ]
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise InvalidRequest(f"Can't write {path}: {error.strerror}.", code="unwritable") from None


def _include(config: Path, *, add: bool) -> bool:
    """Whether *config* takes our file in, after adding the line if asked to."""
    text = config.read_text(encoding="utf-8") if config.exists() else ""
    if re.search(rf"^\s*Include\s+(?:\S*/)?{re.escape(FILE)}\s*$", text, re.MULTILINE):
        return True
    if add:
        # At the top: an Include inside a Host block would hold for that host only.
        _replace(config, f"Include {FILE}\n\n{text}" if text else f"Include {FILE}\n")
    return add
