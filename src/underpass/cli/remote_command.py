"""A command that runs on a machine: its stream on one side, our stdin, stdout, stderr on the other.

The frames are those of ``wire.terminal``: 0 stdin and stdout, 1 control, 2 stderr, 3 end of stdin.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass

from underpass.cli.exits import OWN_FAILURE
from underpass.cli.stdio import OutputPipe, StdioStream
from underpass.links.stream import Stream, StreamReset
from underpass.wire.terminal import (
    Exit,
    Failure,
    FrameDecoder,
    FrameType,
    Signal,
    encode_control,
    frame,
    frames,
)

__all__ = ["CommandEnd", "RemoteCommand"]


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How it ended: the exit status to leave with, and what to tell the person."""

    status: int
    text: str = ""


class RemoteCommand:
    """Carries one command until it ends.

    Args:
        stream: an accepted stream to the target ``exec``.
        stdin, stdout, stderr: file descriptors; *stdin* None: it has no input.
    """

    def __init__(
        self, stream: Stream, *, stdin: int | None = 0, stdout: int = 1, stderr: int = 2
    ) -> None:
        self._stream = stream
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr

    def signal(self, name: str) -> None:
        """Send the command a signal, e.g. ``"INT"``."""
        self._stream.write(frame(FrameType.CONTROL, encode_control(Signal(name))))

    async def run(self) -> CommandEnd:
        """Until the command has ended and all it printed is written.

        Raises:
            StreamReset: the link was lost, or the machine gave the command up.
        """
        ours = StdioStream(self._stdin, self._stdout)
        errors = OutputPipe(self._stderr)
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(ours))
                end = await self._receive(ours, errors)
                feeding.cancel()
            await errors.flush()
        except ExceptionGroup as group:
            # One task's failure; the group is only how it travelled.
            raise group.exceptions[0] from None
        finally:
            await ours.close()
            errors.stop()
        return end

    async def _feed(self, ours: StdioStream) -> None:
        try:
            while data := await ours.read():
                for piece in frames(FrameType.BYTES, data):
                    self._stream.write(piece)
                await self._stream.drain()
            self._stream.write(frame(FrameType.STDIN_EOF))
        except StreamReset:
            pass  # the receiving side learns why, and tells

    async def _receive(self, ours: StdioStream, errors: OutputPipe) -> CommandEnd:
        decoder = FrameDecoder()
        failure: Failure | None = None
        while data := await self._stream.read():
            for kind, payload in decoder.feed(data):
                if isinstance(payload, bytes):
                    if kind == FrameType.BYTES:
                        ours.write(payload)
                    elif kind == FrameType.STDERR:
                        errors.write(payload)
                elif isinstance(payload, Exit):
                    await ours.flush()
                    return _ended(payload)
                elif isinstance(payload, Failure):
                    failure = payload
            if ours.closed:  # nobody reads our output: as if SIGPIPE had ended us
                return CommandEnd(128 + signal.SIGPIPE)
            await ours.drain()
            await errors.drain()
        if failure is not None:
            return CommandEnd(OWN_FAILURE, failure.message or failure.code)
        return CommandEnd(OWN_FAILURE, "The machine ended the command without saying how.")


def _ended(end: Exit) -> CommandEnd:
    if end.code is not None:
        return CommandEnd(end.code & 0xFF)
    if end.signal:
        name = end.signal if end.signal.startswith("SIG") else f"SIG{end.signal}"
        number = int(getattr(signal, name, 0)) if name.isalnum() else 0
        return CommandEnd(128 + number, f"The command was ended by {name}.")
    return CommandEnd(OWN_FAILURE, "How the command ended is not known.")
