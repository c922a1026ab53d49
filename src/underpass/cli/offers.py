"""``underpass offers``: what one has lent or borrowed with one-time codes."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from underpass.cli.offer import ROUTE
from underpass.cli.options import options_of
from underpass.cli.output import Output, ago

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, invoke_without_command=True)


@app.callback()
def offers(ctx: typer.Context) -> None:
    """List and revoke what was lent with one-time codes; without a subcommand: list.

    \b
    Examples:
      underpass offers
      underpass offers list --all
      underpass offers revoke 3d7a5b0c-9e0f-4f0b-8a43-7b1f0e6c2d58
    """
    if ctx.invoked_subcommand is None:
        list_offers(ctx)


@app.command("list")
def list_offers(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also what is over (kept for 30 days).")
    ] = False,
) -> None:
    """What you made or accepted; everybody's, for admins and auditors. Never the codes."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        found = api.items(ROUTE, running=None if everything else True)
    now = time.time()
    Output(options.json).table(
        ("Id", "Status", "Target", "Machine", "By", "Accepted by", "Made", "Until"),
        [_row(offer, now) for offer in found],
        value=found,
        empty="Nothing is lent. Lend something: underpass offer tcp PORT",
    )


def _row(offer: dict[str, Any], now: float) -> tuple[Any, ...]:
    return (
        offer["id"],
        offer["status"],
        offer["target"],
        offer["machine"],
        offer["username"],
        offer["accepted_by"],
        ago(offer["created_at"], now),
        offer["ended_at"] or offer["expires_at"],
    )


@app.command("revoke")
def revoke(
    ctx: typer.Context, offer_id: Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
) -> None:
    """End an offer: its code is void, and what is open through it is cut within seconds.

    Who accepted it can give it back so, too.
    """
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        ended = api.delete(f"{ROUTE}/{offer_id}")
    Output(options.json).value(ended, f"{ended['status'].capitalize()}.")
