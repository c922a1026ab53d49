"""``underpass expose``: a port of this machine on the gateway, as long as the command runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer
from typer.core import TyperGroup

from underpass.cli import exits
from underpass.cli.mapping_arguments import (
    Allow,
    Bandwidth,
    Bind,
    Connections,
    Deny,
    Machine,
    Name,
    PasswordStdin,
    Port,
    Username,
    asked,
    given_password,
    source_of,
    target_of,
)
from underpass.cli.options import options_of
from underpass.cli.output import Output
from underpass.cli.this_machine import this_machine
from underpass.core.errors import InvalidRequest, NotFound, UnderpassError

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["Stopped", "app", "stopping"]

ROUTE = "/api/v1/mappings"
LOOK_EVERY = 15.0
"""Seconds between looks whether the mapping is still there and well."""

Keep = Annotated[bool, typer.Option("--keep", help="Leave the mapping when the command ends.")]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="PORT, or HOST:PORT as the machine sees it.")
]


class ExposeGroup(TyperGroup):
    """Explains what ``expose 3000`` will be, instead of calling 3000 an unknown command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].isdigit():
            raise InvalidRequest(
                f"expose {args[0]} (HTTP by host name) comes with a later version.",
                code="not_offered",
                hint=f"Until then: underpass expose tcp {args[0]}",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=ExposeGroup, rich_markup_mode=None, add_completion=False, no_args_is_help=True
)


@app.callback()
def expose() -> None:
    """Make a port of this machine (or another) reachable at the gateway, until Ctrl-C.

    The first line on stdout is the public address alone, HOST:PORT.

    \b
    Examples:
      underpass expose tcp 22
      underpass expose tcp 5432 --on db-1 --port 20432
      underpass expose udp 53 --allow 192.0.2.0/24
      underpass expose socks --on office --username ann
    """


def _port_command(protocol: str, about: str) -> Callable[..., None]:
    """The command that exposes one port of *protocol*; *about* is its help."""

    def command(
        ctx: typer.Context,
        target: Target,
        machine: Machine = None,
        port: Port = None,
        bind: Bind = None,
        name: Name = None,
        bandwidth: Bandwidth = None,
        connections: Connections = None,
        allow: Allow = None,
        deny: Deny = None,
        keep: Keep = False,
    ) -> None:
        body = asked(
            protocol=protocol, name=name, bandwidth=bandwidth, connections=connections,
            source=source_of(port, None, bind, None), **target_of(protocol, target),
            options={"allow_ips": allow, "deny_ips": deny},
        )  # fmt: skip
        _run(ctx, body, machine, keep)

    command.__doc__ = about
    return command


app.command("tcp")(
    _port_command(
        "tcp",
        "A TCP port. Without --on: of the machine this is typed on, whose agent must be enrolled.",
    )
)
app.command("udp")(
    _port_command("udp", "A UDP port; --connections counts flows, one for each address that sends.")
)


@app.command("socks")
def socks(
    ctx: typer.Context,
    machine: Machine = None,
    port: Port = None,
    bind: Bind = None,
    name: Name = None,
    username: Username = "underpass",
    password_stdin: PasswordStdin = False,
    bandwidth: Bandwidth = None,
    connections: Connections = None,
    allow: Allow = None,
    deny: Deny = None,
    keep: Keep = False,
) -> None:
    """A SOCKS5 and HTTP CONNECT proxy that leads where the machine's policy lets it.

    The second line on stdout is the proxy's URL with its login.
    """
    password = given_password(password_stdin)
    body = asked(
        protocol="socks5", name=name, bandwidth=bandwidth, connections=connections,
        source=source_of(port, None, bind, None),
        options={
            "allow_ips": allow, "deny_ips": deny, "username": username, "password": password,
        },
    )  # fmt: skip
    _run(ctx, body, machine, keep, login=(username or "", password))


def _run(
    ctx: typer.Context,
    body: dict[str, Any],
    machine: str | None,
    keep: bool,
    login: tuple[str, str] | None = None,
) -> None:
    from underpass.cli.api import Api

    options = options_of(ctx)
    output = Output(options.json)
    with stopping() as stopped, Api(options.connection()) as api:
        agent = api.machine(machine) if machine else this_machine(api)
        made = api.post(ROUTE, **body, target_client_id=agent["id"])
        try:
            address = urlsplit(made["public_url"]).netloc
            value = {**made, "address": address}
            text = address
            if login is not None:
                url = f"socks5h://{quote(login[0], safe='')}:{quote(login[1], safe='')}@{address}"
                value["proxy"] = url
                text = f"{address}\n{url}"
            output.value(value, text)
            what = f"{made['name']} on {agent.get('name') or agent['hostname']}"
            output.note(f"{what}: {'stays open' if keep else 'open until Ctrl-C'}.")
            _watch(api, made["id"], stopped, output)
        finally:
            if not keep:
                _remove(api, made)
    raise typer.Exit(exits.INTERRUPTED if stopped.number == signal.SIGINT else exits.OK)


class Stopped:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.number = 0
        self._event = threading.Event()

    def tell(self, number: int, _frame: object) -> None:
        self.number = number
        self._event.set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


@contextmanager
def stopping() -> Iterator[Stopped]:
    """Signals end the waiting, not the program, which has a mapping to remove."""
    stopped = Stopped()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stopped.tell) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(api: Api, mapping_id: str, stopped: Stopped, output: Output) -> None:
    """Wait for a signal, and say what becomes of the mapping meanwhile.

    Raises:
        NotFound: somebody deleted it.
    """
    last = None
    while not stopped.wait(LOOK_EVERY):
        try:
            mapping = api.get(f"{ROUTE}/{mapping_id}")
            state = f"{mapping['status']}: {mapping['error']}" if mapping["error"] else None
        except NotFound:
            raise NotFound("The mapping was deleted.", code="mapping_deleted") from None
        except UnderpassError as error:
            state = error.message  # a gateway that restarts comes back, and the mapping with it
        if state != last:
            output.note(state or "It is well again.")
        last = state


def _remove(api: Api, made: dict[str, Any]) -> None:
    try:
        api.delete(f"{ROUTE}/{made['id']}")
    except NotFound:
        pass  # somebody was faster
    except UnderpassError as error:
        error.hint = f"Remove it later: underpass mappings delete {made['name']}"
        raise
