"""UDP mappings through the real programs."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port
from tests.e2e.tunnelled import connect, make, stats, udp_server

STANDING = True


@contextlib.contextmanager
def source(port: int, host: str = "127.0.0.1", timeout: float = 5.0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((host, port))
        yield sock


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.send(data)
    return sock.recv(70_000)


def same(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_boundaries_and_sizes(admin: httpx.Client, machine: str, host: str) -> None:
    with udp_server(same, host) as target:
        wanted = {"protocol": "udp", "target_host": host, "target_port": target}
        port = make(admin, machine, **wanted)["public_port"]
        with source(port, host) as sock:
            for size in (0, 1, 512, 1500, 9000, 65_507):
                assert ask(sock, b"d" * size) == b"d" * size


def test_an_oversize_datagram_costs_itself_only(admin: httpx.Client, machine: str) -> None:
    with udp_server(same) as target:
        mapping = make(admin, machine, protocol="udp", target_port=target)
        with source(mapping["public_port"], "::1") as sock:
            assert ask(sock, b"before") == b"before"
            sock.send(b"z" * 65_527)  # IPv6 carries it, IPv4 to the target does not
            assert ask(sock, b"after") == b"after"
        assert stats(admin, mapping)["total_connections"] == 1


def test_a_name_server(admin: httpx.Client, machine: str) -> None:
    """A DNS question of ours, and an answer with the question's id in it."""

    def resolve(question: bytes) -> bytes:
        ident = question[:2]
        name = question[12:]
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.53")
        return ident + b"\x81\x80\0\1\0\1\0\0\0\0" + name + answer

    with udp_server(resolve) as target:
        port = make(admin, machine, protocol="udp", target_port=target)["public_port"]
        with source(port) as sock:
            for ident in range(50):
                question = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0)
                question += b"\3www\7example\0\0\1\0\1"
                answer = ask(sock, question)
                assert answer[:2] == question[:2]
                assert answer[-4:] == socket.inet_aton("192.0.2.53")


def test_many_sources_each_with_its_answers(admin: httpx.Client, machine: str) -> None:
    with udp_server(same) as target, contextlib.ExitStack() as stack:
        mapping = make(admin, machine, protocol="udp", target_port=target)
        socks = [stack.enter_context(source(mapping["public_port"])) for _ in range(50)]
        for number, sock in enumerate(socks):
            sock.send(b"%d" % number)
        for number, sock in enumerate(socks):
            assert sock.recv(100) == b"%d" % number
        assert stats(admin, mapping)["active"] == 50


def test_a_target_that_comes_back(admin: httpx.Client, machine: str) -> None:
    target = free_port()
    port = make(admin, machine, protocol="udp", target_port=target)["public_port"]
    with source(port, timeout=0.3) as sock:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                ask(sock, b"anybody?")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(("127.0.0.1", target))
            back.settimeout(5)
            sock.send(b"now")
            data, address = back.recvfrom(100)
            back.sendto(data, address)
            sock.settimeout(5)
            assert sock.recv(100) == b"now"


def test_silent_flows_end(admin: httpx.Client, machine: str) -> None:
    with udp_server(same) as target:
        options = {"idle_timeout": 1}
        mapping = make(admin, machine, protocol="udp", target_port=target, options=options)
        with source(mapping["public_port"]) as sock:
            assert ask(sock, b"1") == b"1"
            eventually(lambda: stats(admin, mapping)["active"] == 0, 10, "the flow ending")
            assert ask(sock, b"2") == b"2"
        assert stats(admin, mapping)["total_connections"] == 2


def test_a_killed_agent_comes_back(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with udp_server(same) as target:
        mapping = make(admin, machine, protocol="udp", target_port=target)
        with source(mapping["public_port"], timeout=0.5) as sock:
            assert ask(sock, b"1") == b"1"
            agent.kill()
            with pytest.raises(TimeoutError):
                ask(sock, b"2")
            agent.start()

            def served() -> bool:
                with contextlib.suppress(TimeoutError):
                    return ask(sock, b"3") == b"3"
                return False

            eventually(served, 20, "the mapping serving again")


def test_a_flood_ends_nothing(gateway: GatewayProgram, admin: httpx.Client, machine: str) -> None:
    with udp_server(same) as target:
        mapping = make(admin, machine, protocol="udp", target_port=target)
        with source(mapping["public_port"]) as sock:
            assert ask(sock, b"before") == b"before"
            before = gateway.rss()
            noise = random.Random(7)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                sock.send(b"x" * noise.choice((10, 1400, 60_000)))
            assert gateway.rss() - before < 40_000_000
        with source(mapping["public_port"]) as sock:  # another flow, right behind it

            def served() -> bool:
                return ask(sock, b"after") == b"after"

            eventually(served, what="datagrams passing again")


@pytest.mark.needs("iperf3")
@pytest.mark.parametrize("more", [[], ["-R"]])
def test_iperf3(admin: httpx.Client, machine: str, more: list[str]) -> None:
    """iperf3 wants TCP and UDP at one port number: two mappings with the same one."""
    target = free_port()
    server = subprocess.Popen(
        ["iperf3", "-s", "-p", str(target), "-B", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: connect(target).close() is None, what="iperf3 listening")
        port = make(admin, machine, target_port=target)["public_port"]
        make(admin, machine, protocol="udp", source={"port": port}, target_port=target)
        done = subprocess.run(
            ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-u", "-b", "20M", "-l", "1400", "-t",
             "3", "-J", *more],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode()[-1000:]
        total = json.loads(done.stdout)["end"]["sum"]
        assert total["packets"] > 4000
        assert total["lost_percent"] < 50  # a busy machine loses some; none is put in twice
    finally:
        server.terminate()
        server.wait(5)
