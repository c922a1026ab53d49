"""Which of the gateway's machines this one is: by its agent's id, else by what it is called."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from underpass.core.errors import Conflict, NotFound
from underpass.core.ids import is_id

if TYPE_CHECKING:
    from underpass.cli.api import Api

__all__ = ["this_machine"]

SERVICE_STATE: Final = Path("/var/lib/underpass")
"""Where the agent of a system service keeps its state; ``underpass agent install``."""
_MAX_FILE: Final = 100


def this_machine(api: Api) -> dict[str, Any]:
    """The machine this is typed on.

    Its agent knows its id, whatever it is called: read from the state directory an agent here has
    by default, or is running with. Where that can't be read (a service of another user's), by the
    name the agent was given, or this machine's host name.

    Raises:
        NotFound: no such machine that one may see.
        Conflict: several fit.
    """
    # The default first: it needs no look at the processes.
    found = _by_id(api, [_default_state()])
    if found is None:
        agents = list(_running())
        states = [*(state for state, _ in agents if state), SERVICE_STATE]
        # An agent whose id can be read, and is not known there, is another gateway's.
        names = [name for state, name in agents if name and not (state and _ids_in(state))]
        found = _by_id(api, states) or _by_name(api, [*names, socket.gethostname()])
    if found is not None:
        return found
    raise NotFound(
        f"This machine ({socket.gethostname()}) is not among those you may see.",
        code="no_such_machine",
        hint="Enrol it (underpass token create), or say which with --on NAME.",
    )


def _default_state() -> Path:
    return Path(os.environ.get("UNDERPASS_STATE") or "~/.underpass").expanduser()


def _by_id(api: Api, states: list[Path]) -> dict[str, Any] | None:
    found: dict[str, dict[str, Any]] = {}
    for agent_id in dict.fromkeys(each for state in states for each in _ids_in(state)):
        try:
            found[agent_id] = api.get(f"/api/v1/assets/{agent_id}")
        except NotFound:
            continue  # of another gateway, or not for this person
    return _only(list(found.values()), "agents run on this machine")


def _ids_in(state: Path) -> list[str]:
    """The ids of the agents with this state directory; the one built into a gateway has a part of
    the gateway's."""
    found: list[str] = []
    for directory in (state, state / "agent"):
        try:
            with (directory / "client_id").open(encoding="utf-8") as file:
                text = file.read(_MAX_FILE).strip()
        except (OSError, UnicodeDecodeError):
            continue
        if is_id(text):
            found.append(text)
    return found


def _by_name(api: Api, names: list[str]) -> dict[str, Any] | None:
    for name in dict.fromkeys(name.lower() for name in names):
        found = [
            machine
            for machine in api.items("/api/v1/assets", q=name)
            if str(machine["hostname"]).lower() == name
        ]
        if found:
            return _only(found, f"machines have this one's name, {name}")
    return None


def _only(found: list[dict[str, Any]], what: str) -> dict[str, Any] | None:
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} {what}.",
            code="ambiguous_machine",
            hint="Say which with --on NAME; see: underpass machines",
        )
    return found[0] if found else None


def _running() -> Iterator[tuple[Path | None, str | None]]:
    """State directory and name of each agent that runs here, as far as one may know."""
    import psutil

    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if not _is_agent(words):
                continue
            yield _of(process, words)
        except psutil.Error:
            continue  # gone meanwhile, or not for us to see


def _of(process: Any, words: list[str]) -> tuple[Path | None, str | None]:
    """Raises:
    psutil.Error: it is gone.
    """
    import psutil

    state, name = _flag(words, "--state"), _flag(words, "--name")
    try:
        environment = process.environ()
        state = state or environment.get("UNDERPASS_STATE") or "~/.underpass"
        name = name or environment.get("UNDERPASS_NAME")
        return Path(process.cwd()) / Path(state).expanduser(), name
    except psutil.AccessDenied:  # another user's, whose default directory we don't know
        return (Path(state) if state and Path(state).is_absolute() else None), name


def _is_agent(words: list[str]) -> bool:
    for before, word in pairwise(words):
        if word == "agent" and Path(before).name in {"underpass", "underpass.cli.main"}:
            return True
    return False


def _flag(words: list[str], name: str) -> str | None:
    for at, word in enumerate(words):
        if word == name and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None
