"""Streams on connections of their own, through the real programs."""

from __future__ import annotations

import os
import socket
import threading

import httpx
import psutil
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually
from tests.e2e.tunnelled import connect, echo, make, read_all, tcp_server


class Connections:
    """The connections an agent has made to its gateway since this was made."""

    def __init__(self, agent: AgentProgram, gateway: GatewayProgram) -> None:
        self._agent = psutil.Process(agent.pid)
        self._port = gateway.port
        self._before = self._all()

    def _all(self) -> set[int]:
        return {
            one.laddr.port
            for one in self._agent.net_connections("tcp")
            if one.raddr and one.raddr.port == self._port and one.status == "ESTABLISHED"
        }

    def are(self, count: int) -> None:
        """Return when there are *count*."""
        eventually(
            lambda: len(self._all() - self._before) == count, what=f"{count} new connections"
        )


def dedicated(admin: httpx.Client, machine: str, target: int) -> int:
    """The port of a mapping that wants connections of its own."""
    options = {"carrier": "dedicated"}
    return int(make(admin, machine, target_port=target, options=options)["public_port"])


def there_and_back(port: int, data: bytes) -> bytes:
    with connect(port, timeout=30) as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return read_all(sock)
        finally:
            sender.join(30)


def test_each_stream_has_a_connection_of_its_own(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with tcp_server(echo) as target:
        port = dedicated(admin, machine, target)
        data = os.urandom(6_000_000)
        new = Connections(agent, gateway)
        assert there_and_back(port, data) == data
        new.are(1)  # a spare
        with connect(port) as sock:
            sock.sendall(b"hi")
            assert sock.recv(10) == b"hi"
            new.are(2)  # the stream's own, and the next spare
        new.are(1)
        for _ in range(4):
            assert there_and_back(port, data) == data


def test_an_agent_that_is_killed_does_not_end_streams_in_an_orderly_way(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    """Half a file must not look like a whole one."""

    def endless(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(65536))

    with tcp_server(endless) as target:
        port = dedicated(admin, machine, target)
        new = Connections(agent, gateway)
        with connect(port) as first:
            assert first.recv(10)
        new.are(1)  # a spare
        with connect(port) as sock:
            assert sock.recv(1_000_000)
            new.are(2)
            agent.kill()
            with pytest.raises(ConnectionResetError):
                read_all(sock)
