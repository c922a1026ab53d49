"""``underpass approve`` and ``reject``: decide on machines that ask to join."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from underpass.cli.arguments import labels
from underpass.cli.options import options_of
from underpass.cli.output import Output, ago
from underpass.core.errors import Conflict, NotFound

__all__ = ["apps"]

approve_app = typer.Typer(rich_markup_mode=None, add_completion=False)
reject_app = typer.Typer(rich_markup_mode=None, add_completion=False)
apps = {"approve": approve_app, "reject": reject_app}

Which = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="Id, host name or key fingerprint; without: list them."),
]


@approve_app.command()
def approve(
    ctx: typer.Context,
    which: Which = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Give a label.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Call the machine this.")] = None,
) -> None:
    """Let a machine in that asks to join; compare the fingerprint with the one it shows.

    \b
    Examples:
      underpass approve                        who is asking
      underpass approve web-1 --label env=prod
    """
    _decide(ctx, "approve", which, labels=labels(label) or None, name=name)


@reject_app.command()
def reject(ctx: typer.Context, which: Which = None) -> None:
    """Refuse a machine that asks to join."""
    _decide(ctx, "reject", which)


def _decide(ctx: typer.Context, verb: str, which: str | None, **fields: Any) -> None:
    from underpass.cli.api import Api

    options = options_of(ctx)
    output = Output(options.json)
    with Api(options.connection()) as api:
        pending = api.items("/api/v1/enrolments", status="pending")
        if which is None:
            _list(output, pending)
            return
        chosen = _choose(pending, which)
        given = {key: value for key, value in fields.items() if value is not None}
        answer = api.post(f"/api/v1/{verb}", id=chosen["id"], **given)
    value = {
        "id": chosen["id"],
        "hostname": chosen["hostname"],
        # The secret in the answer is for the machine; it has no business on this screen.
        "status": (answer or {}).get("status", f"{verb.rstrip('e')}ed"),
    }
    output.value(value, f"{chosen['hostname']} is {value['status']}.")


def _list(output: Output, pending: list[dict[str, Any]]) -> None:
    now = time.time()
    output.table(
        ("Id", "Host", "Key fingerprint", "Address", "Asked"),
        [
            (item["id"], item["hostname"], item["key_fingerprint"], item.get("address"),
             ago(item.get("created_at"), now))
            for item in pending
        ],
        value=pending,
        empty="Nobody is asking to join.",
    )  # fmt: skip


def _choose(pending: list[dict[str, Any]], which: str) -> dict[str, Any]:
    for key in ("id", "client_id", "hostname", "key_fingerprint"):
        matches = [item for item in pending if item.get(key) == which]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Conflict(
                f"{len(matches)} machines called {which!r} ask to join.",
                code="ambiguous_enrolment",
                hint="Use the id; see: underpass approve",
            )
    raise NotFound(
        f"Nobody called {which!r} is asking to join.",
        code="no_such_enrolment",
        hint="See: underpass approve",
    )
