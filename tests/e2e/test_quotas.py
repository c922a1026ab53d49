"""Quotas of a person through the real programs: they hold however many come at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.programs import GatewayProgram, eventually
from tests.e2e.test_exec import token_of
from tests.e2e.test_forward_survives import Forward
from tests.e2e.tunnelled import connect, echo, ended, make, tcp_server

STANDING = True

CHUNK = 256 << 10
"""Bytes a relay may have in its hand at a time, at most."""


class Person:
    """Somebody with a login, who may use the machine, and the quota admins give them."""

    def __init__(self, gateway: GatewayProgram, admin: httpx.Client, machine: str) -> None:
        self.name = f"ann-{time.monotonic_ns()}"
        self.client = gateway.add_user(admin, self.name)
        self.id = str(self.client.get("/api/v1/auth/me").json()["data"]["user"]["id"])
        self._admin, self._machine = admin, machine
        self._allow([self.id])

    def _allow(self, users: list[str]) -> None:
        where = f"/api/v1/assets/{self._machine}"
        assert self._admin.patch(where, json={"allowed_users": users}).status_code == 200

    def quota(self, **limits: int | None) -> dict[str, Any]:
        answer = self._admin.post(f"/api/v1/users/{self.id}/quota", json=limits)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    def traffic(self) -> int:
        answer = self.client.get(f"/api/v1/users/{self.id}/quota")
        return int(answer.json()["data"]["usage"]["traffic"])

    def events(self, kind: str) -> list[dict[str, Any]]:
        answer = self._admin.get("/api/v1/events", params={"type": kind, "page_size": 500})
        items = answer.json()["data"]["items"]
        return [one for one in items if one["object_id"] == self.id]


@pytest.fixture
def ann(gateway: GatewayProgram, admin: httpx.Client, machine: str) -> Iterator[Person]:
    yield Person(gateway, admin, machine)


def pour(sock: socket.socket) -> None:
    """Send without an end."""
    data = bytes(65536)
    while True:
        sock.sendall(data)


def read_until_it_ends(sock: socket.socket) -> int:
    got = 0
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            got += len(data)
    return got


@pytest.mark.parametrize("carrier", ["mux", "dedicated"])
def test_parallel_downloads_end_at_the_monthly_traffic(
    ann: Person, machine: str, carrier: str
) -> None:
    limit = 4_000_000
    ann.quota(monthly_traffic=limit)
    with tcp_server(pour) as target:
        mapping = make(ann.client, machine, target_port=target, options={"carrier": carrier})
        port = mapping["public_port"]

        def download(_: int) -> int:
            with connect(port, timeout=20) as sock:
                return read_until_it_ends(sock)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = list(pool.map(download, range(8)))
        assert sum(got) <= limit + 8 * CHUNK
        # What was counted and did not arrive was still under way when it ended.
        assert limit <= ann.traffic() <= limit + 8 * CHUNK
        with connect(port) as sock:
            assert ended(sock)
        eventually(lambda: ann.events("quota.exceeded"), what="the event")
        raised = ann.quota(monthly_traffic=2 * limit)
        assert raised["monthly_traffic"] == 2 * limit
        with connect(port) as sock:
            assert len(sock.recv(65536)) > 0
        ann.quota(monthly_traffic=None)
        with connect(port) as sock:
            got_now = 0
            while got_now < 2 * limit:
                got_now += len(sock.recv(65536))
    assert len(ann.events("quota.exceeded")) == 1


def test_most_of_it_is_told_and_a_restart_forgets_nothing(
    gateway: GatewayProgram, ann: Person, machine: str
) -> None:
    ann.quota(monthly_traffic=1_000_000)
    with tcp_server(echo) as target:
        port = make(ann.client, machine, target_port=target)["public_port"]
        with connect(port) as sock:
            for _ in range(9):
                sock.sendall(b"x" * 50_000)
                left = 50_000
                while left:
                    left -= len(sock.recv(left))
            assert ann.traffic() == 900_000
        assert len(ann.events("quota.warned")) == 1
        assert gateway.stop() == 0
        gateway.start()
        again = gateway.login()
        gateway.machine(again, "box")
        quota = again.get(f"/api/v1/users/{ann.id}/quota").json()["data"]
        assert quota["usage"]["traffic"] == 900_000

        def passes() -> bool:
            with connect(port) as sock:
                sock.sendall(b"y")
                return sock.recv(1) == b"y"

        eventually(passes, what="the mapping serving again")
        with connect(port) as sock:
            sock.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while True:
                    sock.sendall(b"x" * 10_000)
                    if not sock.recv(10_000):
                        break
        used = again.get(f"/api/v1/users/{ann.id}/quota").json()["data"]["usage"]["traffic"]
        assert 1_000_000 <= used <= 1_000_000 + CHUNK


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGKILL"])
def test_what_passed_is_in_the_account_after_the_end(
    gateway: GatewayProgram, ann: Person, machine: str, ending: str
) -> None:
    """All of it after a signal; all but the last seconds after a crash (docs: quotas.md)."""
    rate, last_seconds = 400_000, 6
    ann.quota(bandwidth=rate)
    got = [0] * 4
    with tcp_server(pour) as target:
        port = make(ann.client, machine, target_port=target)["public_port"]

        def download(number: int) -> None:
            with connect(port, timeout=20) as sock, contextlib.suppress(ConnectionError):
                while data := sock.recv(65536):
                    got[number] += len(data)

        threads = [threading.Thread(target=download, args=(n,), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: sum(got) > (last_seconds + 3) * rate, 40, "the bytes")
        if ending == "SIGTERM":
            assert gateway.stop() == 0
        else:
            gateway.kill()
        for thread in threads:
            thread.join(10)
        gateway.start()
        again = gateway.login()
        quota = again.get(f"/api/v1/users/{ann.id}/quota").json()["data"]
        kept, received = quota["usage"]["traffic"], sum(got)
        gateway.machine(again, "box")
    print(f"{ending}: received {received}, in the account {kept}")
    # What was counted and did not arrive was on its way through sockets when they were closed.
    assert kept <= received + 4 * CHUNK
    assert kept >= received - (0 if ending == "SIGTERM" else last_seconds * rate)


def test_connections_of_each_mapping_under_parallel_connects(ann: Person, machine: str) -> None:
    ann.quota(max_connections_per_mapping=5)
    with tcp_server(echo) as target:
        first, second = (make(ann.client, machine, target_port=target) for _ in range(2))
        held: list[socket.socket] = []
        refused: list[bool] = []
        lock = threading.Lock()

        def visit(number: int) -> None:
            sock = connect(first["public_port"], timeout=10)
            with contextlib.suppress(OSError):
                sock.sendall(b"%d" % (number % 10))
                if sock.recv(1):
                    with lock:
                        held.append(sock)
                    return
            sock.close()
            with lock:
                refused.append(True)

        with concurrent.futures.ThreadPoolExecutor(30) as pool:
            list(pool.map(visit, range(30)))
        assert (len(held), len(refused)) == (5, 25)
        with connect(second["public_port"]) as sock:  # each mapping has its own five
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        ann.quota(max_connections_per_mapping=6)
        with connect(first["public_port"]) as sock:
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
            ann.quota(max_connections_per_mapping=1)
            for one in [*held, sock]:  # nobody is thrown out
                one.sendall(b"z")
                assert one.recv(1) == b"z"
        with connect(first["public_port"]) as late:
            assert ended(late)
        for one in held:
            one.close()


def test_one_bandwidth_for_all_of_a_persons_tunnels(ann: Person, machine: str) -> None:
    """It comes while two mappings pour, and is theirs together."""
    with tcp_server(pour) as target:
        ports = [make(ann.client, machine, target_port=target)["public_port"] for _ in range(2)]
        with connect(ports[0]) as first, connect(ports[1]) as second:
            for sock in (first, second):
                for _ in range(50):
                    assert sock.recv(65536)
            ann.quota(bandwidth=200_000)
            _drain((first, second), 2.0)  # what was under way
            rate = _drain((first, second), 3.0) / 3.0
            assert 100_000 < rate < 320_000
            ann.quota(bandwidth=None)
            _drain((first, second), 1.0)
            assert _drain((first, second), 1.0) > 2_000_000


def test_a_new_connection_takes_what_the_bucket_says(ann: Person, machine: str) -> None:
    def fifty(sock: socket.socket) -> None:
        sock.sendall(bytes(50_000))

    ann.quota(bandwidth=10_000)
    with tcp_server(fifty) as target:
        port = make(ann.client, machine, target_port=target)["public_port"]
        started = time.monotonic()
        with connect(port, timeout=15) as sock:
            assert read_until_it_ends(sock) == 50_000
        assert 4.0 <= time.monotonic() - started <= 6.0


@pytest.mark.parametrize("options", [(), ("--no-resume",)], ids=["resumable", "plain"])
def test_a_forward_of_that_person(
    gateway: GatewayProgram, ann: Person, machine: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """It shares the month with their mappings, ends when that is used up, and says why."""
    ann.quota(monthly_traffic=3_000_000, bandwidth=20_000_000)
    with tcp_server(pour) as target:
        program = Forward(
            tmp_path / "client", gateway.port, token_of(ann.client), "box",
            f"0:127.0.0.1:{target}", *options,
        ).start()  # fmt: skip
        try:
            port = program.ports()[0]
            with connect(port, timeout=20) as sock:
                got = read_until_it_ends(sock)
            assert 1_000_000 < got <= 3_000_000 + CHUNK
            assert ann.traffic() <= 3_000_000 + CHUNK
            sentence = "This month's traffic is used up: 3"
            eventually(lambda: program.text().count(sentence) == 1, what="the sentence")
            with connect(port) as sock:
                assert ended(sock)
            eventually(lambda: program.text().count(sentence) == 2, what="the sentence again")
            assert "It renews on" in program.text()
            mapping = make(ann.client, machine, target_port=target)
            with connect(mapping["public_port"]) as sock:
                assert ended(sock)
            ann.quota(monthly_traffic=None)
            with connect(port) as sock:
                assert len(sock.recv(65536)) > 0
        finally:
            assert program.stop() == 0
    denied = [one["details"] for one in ann.events("quota.exceeded")]
    assert [one["limit"] for one in denied] == [3_000_000]


def _drain(socks: tuple[socket.socket, ...], seconds: float) -> int:
    """Read whatever comes for so long; how much it was."""
    got = [0] * len(socks)

    def read(index: int) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            socks[index].settimeout(max(0.01, left))
            with contextlib.suppress(TimeoutError):
                got[index] += len(socks[index].recv(65536))

    threads = [threading.Thread(target=read, args=(n,), daemon=True) for n in range(len(socks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 5)
    return sum(got)
