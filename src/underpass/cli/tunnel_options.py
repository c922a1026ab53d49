"""The options of commands that carry connections, and how such a command runs until it is ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from underpass.cli import exits
from underpass.cli.event_loop import run_loop
from underpass.cli.options import Options, Way
from underpass.cli.output import Output
from underpass.core.errors import UnderpassError
from underpass.core.ids import is_id

__all__ = [
    "ORDINARY", "AgentKey", "Carrier", "Compression", "E2e", "NoResume", "Transport",
    "TunnelOptions", "run_until_stopped", "typed_name",
]  # fmt: skip

ORDINARY = frozenset({"cancelled", "closed", "connection_lost", "no_request"})
"""Codes of ends that programs bring about all the time: not worth a line."""

Compression = Annotated[
    Literal["none", "zstd", "lz4", "gzip", "adaptive"],
    typer.Option("--compression", help="adaptive: stops where it does not pay."),
]
E2e = Annotated[
    bool,
    typer.Option("--e2e", help="Encrypt between here and the machine; the gateway sees nothing."),
]
AgentKey = Annotated[
    str | None,
    typer.Option(
        "--agent-key", metavar="F", help="With --e2e: the machine's key must be this (sha256:…)."
    ),
]
Carrier = Annotated[
    Literal["auto", "mux", "dedicated"],
    typer.Option("--carrier", help="How the gateway reaches the machine."),
]
NoResume = Annotated[
    bool,
    typer.Option("--no-resume", help="Let connections end with the link that carries them."),
]
Transport = Annotated[
    Way | None,
    typer.Option("--transport", help="How to reach the gateway, as before the command."),
]


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """What was asked for with them."""

    compression: str = "none"
    e2e: bool = False
    agent_key: str | None = None
    carrier: str = "auto"
    resume: bool = True
    transport: str | None = None


def typed_name(text: str) -> str | None:
    """*text*, with which a machine was meant, if it is a name; None when it is an id."""
    return None if is_id(text) else text


def run_until_stopped(options: Options, program: Callable[[Stopping], Awaitable[None]]) -> int:
    """Run *program*, which stays until its ``Stopping`` is told to; the exit status.

    SIGTERM ends it with 0, Ctrl-C with 130; an expected failure is one line.
    """

    async def main() -> int:
        stopping = Stopping()
        try:
            with stopping:
                await program(stopping)
        except UnderpassError as error:
            Output(options.json).failure(error)
            return exits.status_of(error)
        return stopping.status

    return run_loop(main)


class Stopping:
    """Waits for the signal that ends a command."""

    def __init__(self) -> None:
        self.status = exits.OK
        self._told = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        for number, status in _SIGNALS:
            self._before[number] = signal.getsignal(number) or signal.SIG_DFL
            self._loop.add_signal_handler(number, self._stop, status)
        return self

    def __exit__(self, *_: object) -> None:
        for number, _status in _SIGNALS:
            self._loop.remove_signal_handler(number)  # which leaves the default
            signal.signal(number, self._before[number])

    def _stop(self, status: int) -> None:
        self.status = status
        self._told.set()

    async def wait(self, failing: Awaitable[UnderpassError]) -> None:
        """Wait for the signal.

        Raises:
            UnderpassError: what *failing* gave before.
        """
        async with asyncio.TaskGroup() as group:
            told: Any = group.create_task(self._told.wait())
            failed: Any = group.create_task(_result(failing))
            await asyncio.wait((told, failed), return_when=asyncio.FIRST_COMPLETED)
            error: UnderpassError | None = failed.result() if failed.done() else None
            told.cancel()
            failed.cancel()
        if error is not None:
            raise error


async def _result(failing: Awaitable[UnderpassError]) -> UnderpassError:
    return await failing


_SIGNALS = ((signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.OK))
