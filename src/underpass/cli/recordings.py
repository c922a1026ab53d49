"""``underpass recordings``: list, play and export recorded sessions."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from underpass.cli.arguments import complete_machine
from underpass.cli.options import Options, options_of
from underpass.cli.output import Output, ago, plain, size
from underpass.core.errors import Conflict, InvalidRequest, NotFound
from underpass.core.ids import is_id

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

RecordingId = Annotated[
    str, typer.Argument(metavar="ID", help="The recording's id, or the beginning of one.")
]
TICK = 0.05
"""Seconds between looks at the keyboard while playing."""


@app.callback()
def recordings() -> None:
    """List, play and export recorded sessions.

    \b
    Examples:
      underpass recordings list --machine web-1 --text 'rm -rf'
      underpass recordings play 3f0c --speed 2 --idle-limit 1
      underpass recordings export 3f0c -o session.cast
    """


@app.command("list")
def list_recordings(
    ctx: typer.Context,
    machine: Annotated[
        str | None,
        typer.Option("--machine", "-m", help="Of this.", autocompletion=complete_machine),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Of this user name.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="This was on the screen.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
) -> None:
    """The recordings you may see, the newest first; with --text also the lines found."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        agent = api.machine(machine)["id"] if machine else None
        found = api.items("/api/v1/recordings", limit=500, asset_id=agent, text=text)
    found = [
        item
        for item in found
        if (user is None or item["username"] == user)
        and (agent is None or item["asset_id"] == agent)
    ][:limit]
    now = time.time()
    Output(options.json).table(
        ("Id", "Title", "User", "Began", "Length", "Size", "Status"),
        [
            (item["id"], item.get("title"), item["username"], ago(item["started_at"], now),
             _length(item.get("duration")), size(item.get("size")), item["status"])
            for item in found
        ],
        value=found,
        empty="No recording.",
    )  # fmt: skip
    if text and not options.json:
        for item in found:
            for hit in item.get("hits") or []:
                print(f"{item['id']}  {_length(hit['time'])}  {plain(str(hit['line']))}")


def _length(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _find(api: Any, which: str) -> dict[str, Any]:
    if is_id(which):
        return api.get(f"/api/v1/recordings/{which}")
    matches = [
        item
        for item in api.items("/api/v1/recordings", limit=500)
        if which.lower() in (item["id"][: len(which)], item["session_id"][: len(which)])
    ]
    if len(matches) > 1:
        raise Conflict(
            f"{len(matches)} recordings begin with {which!r}.", hint="Give more of the id."
        )
    if not matches:
        raise NotFound(f"There is no recording {which!r}.", hint="See: underpass recordings list")
    return matches[0]


@app.command("export")
def export(
    ctx: typer.Context,
    which: RecordingId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: ID.cast; - = stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> None:
    """Save a recording as asciicast, which asciinema and many others play."""
    from underpass.cli.api import Api

    options = options_of(ctx)
    with Api(options.connection()) as api:
        item = _find(api, which)
        path = output or Path(f"{item['id']}.cast")
        with api.download(f"/api/v1/recordings/{item['id']}/cast") as chunks:
            if str(path) == "-":
                for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
                return
            written = _save(path, chunks, item.get("size"), force)
    Output(options.json).value(
        {"id": item["id"], "path": str(path), "size": written},
        f"Saved {path} ({size(written)}).",
    )


def _save(path: Path, chunks: Iterator[bytes], total: int | None, force: bool) -> int:
    if path.exists() and not force:
        raise InvalidRequest(f"{path} exists.", code="file_exists", hint="Add --force.")
    part = path.with_name(f"{path.name}.part")
    written = 0
    try:
        with part.open("wb") as file, _progress(total) as advance:
            for chunk in chunks:
                file.write(chunk)
                written += len(chunk)
                advance(len(chunk))
        part.replace(path)
    except OSError as error:
        raise InvalidRequest(f"Can't write {path}: {error.strerror}.", code="unwritable") from None
    finally:
        part.unlink(missing_ok=True)
    return written


@contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)


@app.command("play")
def play(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="ID|FILE", help="A recording, or a .cast file.")],
    speed: Annotated[float, typer.Option("--speed", "-s", min=0.1, max=100, help="× so fast.")] = 1,
    idle_limit: Annotated[
        float | None,
        typer.Option("--idle-limit", "-i", min=0, help="Cut pauses to so many seconds."),
    ] = None,
) -> None:
    """Play a recording here. Space pauses, . steps, + and - change the speed, q leaves."""
    from underpass.cli.player import Player

    options = options_of(ctx)
    with _cast(options, which) as chunks:
        _play(chunks, Player(speed), idle_limit)


@contextmanager
def _cast(options: Options, which: str) -> Iterator[Iterator[bytes]]:
    path = Path(which)
    if path.suffix == ".cast" or path.is_file():
        try:
            with path.open("rb") as file:
                yield iter(lambda: file.read(65536), b"")
        except OSError as error:
            raise NotFound(f"Can't read {path}: {error.strerror}.") from None
        return
    from underpass.cli.api import Api

    with Api(options.connection(), timeout=60) as api:
        item = _find(api, which)
        with api.download(f"/api/v1/recordings/{item['id']}/cast") as chunks:
            yield chunks


def _play(chunks: Iterator[bytes], player: Any, idle_limit: float | None) -> None:
    from underpass.cli.player import schedule
    from underpass.cli.raw_mode import leave_modes, raw_terminal
    from underpass.wire.asciicast import CastReader

    reader = CastReader()
    events = (event for chunk in chunks for event in reader.feed(chunk))
    keyboard = sys.stdin.isatty()
    with ExitStack() as stack:
        if keyboard:
            stack.enter_context(raw_terminal(0))
        for frame in schedule(events, idle_limit):
            left = frame.pause
            while left > 0 and not player.left:
                left -= player.passed(_wait(min(TICK, left / player.speed), keyboard, player))
            if player.left:
                break
            sys.stdout.buffer.write(frame.text.encode())
            sys.stdout.buffer.flush()
        if keyboard:
            sys.stdout.buffer.write(leave_modes(False) + b"\r\n")
            sys.stdout.buffer.flush()


def _wait(seconds: float, keyboard: bool, player: Any) -> float:
    """Wait, looking at the keyboard; gives the time that really passed."""
    started = time.monotonic()
    if not keyboard:
        time.sleep(seconds)
    elif select.select([0], [], [], seconds)[0]:
        player.key(os.read(0, 64))
    return time.monotonic() - started
