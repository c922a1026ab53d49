"""A remote command's frames on one side, file descriptors on the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from underpass.cli.remote_command import CommandEnd, RemoteCommand
from underpass.links.memory import memory_pair
from underpass.links.stream import Stream, StreamReset
from underpass.wire.terminal import (
    Exit,
    Failure,
    FrameDecoder,
    FrameType,
    Signal,
    encode_control,
    frame,
)


class Descriptors:
    """Three pipes."""

    def __init__(self) -> None:
        self.stdin, self.feed = os.pipe()
        self.out, self.stdout = os.pipe()
        self.err, self.stderr = os.pipe()

    def close(self) -> None:
        for number in vars(self).values():
            try:
                os.close(number)
            except OSError:
                pass


@pytest.fixture
def fds() -> Iterator[Descriptors]:
    made = Descriptors()
    yield made
    made.close()


def command(stream: Stream, fds: Descriptors) -> RemoteCommand:
    return RemoteCommand(stream, stdin=fds.stdin, stdout=fds.stdout, stderr=fds.stderr)


def control(message: Exit | Failure) -> bytes:
    return frame(FrameType.CONTROL, encode_control(message))


async def received(far: Stream, until: FrameType) -> list[tuple[FrameType, object]]:
    decoder = FrameDecoder()
    found: list[tuple[FrameType, object]] = []
    while not any(kind == until for kind, _ in found):
        found += decoder.feed(await asyncio.wait_for(far.read(), 5))
    return found


async def test_input_output_errors_and_status(fds: Descriptors) -> None:
    near, far = memory_pair()
    task = asyncio.create_task(command(near, fds).run())
    os.write(fds.feed, b"in")
    os.close(fds.feed)
    assert await received(far, FrameType.STDIN_EOF) == [
        (FrameType.BYTES, b"in"),
        (FrameType.STDIN_EOF, b""),
    ]
    far.write(frame(FrameType.BYTES, b"out") + frame(FrameType.STDERR, b"err"))
    far.write(control(Exit(code=7)))
    assert await asyncio.wait_for(task, 5) == CommandEnd(7)
    assert os.read(fds.out, 10) == b"out"
    assert os.read(fds.err, 10) == b"err"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (Exit(code=0), 0),
        (Exit(signal="SIGKILL"), 137),
        (Exit(signal="TERM"), 143),
        (Exit(), 255),
    ],
)
async def test_ends(fds: Descriptors, message: Exit, status: int) -> None:
    near, far = memory_pair()
    far.write(control(message))
    assert (await asyncio.wait_for(command(near, fds).run(), 5)).status == status


async def test_a_failure_is_told(fds: Descriptors) -> None:
    near, far = memory_pair()
    far.write(control(Failure("no_login", "There is no such login.")))
    await far.write_eof()
    end = await asyncio.wait_for(command(near, fds).run(), 5)
    assert end == CommandEnd(255, "There is no such login.")


async def test_an_end_without_a_word_is_our_failure(fds: Descriptors) -> None:
    near, far = memory_pair()
    await far.write_eof()
    assert (await asyncio.wait_for(command(near, fds).run(), 5)).status == 255


async def test_a_lost_link_is_raised(fds: Descriptors) -> None:
    near, far = memory_pair()
    far.abort("link_lost", "The link is lost.")
    with pytest.raises(StreamReset):
        await asyncio.wait_for(command(near, fds).run(), 5)


async def test_signals_are_passed_on(fds: Descriptors) -> None:
    near, far = memory_pair()
    remote = command(near, fds)
    task = asyncio.create_task(remote.run())
    remote.signal("INT")
    ((kind, message),) = await received(far, FrameType.CONTROL)
    assert (kind, message) == (FrameType.CONTROL, Signal("INT"))
    far.write(control(Exit(signal="SIGINT")))
    assert (await asyncio.wait_for(task, 5)).status == 130


async def test_output_nobody_reads_ends_it_as_sigpipe_would(fds: Descriptors) -> None:
    near, far = memory_pair()
    task = asyncio.create_task(command(near, fds).run())
    os.close(fds.out)
    for _ in range(2000):
        if task.done():
            break
        far.write(frame(FrameType.BYTES, b"y\n" * 100))
        await asyncio.sleep(0.001)
    assert (await asyncio.wait_for(task, 5)).status == 141
