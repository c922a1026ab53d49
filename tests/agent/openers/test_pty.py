"""The pty opener over a real link: refusals, bytes, resume after the link was cut."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.started import started
from underpass.agent.openers.pty import pty_opener
from underpass.agent.terminals.host import TerminalHost
from underpass.links.link import Link, OpenRefused
from underpass.links.memory import memory_links
from underpass.links.stream import Stream
from underpass.wire.terminal import (
    Attached,
    Control,
    Credit,
    Exit,
    FrameDecoder,
    FrameType,
    encode_control,
    frame,
)

MakeLink = Callable[[], Link]


class Gateway:
    """The other end of a trunk's stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.output = bytearray()
        self.controls: list[Control] = []
        self._decoder = FrameDecoder()

    def give(self, message: bytes | Control) -> None:
        if isinstance(message, bytes):
            self.stream.write(frame(FrameType.BYTES, message))
        else:
            self.stream.write(frame(FrameType.CONTROL, encode_control(message)))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                for kind, message in self._decoder.feed(await self.stream.read()):
                    if isinstance(message, bytes):
                        assert kind is FrameType.BYTES
                        self.output += message
                    else:
                        self.controls.append(message)

    async def shows(self, text: bytes) -> None:
        await self.until(lambda: text in self.output)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[TerminalHost]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    host = TerminalHost(
        login_allowed=lambda name: name in ("self", "no-such-login"), environ=environ
    )
    yield host
    await host.close()


@pytest.fixture
async def make_link(host: TerminalHost) -> AsyncIterator[MakeLink]:
    links: list[Link] = []

    def make() -> Link:
        agent, node = memory_links()
        agent.on_open(pty_opener(host))
        agent.start()
        node.start()
        links.extend([agent, node])
        return node

    yield make
    for link in links:
        await link.close()


def meta(**more: Any) -> dict[str, Any]:
    return {"session_id": "s1", "command": None, "cols": 80, "rows": 24, "grace": 60.0} | more


async def test_a_shell_over_a_link(make_link: MakeLink, host: TerminalHost) -> None:
    node = make_link()
    gateway = Gateway(await node.open("pty", meta(), interactive=True))
    gateway.give(b"echo $((6*7)); exit 3\n")
    await gateway.until(
        lambda: (
            isinstance(gateway.controls[-1:], list)
            and any(isinstance(m, Exit) for m in gateway.controls)
        )
    )
    assert isinstance(gateway.controls[0], Attached)
    assert b"42" in gateway.output
    assert gateway.controls[-1] == Exit(code=3, offset=len(gateway.output))
    await gateway.stream.close()
    async with asyncio.timeout(10):
        while len(host):
            await asyncio.sleep(0.01)


async def test_a_gateway_that_lets_go_after_the_exit_has_read_it(
    make_link: MakeLink, host: TerminalHost
) -> None:
    gateway = Gateway(await make_link().open("pty", meta(command="echo hi")))
    await gateway.until(lambda: any(isinstance(m, Exit) for m in gateway.controls))
    gateway.stream.abort("trunk_closed", "")
    async with asyncio.timeout(10):
        while len(host):
            await asyncio.sleep(0.01)


async def test_a_cut_link_loses_nothing(make_link: MakeLink) -> None:
    node = make_link()
    command = "stty -onlcr; for i in $(seq 20000); do echo $i; done; read end; exit 6"
    gateway = Gateway(await node.open("pty", meta(command=command)))
    gateway.give(Credit(10**9))
    await gateway.until(lambda: len(gateway.output) > 20_000)
    shown = bytes(gateway.output)
    await node.close()
    gateway = Gateway(await make_link().open("pty", meta(offset=len(shown))))
    gateway.give(Credit(10**9))
    await gateway.shows(b"20000\n")
    first = gateway.controls[0]
    assert isinstance(first, Attached)
    assert first.offset == len(shown)
    assert shown + gateway.output == b"".join(b"%d\n" % n for n in range(1, 20001))
    gateway.give(b"\n")
    await gateway.until(lambda: any(isinstance(m, Exit) for m in gateway.controls))


async def test_a_link_cut_while_opening_leaves_a_session_to_announce(
    make_link: MakeLink, host: TerminalHost
) -> None:
    node = make_link()
    await node.open("pty", meta())
    await node.close()
    async with asyncio.timeout(10):
        while any(entry["attached"] for entry in host.announce()):
            await asyncio.sleep(0.01)
    (entry,) = host.announce()
    assert entry["session_id"] == "s1"
    assert not entry["exited"]
    assert host.tty_status()["active_sessions"] == 1
    assert host.terminate("s1", "not wanted")
    assert not host.terminate("s2", "not wanted")


@pytest.mark.parametrize(
    ("request_meta", "code", "status"),
    [
        ({"session_id": ""}, "bad_terminal_request", 400),
        ({"login": "nobody"}, "login_forbidden", 403),
        ({"login": "no-such-login"}, "login_unknown", 409),
        ({"offset": 5}, "session_gone", 410),
    ],
)
async def test_refusals_have_codes(
    make_link: MakeLink, request_meta: dict[str, Any], code: str, status: int
) -> None:
    with pytest.raises(OpenRefused) as caught:
        await make_link().open("pty", meta(**request_meta))
    assert (caught.value.code, caught.value.status) == (code, status)


async def test_a_start_repeated_is_the_same_session(
    make_link: MakeLink, host: TerminalHost
) -> None:
    node = make_link()
    first, second = await asyncio.gather(node.open("pty", meta()), node.open("pty", meta()))
    assert len(host) == 1
    assert started() != []
    first.abort()
    second.abort()
