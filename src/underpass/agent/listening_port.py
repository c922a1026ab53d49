"""The ports of one mapping on this machine, and what comes in there: connections and datagrams.

TCP connections are relayed to a stream each. Datagrams of one source address share a stream, too,
and keep their boundaries in it (``wire/datagrams.py``). SOCKS5 is spoken by the gateway, which has
the logins; here it is a TCP port, and a UDP port of the same number.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog

from underpass.agent.far_machines import FarMachines
from underpass.agent.local_flow import LocalFlow
from underpass.agent.policy import Policy
from underpass.core.errors import Forbidden, InvalidRequest, Unavailable, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.compression import compressed
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.layers import Layers
from underpass.links.link import Link
from underpass.links.listener import Listener
from underpass.links.packet_info import arrived_at
from underpass.links.ports import addresses_of, bind
from underpass.links.relay import relay
from underpass.links.sockets import stream_on
from underpass.links.stream import Stream
from underpass.links.trust import parse_fingerprint

__all__ = ["ListeningPort", "Wanted"]

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 4096
"""Connections and flows of one mapping at a time; the mapping's own limit is the gateway's."""
MAX_PORTS: Final = 100
IDLE: Final = 60.0
"""Seconds without a datagram after which a flow ends, unless the mapping says otherwise."""
_TRANSPORTS: Final = {
    "tcp": ("tcp",),
    "unix": ("tcp",),
    "udp": ("udp",),
    "socks5": ("tcp", "udp"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the agent needs of a mapping's item (``control/agent_config.py``)."""

    name: str
    protocol: str
    ports: tuple[int, ...]
    bind: str | None
    layers: Layers
    idle_timeout: float | None
    target: str = ""
    machine: str = ""

    @classmethod
    def of(cls, item: dict[str, Any]) -> Wanted:
        """Read an item.

        Raises:
            InvalidRequest: code ``bad_item``: this version does not understand it.
        """
        source, options = _fields(item, "source"), _fields(item, "options")
        protocol, to = item.get("protocol"), source.get("bind")
        idle = options.get("idle_timeout")
        if not isinstance(protocol, str) or protocol not in _TRANSPORTS:
            raise _not_understood("protocol")
        if to is not None and not isinstance(to, str):
            raise _not_understood("source.bind")
        if idle is not None and not (isinstance(idle, int | float) and idle > 0):
            raise _not_understood("options.idle_timeout")
        compression, e2e = options.get("compression", "none"), options.get("e2e", False)
        target, machine = item.get("target"), options.get("machine", "")
        if not isinstance(target, str) or not isinstance(machine, str) or (e2e and not machine):
            raise _not_understood("target")
        if e2e and protocol == "tcp" and not re.fullmatch(r"tcp:.+:[0-9]{1,5}", target):
            raise _not_understood("target")  # its port is counted on from
        if e2e and protocol not in {"tcp", "unix"}:
            raise _not_understood("options.e2e")
        return cls(
            name=str(item.get("name"))[:64],
            protocol=protocol,
            ports=_ports(source),
            bind=to,
            layers=Layers.from_meta({"layers": {"compression": compression, "e2e": e2e}}),
            idle_timeout=idle,
            target=target,
            machine=machine,
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """What another port is needed for when it changes."""
        return (_TRANSPORTS[self.protocol], self.ports, self.bind)

    def target_for(self, port: int) -> str:
        """What comes in at *port* leads to (``control.mapping.Mapping.target_for``)."""
        if self.protocol == "unix" or len(self.ports) == 1:
            return self.target
        place, _, first = self.target.rpartition(":")
        return f"{place}:{int(first) + port - self.ports[0]}"


class ListeningPort:
    """Listens for one mapping until closed.

    Args:
        mapping_id: what streams are opened to.
        wanted: where to listen.
        policy: decides whether the agent may.
        get_link: gives the link, or raises ``TimeoutError``.
        machines: the keys of machines that connections are encrypted for; without it none are.

    Raises:
        Forbidden: code ``policy_denied``.
        Conflict, Unavailable: see :func:`underpass.links.ports.bind`.

    Attributes:
        port: the port in use, the first of a range.
    """

    def __init__(
        self,
        mapping_id: str,
        wanted: Wanted,
        policy: Policy,
        get_link: Callable[[], Awaitable[Link]],
        machines: FarMachines | None = None,
    ) -> None:
        self._id = mapping_id
        self._wanted = wanted
        self._get_link = get_link
        self._machines = machines
        self._supervisor = Supervisor(f"listening {mapping_id}")
        self._flows: dict[tuple[DatagramSocket, Address], LocalFlow] = {}
        self._listener: Listener | None = None
        self._datagrams: list[DatagramSocket] = []
        addresses = addresses_of(wanted.bind, "127.0.0.1")
        transports = _TRANSPORTS[wanted.protocol]
        ports = list(wanted.ports)
        for port in ports:
            for address in addresses:
                decision = policy.listening(address, port)
                if not decision.allowed:
                    raise Forbidden(
                        f"The machine's agent may not listen on port {port} of {address}. "
                        f"{decision.why} A rule of kind listen in its policy file can.",
                        code="policy_denied",
                    )
        try:
            if "tcp" in transports:
                taken = bind("tcp", ports, addresses, who="machine that should listen")
                self._listener = Listener(taken, self._accepted)
                ports = self._listener.ports
            if "udp" in transports:
                for sock in bind("udp", ports, addresses, who="machine that should listen"):
                    self._hear(sock)
        except BaseException:
            self.stop()
            raise
        self.port = ports[0] or int(self._datagrams[0].address[1])

    @property
    def active(self) -> int:
        """Connections and flows that are open."""
        return len(self._supervisor)

    def serves(self, wanted: Wanted) -> bool:
        """Whether it listens where *wanted* says (a port that was picked stays)."""
        if wanted.ports == (self.port,) and len(self._wanted.ports) == 1:
            return (_TRANSPORTS[wanted.protocol], wanted.bind) == (
                _TRANSPORTS[self._wanted.protocol],
                self._wanted.bind,
            )
        return wanted.key == self._wanted.key

    def change(self, wanted: Wanted) -> None:
        """Take over what need not be listened for anew; connections stay."""
        self._wanted = wanted

    def expire(self) -> None:
        """End flows that have stood still too long."""
        limit = self._wanted.idle_timeout or IDLE
        now = asyncio.get_running_loop().time()
        for flow in tuple(self._flows.values()):
            if now - flow.moved_at >= limit:
                flow.end()

    async def close(self) -> None:
        """Give the ports back and end every connection. Idempotent."""
        self.stop()
        await self._supervisor.close()

    def stop(self) -> None:
        """Give the ports back at once; connections go on until :meth:`close`."""
        if self._listener is not None:
            self._listener.close()
        for sock in self._datagrams:
            sock.close()

    def _meta(self, source: Address, local: Address) -> dict[str, Any]:
        return {
            "source": list(source[:2]),
            "local": list(local[:2]),
            **self._wanted.layers.to_meta(),
        }

    # -- connections ------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, address: Address) -> None:
        if self.active >= MAX_CONNECTIONS:
            sock.close()
            return
        begun = False

        async def work() -> None:
            nonlocal begun
            begun = True
            await self._carry(sock, address)

        task = self._supervisor.start(work(), "connection")
        task.add_done_callback(lambda _: None if begun else sock.close())

    async def _carry(self, sock: socket.socket, address: Address) -> None:
        local = sock.getsockname()
        meta = self._meta(address, local)
        wanted = self._wanted
        stream = await stream_on(sock)
        try:
            link = await self._get_link()
            remote = await link.open(f"mapping:{self._id}", meta)
            if wanted.layers.e2e:
                remote = await self._sealed(link, remote, wanted, int(local[1]))
        except (UnderpassError, TimeoutError) as error:
            _log.info("connection_refused", mapping=self._id, reason=str(error) or "no link")
            await stream.close()
            return
        except BaseException:
            stream.abort()
            raise
        await relay(stream, compressed(remote, wanted.layers.compression))

    async def _sealed(self, link: Link, remote: Stream, wanted: Wanted, port: int) -> Stream:
        if self._machines is None:
            remote.abort("e2e_unavailable")
            raise Unavailable("This agent keeps no keys of machines.", code="e2e_unavailable")

        async def ask() -> str | None:
            told = await link.request("mapping.key", {"mapping": self._id})
            found = told.get("key_fingerprint")
            right = told.get("machine") == wanted.machine and isinstance(found, str)
            return parse_fingerprint(cast("str", found)) if right else None

        try:
            return await self._machines.seal(
                remote, target=wanted.target_for(port), machine=wanted.machine, ask=ask
            )
        except Forbidden as error:
            _log.error("machine_key_refused", mapping=self._id, reason=str(error))
            raise

    # -- datagrams --------------------------------------------------------------------------------

    def _hear(self, sock: socket.socket) -> None:
        heard = DatagramSocket(sock)
        self._datagrams.append(heard)

        def received(data: bytes, address: Address) -> None:
            flow = self._flows.get((heard, address))
            if flow is None:
                flow = self._begin(heard, address)
            if flow is not None:
                flow.take(data)

        heard.start(received)

    def _begin(self, sock: DatagramSocket, address: Address) -> LocalFlow | None:
        if self.active >= MAX_CONNECTIONS:
            return None
        flow = self._flows[sock, address] = LocalFlow(sock, address)
        local = (arrived_at(address) or sock.address[0], sock.address[1])
        meta = self._meta(address, local) | {"datagrams": True}
        task = self._supervisor.start(self._pass(flow, meta), "flow")
        task.add_done_callback(lambda _: self._flows.pop((sock, address), None))
        return flow

    async def _pass(self, flow: LocalFlow, meta: dict[str, Any]) -> None:
        layers = self._wanted.layers
        try:
            link = await self._get_link()
            remote = await link.open(f"mapping:{self._id}", meta)
        except (UnderpassError, TimeoutError) as error:
            _log.debug("flow_refused", mapping=self._id, reason=str(error) or "no link")
            await flow.refused()
            return
        await flow.run(compressed(remote, layers.compression))


def _fields(item: dict[str, Any], name: str) -> dict[str, Any]:
    found = item.get(name)
    if not isinstance(found, dict):
        raise _not_understood(name)
    return cast("dict[str, Any]", found)


def _ports(source: dict[str, Any]) -> tuple[int, ...]:
    port, wide = source.get("port"), source.get("port_range")
    if isinstance(wide, str):
        first, _, last = wide.partition("-")
        if first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535:
            if int(last) - int(first) >= MAX_PORTS:
                raise _not_understood("source.port_range")
            return tuple(range(int(first), int(last) + 1))
    elif isinstance(port, int) and 0 <= port <= 65535:
        return (port,)
    raise _not_understood("source")


def _not_understood(field: str) -> InvalidRequest:
    return InvalidRequest(
        f"The machine's agent does not understand {field} of the mapping; is it too old?",
        code="bad_item",
    )
