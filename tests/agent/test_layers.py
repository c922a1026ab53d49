"""The agent's end of layered streams: what an opening asks for is what lies over it."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.agent.layers import Identity, accept_layers
from underpass.agent.state import AgentState
from underpass.links.compression import compressed
from underpass.links.encryption import SealedStream, seal_as_client
from underpass.links.layers import Compression, Layers
from underpass.links.link import Link, Opening, OpenRefused
from underpass.links.memory import memory_links
from underpass.links.stream import Stream, StreamReset
from underpass.wire.applications import key_fingerprint


@functools.cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def linked(identity: Identity | None) -> Link:
    """A node's end of a link to an agent that echoes."""
    agent, node = memory_links()

    async def echo(opening: Opening) -> None:
        stream = await accept_layers(opening, identity)
        while data := await stream.read():
            stream.write(data)
            await stream.drain()
        await stream.close()

    agent.on_open(echo)
    agent.start()
    return node


async def echoed(stream: Stream, data: bytes = b"hello " * 1000) -> bool:
    stream.write(data)
    await stream.write_eof()
    got = b""
    while chunk := await stream.read():
        got += chunk
    await stream.close()
    return got == data


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4", "gzip", "adaptive"])
@pytest.mark.parametrize("e2e", [False, True])
async def test_layers_are_put_on(compression: Compression, e2e: bool) -> None:
    loaded: list[int] = []

    def load() -> rsa.RSAPrivateKey:
        loaded.append(1)
        return key()

    node = linked(Identity(load))
    for _ in range(2):
        stream = await node.open("tcp:h:1", Layers(compression, e2e).to_meta())
        if e2e:
            stream = await seal_as_client(
                stream, target="tcp:h:1", on_new=lambda found: None,
                agent_fingerprint=key_fingerprint(key().public_key()),
            )  # fmt: skip
            assert isinstance(stream, SealedStream)
        assert await echoed(compressed(stream, compression))
    assert len(loaded) == e2e
    await node.close()


@pytest.mark.parametrize(
    ("identity", "meta", "code"),
    [
        (None, {"layers": {"e2e": True}}, "e2e_unavailable"),
        (None, {"layers": {"compression": "rot13"}}, "invalid_layers"),
    ],
)
async def test_refused_before_it_is_accepted(identity: Any, meta: Any, code: str) -> None:
    node = linked(identity)
    with pytest.raises(OpenRefused) as caught:
        await node.open("tcp:h:1", meta)
    assert caught.value.code == code
    await node.close()


async def test_an_unreadable_key_refuses(tmp_path: Path) -> None:
    state = AgentState(tmp_path / "state")
    (state.directory / "private_key.pem").write_text("nonsense")
    node = linked(Identity(state.private_key))
    with pytest.raises(OpenRefused) as caught:
        await node.open("tcp:h:1", Layers(e2e=True).to_meta())
    assert caught.value.code == "bad_state"
    await node.close()


async def test_a_client_that_does_not_seal_is_cut_off() -> None:
    node = linked(Identity(key))
    stream = await node.open("tcp:h:1", Layers(e2e=True).to_meta())
    stream.write(b"in the clear")
    with pytest.raises(StreamReset) as caught:
        await asyncio.wait_for(stream.read(), 5)
    assert caught.value.code == "e2e_failed"
    await node.close()
