"""The exec opener over a real link: bytes, ends, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agent.started import started
from underpass.agent.openers.exec import exec_opener
from underpass.links.link import Link, OpenRefused
from underpass.links.memory import memory_links
from underpass.links.stream import Stream
from underpass.wire.terminal import (
    Exit,
    FrameDecoder,
    FrameType,
    Signal,
    encode_control,
    frame,
    frames,
)

Open = Callable[..., Awaitable[Stream]]


class Result:
    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.exit: Exit | None = None


async def run(stream: Stream, stdin: bytes | None = b"") -> Result:
    """Write *stdin* and its end (None: neither), read everything."""
    result = Result()
    decoder = FrameDecoder()

    async def feed() -> None:
        if stdin is None:
            return
        for piece in frames(FrameType.BYTES, stdin):
            stream.write(piece)
            await stream.drain()
        stream.write(frame(FrameType.STDIN_EOF))

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(feed())
        while data := await stream.read():
            for kind, message in decoder.feed(data):
                if kind is FrameType.BYTES:
                    result.out += message  # type: ignore[arg-type]
                elif kind is FrameType.STDERR:
                    result.err += message  # type: ignore[arg-type]
                elif isinstance(message, Exit):
                    result.exit = message
    await stream.close()
    return result


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[Link]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    agent, node = memory_links()
    agent.on_open(
        exec_opener(lambda name: name in ("self", "daemon"), environ=environ, max_running=3)
    )
    agent.start()
    node.start()
    yield node
    await agent.close()
    await node.close()


@pytest.fixture
def start(link: Link) -> Open:
    def start(command: str | list[str], **more: Any) -> Awaitable[Stream]:
        return link.open("exec", {"session_id": "s1", "command": command} | more)

    return start


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(psutil.pid_exists(pid) for pid in pids):
            await asyncio.sleep(0.01)


async def test_three_pipes_and_a_code(start: Open, tmp_path: Path) -> None:
    result = await run(await start("cat; pwd >&2; exit 3"), b"in\xff\x00")
    assert result.out == b"in\xff\x00"
    assert result.err.decode().strip() == str(tmp_path)
    assert result.exit == Exit(code=3)


async def test_words_are_not_given_to_a_shell(start: Open) -> None:
    result = await run(await start(["printf", "%s|", "a b", "$HOME", "*", ""]))
    assert result.out == b"a b|$HOME|*||"


async def test_a_signal_is_told_by_name(start: Open) -> None:
    assert (await run(await start("kill -9 $$"))).exit == Exit(signal="SIGKILL")


async def test_ten_mebibytes_arrive_as_they_were(start: Open) -> None:
    data = os.urandom(10 * 1024 * 1024)
    result = await run(await start("cat"), data)
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(data).digest()
    assert result.exit == Exit(code=0)


async def test_a_reader_that_stops_stops_the_program(start: Open) -> None:
    stream = await start("yes")
    await stream.read()
    before = psutil.Process().memory_info().rss
    await asyncio.sleep(0.3)
    assert psutil.Process().memory_info().rss - before < 16_000_000
    children = [child.pid for child in started()]
    assert len(children) == 1
    stream.abort()
    await gone(children)


async def test_a_program_that_reads_nothing_stops_the_writer(start: Open) -> None:
    stream = await start("sleep 60")
    children = [child.pid for child in started()]
    data = frame(FrameType.BYTES, bytes(65536))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            for _ in range(1000):
                stream.write(data)
                await stream.drain()
    stream.abort()
    await gone(children)


async def test_a_program_may_close_its_stdin(start: Open) -> None:
    result = await run(await start("exec 0<&-; echo done; sleep 0.2"), bytes(3_000_000))
    assert result.out == b"done\n"
    assert result.exit == Exit(code=0)


async def test_a_half_closed_stream_is_the_end_of_stdin(start: Open) -> None:
    stream = await start("cat; echo end")
    stream.write(frame(FrameType.BYTES, b"x"))
    await stream.write_eof()
    assert (await run(stream, None)).out == b"xend\n"


async def test_signals_are_forwarded(start: Open) -> None:
    stream = await start("trap 'echo got; exit 4' INT; echo on; while :; do sleep 0.01; done")
    decoder = FrameDecoder()
    async with asyncio.timeout(10):
        while not decoder.feed(await stream.read()):
            pass
    for name in ("STOP", "nonsense", "int"):
        stream.write(frame(FrameType.CONTROL, encode_control(Signal(name))))
    result = await run(stream, None)
    assert result.out == b"got\n"
    assert result.exit == Exit(code=4)


async def test_a_reset_ends_the_whole_group(start: Open) -> None:
    stream = await start("trap '' HUP TERM; sleep 100 & sleep 100 & wait")
    async with asyncio.timeout(10):
        while len(family := started(recursive=True)) < 3:
            await asyncio.sleep(0.01)
    begun = time.monotonic()
    stream.abort()
    await gone([process.pid for process in family])
    assert time.monotonic() - begun < 5


async def test_a_background_process_does_not_hold_the_stream(start: Open) -> None:
    begun = time.monotonic()
    result = await run(await start("sleep 100 & echo $!; exit 5"))
    assert result.exit == Exit(code=5)
    assert time.monotonic() - begun < 5
    os.kill(int(result.out), 9)


async def test_bad_frames_end_it(start: Open) -> None:
    stream = await start("sleep 100")
    children = [child.pid for child in started()]
    stream.write(b"\x00\xff\xff\xff")
    await gone(children)


async def test_the_environment_is_clean(start: Open) -> None:
    result = await run(await start(["env"], env={"LC_ALL": "C", "LD_PRELOAD": "x"}))
    names = {line.partition("=")[0] for line in result.out.decode().splitlines()}
    assert names <= {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "UNDERPASS_SESSION",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "login", "code"),
    [
        ([], None, "bad_command_request"),
        (["/nonexistent"], None, "program_missing"),
        (["/etc/passwd"], None, "program_missing"),
        ("id", "root2", "login_forbidden"),
        (["x" * 10_000], None, "program_missing"),
    ],
)
async def test_refusals_have_codes(
    start: Open, command: str | list[str], login: str | None, code: str
) -> None:
    with pytest.raises(OpenRefused) as caught:
        await start(command, login=login)
    assert caught.value.code == code


async def test_only_so_many_at_a_time(start: Open) -> None:
    streams = [await start("sleep 100") for _ in range(3)]
    children = [child.pid for child in started()]
    with pytest.raises(OpenRefused) as caught:
        await start("true")
    assert caught.value.code == "too_many_programs"
    for stream in streams:
        stream.abort()
    await gone(children)
    async with asyncio.timeout(10):
        while True:
            try:
                await run(await start("true"))
                break
            except OpenRefused:
                await asyncio.sleep(0.01)


async def test_privileges_are_dropped(start: Open) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs root, as CI has")
    result = await run(await start(["id"], login="daemon"))
    assert re.fullmatch(rb"uid=1\(daemon\) gid=1\(daemon\) groups=1\(daemon\)\n", result.out)


async def test_nothing_is_left(start: Open) -> None:
    await run(await start("true"))
    descriptors, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    for _ in range(20):
        await run(await start("cat"), b"x")
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert started() == []


async def test_a_machine_that_is_full_says_so(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("underpass.agent.openers.exec.subprocess.Popen", none_left)
    with pytest.raises(OpenRefused) as caught:
        await start("true")
    assert (caught.value.code, caught.value.status) == ("spawn_failed", 503)
