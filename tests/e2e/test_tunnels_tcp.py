"""TCP mappings through the real programs, with the clients people use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port
from tests.e2e.tunnelled import (
    after_the_end,
    connect,
    echo,
    ended,
    make,
    read_all,
    stats,
    tcp_server,
)

STANDING = True


@pytest.mark.needs("socat")
def test_half_close_both_ways_with_socat(admin: httpx.Client, machine: str) -> None:
    with tcp_server(after_the_end) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        done = subprocess.run(
            ["socat", "-t", "10", "-", f"TCP:127.0.0.1:{port}"],
            input=b"x" * 2_000_000, capture_output=True, timeout=30, check=True,
        )  # fmt: skip
        assert done.stdout == b"got 2000000\n"


def test_the_target_may_be_done_first(admin: httpx.Client, machine: str) -> None:
    heard: list[bytes] = []

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    with tcp_server(greet) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        with connect(port) as sock:
            assert read_all(sock) == b"hello"
            sock.sendall(b"and then this")
            sock.shutdown(socket.SHUT_WR)
            eventually(lambda: heard, what="the rest arriving")
    assert heard == [b"and then this"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ipv4_and_ipv6(admin: httpx.Client, machine: str, host: str) -> None:
    with tcp_server(echo, "::1") as target:
        port = make(admin, machine, target_host="::1", target_port=target)["public_port"]
        with connect(port, host) as sock:
            sock.sendall(b"over")
            assert sock.recv(10) == b"over"


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip", "adaptive"])
def test_compressed(admin: httpx.Client, machine: str, compression: str) -> None:
    with tcp_server(echo) as target:
        wanted = {"compression": compression}
        port = make(admin, machine, target_port=target, options=wanted)["public_port"]
        data = b"all work and no play " * 50_000
        with connect(port) as sock:
            threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
            got = bytearray()
            while len(got) < len(data):
                got += sock.recv(65536)
        assert got == data


def test_the_target_hears_who_connects(admin: httpx.Client, machine: str) -> None:
    def first_words(sock: socket.socket) -> None:
        sock.sendall(sock.recv(200))

    with tcp_server(first_words) as target:
        options = {"proxy_protocol": "v1", "accept_proxy_protocol": True}
        port = make(admin, machine, target_port=target, options=options)["public_port"]
        with connect(port) as sock:
            sock.sendall(b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n")
            line = sock.recv(200)
        assert line == b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 %d\r\n" % port


@pytest.mark.needs("iperf3")
def test_iperf3(admin: httpx.Client, machine: str) -> None:
    with _iperf3() as target:
        mapping = make(admin, machine, target_port=target)
        for more in ([], ["-R"], ["-P", "4"]):
            report = _measure(mapping["public_port"], "-n", "64M", *more)
            # It stops reading when all is sent; what is then still under way does not count.
            assert report["end"]["sum_received"]["bytes"] >= 5_000_000
        eventually(lambda: stats(admin, mapping)["active"] == 0, what="its connections ending")
        assert stats(admin, mapping)["bytes_sent"] >= 60_000_000


@contextlib.contextmanager
def _iperf3() -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen(
        ["iperf3", "-s", "-p", str(port), "-B", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: connect(port).close() is None, what="iperf3 listening")
        yield port
    finally:
        server.terminate()
        server.wait(5)


def _measure(port: int, *arguments: str) -> dict[str, dict[str, dict[str, float]]]:
    done = subprocess.run(
        ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-J", *arguments],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()[-1000:]
    return dict(json.loads(done.stdout))


@pytest.mark.needs("redis-server", "redis-cli")
def test_redis(admin: httpx.Client, machine: str, tmp_path: Path) -> None:
    target = free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(target), "--bind", "127.0.0.1", "--save", "", "--dir",
         str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: connect(target).close() is None, what="redis listening")
        port = str(make(admin, machine, target_port=target)["public_port"])

        def redis(*words: str) -> bytes:
            return subprocess.run(
                ["redis-cli", "-p", port, *words], capture_output=True, timeout=20, check=True
            ).stdout

        assert redis("SET", "key", "v" * 100_000) == b"OK\n"
        assert redis("GET", "key") == b"v" * 100_000 + b"\n"
    finally:
        server.terminate()
        server.wait(5)


@pytest.mark.needs("psql")
def test_psql(admin: httpx.Client, machine: str, postgresql_url: str) -> None:
    url = httpx.URL(postgresql_url)
    port = make(admin, machine, target_port=url.port)["public_port"]
    plain = str(url.copy_with(scheme="postgresql", host="127.0.0.1", port=port))
    done = subprocess.run(
        ["psql", plain, "-At", "-c", "select sum(n) from generate_series(1, 100000) n"],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"5000050000\n"), done.stderr


def test_so_many_connections_and_no_more(admin: httpx.Client, machine: str) -> None:
    with tcp_server(echo) as target:
        mapping = make(admin, machine, target_port=target, limits={"connections": 2})
        held = [connect(mapping["public_port"]) for _ in range(2)]
        for sock in held:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        with connect(mapping["public_port"]) as third:
            assert ended(third)
        changed = admin.patch(
            f"/api/v1/mappings/{mapping['id']}", json={"limits": {"connections": 3}}
        )
        assert changed.status_code == 200, changed.text
        with connect(mapping["public_port"]) as third:
            third.sendall(b"y")
            assert third.recv(1) == b"y"
        for sock in held:  # the change cost nobody the connection
            sock.sendall(b"z")
            assert sock.recv(1) == b"z"
            sock.close()


@pytest.mark.parametrize("carrier", ["mux", "dedicated"])
def test_a_bandwidth_that_comes_while_bytes_flow(
    admin: httpx.Client, machine: str, carrier: str
) -> None:
    with tcp_server(lambda sock: [sock.sendall(b"x" * 65536) for _ in range(100_000)]) as target:
        mapping = make(admin, machine, target_port=target, options={"carrier": carrier})
        with connect(mapping["public_port"]) as sock:
            for _ in range(200):
                assert sock.recv(65536)
            limits = {"limits": {"bandwidth": 200_000}}
            assert admin.patch(f"/api/v1/mappings/{mapping['id']}", json=limits).status_code == 200
            _drain(sock, 2.0)  # what was under way
            assert _drain(sock, 2.0) < 800_000


def _drain(sock: socket.socket, seconds: float) -> int:
    deadline, got = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            got += len(sock.recv(65536))
    return got


def test_disabling_and_deleting_end_connections(admin: httpx.Client, machine: str) -> None:
    with tcp_server(echo) as target:
        mapping = make(admin, machine, target_port=target)
        where, port = f"/api/v1/mappings/{mapping['id']}", mapping["public_port"]
        with connect(port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert admin.patch(where, json={"status": "disabled"}).status_code == 200
            assert ended(sock)
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert admin.patch(where, json={"status": "active"}).status_code == 200
        with connect(port) as sock:
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
            assert admin.delete(where).status_code == 200
            assert ended(sock)
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_who_loses_the_machine_loses_its_connections(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    bob = gateway.add_user(admin, "bob")
    bob_id = bob.get("/api/v1/auth/me").json()["data"]["user"]["id"]
    where = f"/api/v1/assets/{machine}"
    assert admin.patch(where, json={"allowed_users": [bob_id]}).status_code == 200
    with tcp_server(echo) as target:
        port = make(bob, machine, target_port=target)["public_port"]
        with connect(port, timeout=5) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert admin.patch(where, json={"allowed_users": []}).status_code == 200
            assert ended(sock)
        with connect(port) as sock:
            assert ended(sock)


def test_a_killed_agent_comes_back_to_the_same_port(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with tcp_server(echo) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        with connect(port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            agent.kill()
            assert ended(sock)
        for _ in range(3):  # still listening, and nobody waits for a timeout
            started = time.monotonic()
            with connect(port) as sock:
                assert ended(sock)
            assert time.monotonic() - started < 5
        agent.start()

        def served() -> bool:
            with connect(port) as sock:
                sock.sendall(b"y")
                return sock.recv(1) == b"y"

        eventually(served, what="the mapping serving again")


def test_mappings_are_there_after_a_restart(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with tcp_server(echo) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        gateway.kill()
        gateway.start()

        def served() -> bool:
            with connect(port) as sock:
                sock.sendall(b"y")
                return sock.recv(1) == b"y"

        eventually(served, 30, what="the mapping serving again")


def test_a_port_somebody_has_is_tried_again(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with tcp_server(echo) as target:
        mapping = make(admin, machine, target_port=target)
        port = mapping["public_port"]
        assert gateway.stop() == 0
        where = f"/api/v1/mappings/{mapping['id']}"
        with socket.create_server(("127.0.0.1", port)):
            gateway.start()
            again = gateway.login()
            record = again.get(where).json()["data"]
            assert (record["status"], "in use" in record["error"]) == ("error", True)

        eventually(
            lambda: again.get(where).json()["data"]["status"] == "active", 20, "the port being had"
        )
        gateway.machine(again, "box")
        with connect(port) as sock:
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"


def test_one_stuck_reader_among_many(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    """The others get everything meanwhile, and nobody's memory grows with what nobody reads."""

    def flood(sock: socket.socket) -> None:
        size = 200_000_000 if sock.recv(1) == b"s" else 2_000_000
        for _ in range(size // 50_000):
            sock.sendall(b"x" * 50_000)

    with tcp_server(flood) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        with connect(port) as stuck:
            stuck.sendall(b"s")
            time.sleep(1)
            before = gateway.rss()
            got: list[int] = []

            def fetch() -> None:
                with connect(port, timeout=30) as sock:
                    sock.sendall(b"q")
                    got.append(len(read_all(sock)))

            threads = [threading.Thread(target=fetch, daemon=True) for _ in range(49)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert got == [2_000_000] * 49
            assert gateway.rss() - before < 60_000_000


def test_out_of_descriptors_the_listener_lives_on(tmp_path: Path) -> None:
    gateway = GatewayProgram(tmp_path)
    with contextlib.closing(gateway.start()):
        admin = gateway.login()
        agent = AgentProgram(tmp_path, gateway, "box", token=gateway.join_token(admin)).start()
        try:
            machine = str(gateway.machine(admin, "box")["id"])
            with tcp_server(echo) as target:
                port = make(admin, machine, target_port=target)["public_port"]
                _limit_descriptors(gateway.pid, gateway.descriptors() + 10)
                held = [connect(port) for _ in range(40)]
                time.sleep(0.5)
                for sock in held:
                    sock.close()

                def served() -> bool:
                    with connect(port, timeout=2) as sock:
                        sock.sendall(b"y")
                        return sock.recv(1) == b"y"

                eventually(served, what="the listener accepting again")
        finally:
            agent.stop()


def _limit_descriptors(pid: int, limit: int) -> None:
    subprocess.run(
        ["prlimit", "--pid", str(pid), f"--nofile={limit}:{limit}"], check=True, timeout=10
    )


def test_after_a_storm_everything_is_as_before(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    with tcp_server(echo) as target:
        mapping = make(admin, machine, target_port=target, limits={"connections": 60})

        def visit(number: int) -> None:
            for round_ in range(5):
                with contextlib.suppress(OSError), connect(mapping["public_port"]) as sock:
                    if (number + round_) % 3:
                        sock.sendall(b"x" * 10_000)
                        sock.recv(100)
                    if (number + round_) % 2:
                        sock.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                        )  # ends by reset

        visit(0)
        eventually(lambda: stats(admin, mapping)["active"] == 0)
        before = gateway.descriptors(), agent.descriptors()
        threads = [threading.Thread(target=visit, args=(n,), daemon=True) for n in range(80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        eventually(lambda: stats(admin, mapping)["active"] == 0, what="everything ending")
        eventually(
            lambda: gateway.descriptors() <= before[0] + 8 and agent.descriptors() <= before[1] + 8,
            what="descriptors coming back",
        )
        with connect(mapping["public_port"]) as sock:
            sock.sendall(b"fine")
            assert sock.recv(10) == b"fine"


def test_signals_do_not_hang_on_open_connections(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    with tcp_server(echo) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        with connect(port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            os.kill(gateway.pid, signal.SIGTERM)
            assert ended(sock)
            assert gateway.process is not None
            assert gateway.process.wait(15) == 0
