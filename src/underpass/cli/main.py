"""``underpass``: finds the command, runs it, and turns every expected failure into one line.

Command modules are imported only when their command runs, so that ``underpass --help`` and
completion answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import underpass
from underpass.cli import exits
from underpass.cli.options import Options, Way
from underpass.core import garbage
from underpass.core.errors import UnderpassError

__all__ = ["COMMANDS", "main", "run"]

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "Start a gateway."),
    "agent": ("agent", "Make this machine reachable; install or uninstall the service."),
    "login": ("login", "Sign in to a gateway and remember it."),
    "logout": ("login", "Revoke and forget the login."),
    "machines": ("machines", "List, show and change machines."),
    "approve": ("enrolments", "Let a machine in that asks to join."),
    "reject": ("enrolments", "Refuse a machine that asks to join."),
    "token": ("tokens", "Make, list and revoke join tokens."),
    "shell": ("shell", "Open a terminal on a machine."),
    "exec": ("execute", "Run one command on a machine; bytes and exit status pass through."),
    "forward": ("forward", "Make ports a machine can reach local ports; they survive restarts."),
    "socks": ("socks", "Be a SOCKS5 and HTTP proxy whose connections leave at a machine."),
    "expose": ("expose", "Make a port of this machine reachable at the gateway, until Ctrl-C."),
    "mappings": ("mappings", "List, make and change what comes in here and goes out there."),
    "quota": ("quota", "Show and set what a person may use, and has used."),
    "offer": ("offer", "Lend a port of this machine to one person, with a one-time code."),
    "accept": ("accept", "Make what somebody offered with a code a local port."),
    "offers": ("offers", "List and revoke what was lent with one-time codes."),
    "sessions": ("sessions", "List, watch and end terminal sessions."),
    "recordings": ("recordings", "List, play and export recorded sessions."),
    "ssh-proxy": ("ssh", "Carry one SSH connection (for ssh's ProxyCommand)."),
    "ssh-config": ("ssh", "Write the ssh configuration for your machines."),
    "check": ("check", "Check the file that declares what this machine publishes."),
    "doctor": ("doctor", "Check the way to the gateway, step by step."),
    "version": ("version", "Show the versions of this program and of the gateway."),
}
"""Command name -> (module in ``underpass.cli`` with its ``app``, what it does)."""

_PASSED_ON = {"serve", "agent", "shell", "exec", "ssh-proxy"}
"""Commands whose arguments are their own: ``--json`` after them is not ours."""


class LazyGroup(TyperGroup):
    """The commands of :data:`COMMANDS`, each imported when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"underpass.cli.{COMMANDS[cmd_name][0]}")
        app: typer.Typer = getattr(module, "apps", {}).get(cmd_name) or module.app
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"underpass {underpass.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The gateway (UNDERPASS_SERVER).")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="T", help="Access token or API key (UNDERPASS_TOKEN)."),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help="Believe only this certificate, sha256:… (UNDERPASS_FINGERPRINT).",
        ),
    ] = None,
    transport: Annotated[
        Way | None,
        typer.Option(help="How to link (UNDERPASS_TRANSPORT): default auto."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Reach any machine you own, whatever stands in the way.

    \b
    Examples:
      underpass serve                          start a gateway
      underpass agent --join URL TOKEN         make this machine reachable
      underpass login https://gw.example.org   sign in
      underpass shell web-1                    a terminal on a machine
      underpass exec web-1 -- uname -a         one command
    """
    ctx.obj = Options(server, token, fingerprint, json, transport)


def hoisted(arguments: list[str]) -> list[str]:
    """*arguments* with ``--json`` moved to the front, wherever before ``--`` it stands."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head, tail = arguments[:end], arguments[end:]
    if "--json" not in head or _PASSED_ON.intersection(head[: head.index("--json")]):
        return arguments
    return ["--json", *(argument for argument in head if argument != "--json"), *tail]


def run(arguments: list[str]) -> int:
    """Run one command line; gives the exit status, never raises for an expected failure."""
    arguments = hoisted(arguments)
    as_json = arguments[:1] == ["--json"]
    try:
        status = app(arguments, prog_name="underpass", standalone_mode=False)
    except UnderpassError as error:
        from underpass.cli.output import Output

        Output(as_json).failure(error)
        return getattr(error, "exit_status", None) or exits.status_of(error)
    except (typer.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is wrong, and nobody is left to tell.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return exits.FAILED
    except Exception as error:  # the last place; what is expected was caught above
        usage = _usage(error)
        if usage is not None:
            return usage
        if os.environ.get("UNDERPASS_DEBUG"):
            raise
        print(
            f"underpass: a bug: {type(error).__name__}: {error}. Set UNDERPASS_DEBUG=1 for the"
            " trace, and please report it.",
            file=sys.stderr,
        )
        return exits.FAILED
    return status if isinstance(status, int) else exits.OK


def _usage(error: Exception) -> int | None:
    """Report wrong arguments in one line; None when *error* is something else."""
    describe = getattr(error, "format_message", None)
    status = getattr(error, "exit_code", None)
    if describe is None or status is None:
        return None
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help())  # type: ignore[union-attr]
        return exits.USAGE
    path = context.command_path if context is not None else "underpass"
    print(f"underpass: {describe().rstrip('.')}. See: {path} --help", file=sys.stderr)
    return int(status)


def main() -> None:
    """The console script."""
    garbage.relax()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
