"""The target ``udp``: datagrams to many addresses, each of which is resolved and decided about.

Answers come back only from where something was sent to: the association is no open door to the
machine's network. Names are remembered for a while, so that a game's thousand datagrams a second
are one question to the resolver and one to the policy.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Final

import structlog

from underpass.agent.openers.destinations import Resolve, allowed_addresses
from underpass.agent.policy import Policy
from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.stream import Stream
from underpass.wire.datagrams import MAX_ADDRESSED, DatagramDecoder, DatagramError, encode
from underpass.wire.socks5 import Socks5Error, check_port, decode_address, encode_address

__all__ = ["Association"]

_log = structlog.get_logger(__name__)

REMEMBERED: Final = 30.0
"""Seconds a decision about an address or name is good for."""
MAX_PEERS: Final = 1024
"""Addresses one association talks to; the longest unused is forgotten."""
_MAX_ASKING: Final = 16
_MAX_WAITING: Final = 16

_Target = tuple[str, int]


class Association:
    """One stream's datagrams; receives what the stream pushes.

    Args:
        policy: decides about every address.
        resolve: where names become addresses.
        timeout: seconds for resolving.

    Attributes:
        dropped: datagrams that went nowhere.
    """

    def __init__(self, policy: Policy, resolve: Resolve, timeout: float) -> None:
        self._policy = policy
        self._resolve = resolve
        self._timeout = timeout
        self._decoder = DatagramDecoder(MAX_ADDRESSED)
        self._supervisor = Supervisor("udp association")
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, DatagramSocket] = {}
        self._known: dict[_Target, tuple[float, str | None]] = {}  # None: it may not
        self._asking: dict[_Target, deque[bytes]] = {}
        self._peers: dict[_Target, None] = {}  # whose answers are taken, the latest last
        self._stream: Stream
        self._over = asyncio.Event()
        self.dropped = 0

    async def run(self, stream: Stream) -> None:
        """Pass datagrams on until the stream ends; closes it."""
        self._stream = stream
        try:
            stream.attach(self)
            await self._over.wait()
        except BaseException:
            stream.abort("cancelled")
            raise
        await stream.close()
        if self.dropped:
            _log.debug("datagrams_dropped", count=self.dropped)

    async def close(self) -> None:
        """Give the sockets back and end what is being resolved."""
        for sock in self._sockets.values():
            sock.close()
        await self._supervisor.close()

    # -- out ------------------------------------------------------------------------------------

    def _take(self, payload: bytes) -> None:
        try:
            host, port, end = decode_address(payload)
            check_port(port)
        except Socks5Error:
            self.dropped += 1
            return
        target = (host, port)
        data = payload[end:]
        good_until, address = self._known.get(target, (0.0, None))
        if self._loop.time() < good_until:
            self._send(address, port, data)
        elif (waiting := self._asking.get(target)) is not None:
            if len(waiting) < _MAX_WAITING:
                waiting.append(data)
            else:
                self.dropped += 1
        elif len(self._asking) >= _MAX_ASKING:
            self.dropped += 1
        else:
            self._asking[target] = deque((data,))
            self._supervisor.start(self._ask(target), "resolve")

    async def _ask(self, target: _Target) -> None:
        host, port = target
        address = None
        try:
            async with asyncio.timeout(self._timeout):
                found = await allowed_addresses(self._policy, self._resolve, "udp", host, port)
            address = found[0]
        except (UnderpassError, TimeoutError) as error:
            _log.info("datagram_refused", target=f"udp:{host}:{port}", reason=str(error))
        finally:
            waiting = self._asking.pop(target)
        if len(self._known) >= MAX_PEERS:
            del self._known[next(iter(self._known))]
        self._known[target] = (self._loop.time() + REMEMBERED, address)
        for data in waiting:
            self._send(address, port, data)

    def _send(self, address: str | None, port: int, data: bytes) -> None:
        sock = None if address is None else self._socket(address)
        if sock is None or address is None or not sock.send(data, (address, port)):
            self.dropped += 1
            return
        peer = (address, port)
        self._peers.pop(peer, None)
        if len(self._peers) >= MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[peer] = None

    def _socket(self, address: str) -> DatagramSocket | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        found = self._sockets.get(family)
        if found is None and not self._over.is_set():
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
                sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
            except OSError:
                return None
            found = self._sockets[family] = DatagramSocket(sock, self._received)
        return found

    # -- in -------------------------------------------------------------------------------------

    def _received(self, data: bytes, address: Address) -> None:
        peer = (str(address[0]), int(address[1]))
        if peer not in self._peers or self._stream.full:
            self.dropped += 1
            return
        try:
            payload = encode_address(*peer) + data
            self._stream.send(encode(payload, limit=MAX_ADDRESSED))
        except UnderpassError:
            self.dropped += 1

    # -- Receiver (links/stream.py) -------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: bytes came."""
        try:
            payloads = self._decoder.feed(chunk)
        except DatagramError as error:
            self._stream.abort(error.code, error.message)
            self._over.set()
            return
        for payload in payloads:
            self._take(payload)

    def eof(self) -> None:
        """The stream's: nothing more comes, so nobody wants answers either."""
        self._over.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over."""
        self._over.set()

    def writable(self) -> None:
        """The stream's: nothing waits here."""
