"""End-to-end encrypted streams: the gateway in between sees ciphertext and lengths, nothing else.

``wire/sealing.py`` has the handshake, ``wire/sealed_records.py`` the records,
``docs/explanation/end-to-end-encryption.md`` what is promised and what is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.stream import Stream, StreamReset
from underpass.links.wrapped import WrappedStream
from underpass.wire.pieces import Buffer
from underpass.wire.sealed_records import Sealer, Tampered, Unsealer
from underpass.wire.sealing import Sealed, SealingAgent, SealingClient, SealingError

__all__ = ["SEAL_TIMEOUT", "SealedStream", "seal_as_agent", "seal_as_client"]

SEAL_TIMEOUT: Final = 10.0
"""Seconds for the handshake."""


async def seal_as_client(
    stream: Stream,
    *,
    target: str,
    agent_fingerprint: str | None,
    on_new: Callable[[str], None],
    timeout: float = SEAL_TIMEOUT,
) -> Stream:
    """Encrypt *stream*, which was opened to *target* with ``Layers(e2e=True)``.

    On any failure the stream is aborted; nothing of the application was sent before the agent
    has proved its key.

    Args:
        target: exactly as it was opened; the agent compares it with what reached it.
        agent_fingerprint: ``sha256:…`` of the only key to accept; None when none is known yet.
        on_new: called with the fingerprint of the proved key when none was known; what it raises
            refuses it.
        timeout: seconds.

    Raises:
        WrongKey: the agent has another key (``agent_key_changed``).
        SealingError: the handshake failed.
        StreamReset: the stream ended meanwhile; ``code`` may be the agent's reason.
        Unavailable: code ``e2e_timeout``.
    """
    client = SealingClient(target, agent_fingerprint=agent_fingerprint)
    async with _handshake(stream, timeout):
        stream.write(client.hello)
        while (sealed := client.feed(await _some(stream))) is None:
            pass
        if agent_fingerprint is None:
            on_new(sealed.fingerprint)
    return SealedStream(stream, sealed)


async def seal_as_agent(
    stream: Stream, private_key: rsa.RSAPrivateKey, *, target: str, timeout: float = SEAL_TIMEOUT
) -> Stream:
    """Encrypt *stream*, an accepted opening of *target* whose layers ask for it.

    On any failure the stream is aborted.

    Args:
        private_key: the key the agent enrolled with.
        target: as it was asked for.
        timeout: seconds.

    Raises:
        SealingError: the handshake failed.
        StreamReset: the stream ended meanwhile.
        Unavailable: code ``e2e_timeout``.
    """
    agent = SealingAgent(target, private_key)
    async with _handshake(stream, timeout):
        while (hello := agent.feed(await _some(stream))) is None:
            pass
        answer, sealed = await asyncio.to_thread(agent.answer, hello)
        stream.write(answer)
    return SealedStream(stream, sealed)


@asynccontextmanager
async def _handshake(stream: Stream, timeout: float) -> AsyncGenerator[None]:
    """Whatever goes wrong within, or lasts too long, aborts *stream*."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        error = Unavailable(
            f"End-to-end encryption was not agreed within {timeout:g} seconds.", code="e2e_timeout"
        )
        stream.abort(error.code, error.message)
        raise error from None
    except UnderpassError as error:
        stream.abort(error.code, error.message)
        raise
    except BaseException:  # cancelled, or a callback's own failure: nobody else ends the stream
        stream.abort()
        raise


async def _some(stream: Stream) -> bytes:
    data = await stream.read()
    if not data:
        raise SealingError("The stream ended in the middle of the handshake.")
    return data


class SealedStream(WrappedStream):
    """A stream of sealed records, after the handshake.

    What was changed on its way ends it with a StreamReset, code ``tampered``; an end that the peer
    did not seal with code ``truncated``. Bytes that were read before that are the peer's own.
    """

    def __init__(self, inner: Stream, sealed: Sealed) -> None:
        super().__init__(inner)
        self._sealer = Sealer(sealed.outgoing)
        self._unsealer = Unsealer(sealed.incoming)
        self.agent_fingerprint = sealed.fingerprint
        if sealed.rest:
            self._take_in(sealed.rest)
            self._dry = False
        self._start()
        self._pump()

    # -- in -----------------------------------------------------------------------------------

    def _take_in(self, chunk: Buffer) -> None:
        self._unsealer.feed(chunk)

    def _next_piece(self) -> Buffer | None:
        try:
            return self._unsealer.next()
        except Tampered as error:
            raise _reset(error) from None

    def _settle(self) -> None:
        self._unsealer.keep()

    def _check_end(self) -> None:
        try:
            self._unsealer.finish()
        except Tampered as error:
            raise _reset(error) from None

    # -- out ----------------------------------------------------------------------------------

    def send(self, data: Buffer) -> None:
        if not (self.closed or self._finished) and data:
            self.bytes_out += len(data)
            for record in self._sealer.seal(data):
                self._inner.send(record)

    def _end_output(self) -> None:
        self._inner.send(self._sealer.end())
        self._inner.finish()


def _reset(error: Tampered) -> StreamReset:
    return StreamReset(error.message, code=error.code)
