"""The ports of one mapping, or of a group of mappings, and who of them gets what comes in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from underpass.control.mapping import Mapping
from underpass.gateway.entrypoints.entry_point import EntryPoint
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.listener import Listener
from underpass.links.ports import bind

__all__ = ["Doorway"]


class Doorway:
    """Listens on the ports of *mapping*; the mappings behind it are added and removed.

    A machine that is away is passed over while another one of the group is there, and so is a
    target that is down: the group serves as long as anybody in it does. When all are down, all
    are used as if none were: the tries may be wrong, and refusing everybody helps nobody.

    Args:
        mapping: the first behind it.
        addresses: where to listen; what has no IPv6 does without all but the first.
        is_linked: whether a machine has its link.
        is_down: whether a mapping's target is known to be down.

    Raises:
        Conflict, Unavailable: see :func:`underpass.links.ports.bind`.
    """

    def __init__(
        self,
        mapping: Mapping,
        addresses: Sequence[str],
        is_linked: Callable[[str], bool],
        is_down: Callable[[str], bool] = lambda _mapping_id: False,
    ) -> None:
        self._is_linked = is_linked
        self._is_down = is_down
        self._entries: list[EntryPoint] = []
        self._turn = 0
        self._listener: Listener | None = None
        self._datagrams: list[DatagramSocket] = []
        ports: list[int] = list(mapping.source.ports) or [0]
        try:
            if "tcp" in mapping.transports:
                self._listener = Listener(bind("tcp", ports, addresses), self._accepted)
                ports = self._listener.ports
            if "udp" in mapping.transports:
                for sock in bind("udp", ports, addresses):
                    self._hear(sock)
        except BaseException:
            self.close()
            raise
        self.port = ports[0] or int(self._datagrams[0].address[1])
        """The port in use, the first of a range."""

    def __len__(self) -> int:
        """How many mappings are behind it."""
        return len(self._entries)

    def add(self, entry: EntryPoint) -> None:
        """Let *entry* have its share from now on."""
        self._entries.append(entry)

    def remove(self, entry: EntryPoint) -> None:
        """*entry* gets nothing more; the last one should be followed by :meth:`close`."""
        self._entries.remove(entry)

    def close(self) -> None:
        """Give the ports back. Idempotent."""
        if self._listener is not None:
            self._listener.close()
        for sock in self._datagrams:
            sock.close()

    def _hear(self, sock: socket.socket) -> None:
        heard = DatagramSocket(sock)
        self._datagrams.append(heard)

        def received(data: bytes, address: Address) -> None:
            self._received(data, address, heard)

        heard.start(received)

    def _accepted(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        if self._entries:
            self._choose().accepted(sock, address)
        else:
            sock.close()

    def _received(self, data: bytes, address: Address, sock: DatagramSocket) -> None:
        if len(self._entries) == 1:
            self._entries[0].received(data, address, sock)
            return
        for entry in self._entries:
            if entry.knows(address):
                entry.received(data, address, sock)
                return
        if self._entries:
            self._choose().received(data, address, sock)

    def _choose(self) -> EntryPoint:
        entries = self._entries
        if len(entries) == 1:
            return entries[0]
        there = [entry for entry in entries if self._is_linked(entry.mapping.target_agent_id)]
        there = [entry for entry in there if not self._is_down(entry.mapping.id)] or there
        there = there or entries
        self._turn += 1
        first = self._turn % len(there)
        if entries[0].mapping.balancing.balance == "round_robin":
            return there[first]
        in_turn = there[first:] + there[:first]
        return min(in_turn, key=lambda entry: entry.active)
