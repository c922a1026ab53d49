"""``underpass token``: join tokens, with which machines come in without being asked about."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from underpass.cli.arguments import duration, labels
from underpass.cli.options import Connection, options_of
from underpass.cli.output import Output, ago

__all__ = ["app", "join_command"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def token() -> None:
    """Make, list and revoke join tokens.

    \b
    Examples:
      underpass token create                         one machine, within a day
      underpass token create --uses 20 --expires 7d --label env=prod
    """


def join_command(connection: Connection, secret: str, answer: dict[str, Any]) -> str:
    """What to type on the machine; the gateway's own suggestion when it makes one."""
    if isinstance(answer.get("join_command"), str):
        return answer["join_command"]
    server = answer.get("server") or connection.server
    fingerprint = answer.get("fingerprint") or connection.fingerprint
    pin = f" --fingerprint {fingerprint}" if fingerprint else ""
    return f"underpass agent --server {server} --join {secret}{pin}"


@app.command("create")
def create(
    ctx: typer.Context,
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="Machines it lets in.")] = 1,
    expires: Annotated[str, typer.Option(help="For how long: 30m, 1h, 7d.")] = "24h",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="Give those machines a label."),
    ] = None,
    may_declare: Annotated[
        bool, typer.Option("--may-declare", help="Mappings in their underpass.yaml count.")
    ] = False,
) -> None:
    """Make a token; it is shown once, with the command to run on the machine."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    connection = options.connection()
    body: dict[str, Any] = {
        "uses": uses, "expires_in": duration(expires), "labels": labels(label),
        "may_declare": may_declare,
    }  # fmt: skip
    with Api(connection) as api:
        answer = api.post("/api/v1/join-tokens", **body)
    command = join_command(connection, answer["token"], answer)
    value = {**answer, "join_command": command}
    Output(options.json).value(value, f"Run on the machine:\n\n  {command}\n")


@app.command("list")
def list_tokens(ctx: typer.Context) -> None:
    """The tokens that exist; their secrets are not kept."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        tokens = api.items("/api/v1/join-tokens")
    now = time.time()
    Output(options.json).table(
        ("Id", "Used", "Status", "Labels", "Made", "Expires"),
        [
            (
                item["id"],
                f"{item.get('used', 0)} of {item['uses']}",
                item.get("status"),
                " ".join(f"{key}={value}" for key, value in (item.get("labels") or {}).items()),
                ago(item.get("created_at"), now),
                item.get("expires_at"),
            )
            for item in tokens
        ],
        value=tokens,
        empty="No join token. Make one: underpass token create",
    )


@app.command("revoke")
def revoke(
    ctx: typer.Context, token_id: Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
) -> None:
    """Make a token useless; machines it let in stay."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        api.delete(f"/api/v1/join-tokens/{token_id}")
    Output(options.json).value({"id": token_id, "revoked": True}, "Revoked.")
