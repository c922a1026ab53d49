"""``underpass agent``: make this machine reachable, in the foreground or as a service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from underpass.cli import exits
from underpass.cli.event_loop import run_loop
from underpass.cli.options import options_of
from underpass.cli.output import Output

__all__ = ["app"]

SUBCOMMANDS = ("install", "uninstall")
_VALUED = {
    "--server", "--join", "--fingerprint", "--state", "--name", "--label", "--policy",
    "--config", "--transport", "--mode", "--log-level",
}  # fmt: skip


class AgentGroup(TyperGroup):
    """Understands ``--join URL TOKEN`` beside ``--server URL --join TOKEN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_pair(args))


def join_pair(args: list[str]) -> list[str]:
    """*args* with ``--join URL TOKEN`` written as ``--server URL --join TOKEN``."""
    index = 0
    while index < len(args) - 2 and args[index].startswith("-"):
        word, url, token = args[index : index + 3]
        pair = url.startswith(("http://", "https://")) and not token.startswith("-")
        if word == "--join" and pair and token not in SUBCOMMANDS:
            return [*args[:index], "--server", url, "--join", token, *args[index + 3 :]]
        index += 2 if word in _VALUED else 1
    return args


app = typer.Typer(
    rich_markup_mode=None, add_completion=False, cls=AgentGroup, invoke_without_command=True
)

Server = Annotated[str | None, typer.Option(metavar="URL", help="The gateway's address.")]
Join = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Come in at once with this join token.")
]
Fingerprint = Annotated[
    str | None, typer.Option(metavar="F", help="Believe only this certificate (sha256:…).")
]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="Keys: default ~/.underpass.")]
Name = Annotated[str | None, typer.Option(metavar="N", help="Default: the host's name.")]
Label = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="What it says of itself; grants nothing.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="What people may do here (YAML).")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="What this machine publishes (YAML; UNDERPASS_AGENT_CONFIG); default underpass.yaml"
        " in the state directory.",
    ),
]
Transport = Annotated[
    Literal["auto", "tcp", "websocket", "quic"] | None,
    typer.Option(help="How to link: default auto."),
]
Mode = Annotated[
    Literal["link", "poll"] | None,
    typer.Option(help="poll: short HTTPS requests only, where links do not get through."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Default info.")
]


@app.callback()
def agent(
    ctx: typer.Context,
    server: Server = None,
    join: Join = None,
    fingerprint: Fingerprint = None,
    state: State = None,
    name: Name = None,
    label: Label = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    transport: Transport = None,
    mode: Mode = None,
    log_level: LogLevel = None,
) -> None:
    """Make this machine reachable, in the foreground; without a token an admin has to approve it.

    Every flag is also an environment variable UNDERPASS_NAME. It retries for ever; only a final
    refusal ends it, with status 3. Wrong settings end it with status 2.

    \b
    Examples:
      underpass agent --join https://gw.example.org upj_…
      underpass agent --server https://gw.example.org --name db-1 --config /etc/underpass.yaml
      underpass agent --mode poll
    """
    if ctx.invoked_subcommand is not None:
        return
    options = options_of(ctx)
    flags = {
        "server": server or options.server,
        "join": join,
        "fingerprint": fingerprint or options.fingerprint,
        "state": state,
        "name": name,
        "labels": _labels(label),
        "policy": policy,
        "config": config,
        "transport": transport,
        "mode": mode,
        "log_level": log_level,
    }
    raise typer.Exit(_run({key: value for key, value in flags.items() if value is not None}))


def _labels(pairs: list[str] | None) -> dict[str, str] | None:
    from underpass.cli.arguments import labels

    return labels(pairs) if pairs else None


def _run(flags: dict[str, Any]) -> int:
    from underpass.agent.settings import AgentSettings
    from underpass.core.logging import configure_logging

    settings = AgentSettings.load(**flags)
    configure_logging(settings.log_level, settings.log_json)

    async def program() -> int:
        from underpass.agent.app import run_agent

        return await run_agent(settings)

    return run_loop(program)


@app.command()
def install(
    ctx: typer.Context,
    server: Server = None,
    join: Join = None,
    fingerprint: Fingerprint = None,
    state: State = None,
    name: Name = None,
    label: Label = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    transport: Transport = None,
    mode: Mode = None,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start it now and at every boot.")
    ] = True,
) -> None:
    """Install the agent as a service (systemd; launchd on macOS) and start it.

    As root for the machine; as anybody else for that user. The join token goes into a file that
    only its owner can read, not into the unit.

    \b
    Examples:
      sudo underpass agent install --server https://gw.example.org --join upj_…
      underpass agent install --no-start        only write the files
    """
    from underpass.agent.service import Service, ServicePlan, detect_manager

    system = os.geteuid() == 0
    home = Path("~").expanduser()
    where = state or (Path("/var/lib/underpass") if system else home / ".underpass")
    plan = ServicePlan(
        command=service_command(
            server=server, fingerprint=fingerprint, state=where.expanduser().absolute(),
            name=name, label=label, policy=policy, config=config, transport=transport, mode=mode,
        ),
        secrets={"UNDERPASS_JOIN": join} if join else {},
        system=system,
        home=home,
    )  # fmt: skip
    service = Service(plan, detect_manager() if start else _manager_to_write_for())
    service.install(start=start)
    follow = "journalctl -fu underpass-agent" if system else "journalctl --user -fu underpass-agent"
    Output(options_of(ctx).json).value(
        {"path": str(service.path), "started": start},
        f"Installed {service.path}."
        + (f" It is running; follow it with: {follow}" if start else " Not started."),
    )


def _manager_to_write_for() -> Any:
    return "launchd" if sys.platform == "darwin" else "systemd"


def service_command(
    *,
    server: str | None,
    fingerprint: str | None,
    state: Path,
    name: str | None,
    label: list[str] | None,
    policy: Path | None,
    transport: str | None,
    mode: str | None,
    config: Path | None = None,
) -> list[str]:
    """The command line the service runs: absolute, and the same flags as given here."""
    program = Path(sys.argv[0])
    words = (
        [str(program.absolute())]
        if program.name == "underpass"
        else [sys.executable, "-m", "underpass.cli.main"]
    )
    words += ["agent", "--state", str(state)]
    for flag, value in (
        ("--server", server),
        ("--fingerprint", fingerprint),
        ("--name", name),
        ("--policy", policy.expanduser().absolute() if policy else None),
        ("--config", config.expanduser().absolute() if config else None),
        ("--transport", transport),
        ("--mode", mode),
    ):
        if value is not None:
            words += [flag, str(value)]
    for pair in label or []:
        words += ["--label", pair]
    return words


@app.command()
def uninstall(ctx: typer.Context) -> None:
    """Stop and remove the service; keys and settings in the state directory stay."""
    from underpass.agent.service import Service, ServicePlan

    plan = ServicePlan([], system=os.geteuid() == 0, home=Path("~").expanduser())
    service = Service(plan, _manager_to_write_for())
    existed = service.uninstall()
    Output(options_of(ctx).json).value(
        {"path": str(service.path), "removed": existed},
        f"Removed {service.path}." if existed else "There was no service to remove.",
    )
    raise typer.Exit(exits.OK)
