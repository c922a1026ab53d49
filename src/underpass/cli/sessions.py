"""``underpass sessions``: list, watch and end terminal sessions."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer

from underpass.cli import exits
from underpass.cli.arguments import complete_machine
from underpass.cli.options import options_of
from underpass.cli.output import Output, ago
from underpass.core.errors import Conflict, NotFound, UnderpassError
from underpass.core.ids import is_id

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

LIVE = {"connecting", "active", "detached"}
SessionId = Annotated[
    str, typer.Argument(metavar="ID", help="The session's id, or the beginning of one.")
]


@app.callback()
def sessions() -> None:
    """List, watch and end terminal sessions.

    \b
    Examples:
      underpass sessions list               the live ones
      underpass sessions list --all --machine web-1
      underpass sessions watch 3f0c         look on; q leaves
      underpass sessions end 3f0c
    """


@app.command("list")
def list_sessions(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended ones, too.")] = False,
    machine: Annotated[
        str | None,
        typer.Option("--machine", "-m", help="On this.", autocompletion=complete_machine),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Of this user name.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
) -> None:
    """The sessions you may see, the newest first."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        agent = api.machine(machine)["id"] if machine else None
        found = api.items("/api/v1/sessions", limit=500, asset_id=agent, sort="-created_at")
        names = {item["id"]: item.get("name") or item["hostname"] for item in _machines(api)}
    found = [
        session
        for session in found
        if (everything or session["status"] in LIVE)
        and (user is None or session["username"] == user)
        and (agent is None or session["asset_id"] == agent)
    ][:limit]
    now = time.time()
    Output(options.json).table(
        ("Id", "Machine", "User", "Command", "Status", "Began", "Exit"),
        [_row(session, names, now) for session in found],
        value=found,
        empty="No session." if everything else "No live session; --all shows ended ones.",
    )


def _machines(api: Any) -> list[dict[str, Any]]:
    try:
        return api.items("/api/v1/assets", limit=1000)
    except UnderpassError:
        return []  # only names for the table


def _row(session: dict[str, Any], names: dict[str, Any], now: float) -> tuple[Any, ...]:
    code, signal = session.get("exit_code"), session.get("signal")
    return (
        session["id"],
        names.get(session["asset_id"], session["asset_id"]),
        session["username"],
        session.get("command"),
        session["status"],
        ago(session.get("created_at"), now),
        signal or ("" if code is None else code),
    )


def find_session(api: Any, which: str) -> dict[str, Any]:
    """The session with this id, or the only recent one whose id begins so.

    Raises:
        NotFound, Conflict: none, or several.
    """
    if is_id(which):
        return api.get(f"/api/v1/sessions/{which}")
    recent = api.items("/api/v1/sessions", limit=500, sort="-created_at")
    matches = [session for session in recent if session["id"].startswith(which.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Conflict(
            f"{len(matches)} sessions begin with {which!r}.", hint="Give more of the id."
        )
    raise NotFound(f"There is no session {which!r}.", hint="See: underpass sessions list --all")


@app.command("end")
def end(ctx: typer.Context, which: SessionId) -> None:
    """End a session; the person in it is told."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        session = find_session(api, which)
        api.delete(f"/api/v1/sessions/{session['id']}")
    Output(options.json).value({"id": session["id"], "ended": True}, "Ended.")


@app.command("watch")
def watch(ctx: typer.Context, which: SessionId) -> None:
    """Look on at a live session, without typing into it; q or Ctrl-C leaves."""
    from underpass.cli.api import Api
    from underpass.cli.terminal import TerminalWindow, access_ticket
    from underpass.wire.tty_client import TtyClient

    options = options_of(ctx)
    connection = options.connection()
    _ = connection.required_token
    with Api(connection) as api:
        session = find_session(api, which)
    if session["status"] not in LIVE:
        raise Conflict(
            "This session has ended.", hint="Play its recording: underpass recordings list"
        )
    window = TerminalWindow(
        connection,
        access_ticket(connection),
        TtyClient(read_only=True, session_id=session["id"]),
        query=f"?mode=observe&session_id={session['id']}",
    )
    status = asyncio.run(window.run())
    raise typer.Exit(status if status >= 128 else exits.OK)
