"""Mappings with the clients people use, beside those of the other tunnel tests: dig, nc, ssh.

psql, redis-cli and iperf3 are in ``test_tunnels_tcp.py`` and ``test_tunnels_udp.py``, curl is in
``test_tunnels_socks.py`` and ``test_socks_command.py``.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import eventually, unique
from tests.e2e.test_ssh import sshd  # noqa: F401 - a fixture
from tests.e2e.tunnelled import after_the_end, make, read_all, tcp_server, udp_server

STANDING = True


def call(*command: str, data: bytes = b"", timeout: float = 40.0) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


# -- nc: half-close -------------------------------------------------------------------------------


@pytest.mark.needs("nc")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("carrier", ["mux", "dedicated"])
def test_nc_gets_the_whole_answer_after_its_own_end(
    admin: httpx.Client, machine: str, host: str, carrier: str
) -> None:
    """``printf x | nc``: the answer begins when the question has ended, and is long."""

    def answer(sock: socket.socket) -> None:
        question = read_all(sock)
        sock.sendall(b"you said %d\n" % len(question) + b"a" * 3_000_000)

    with tcp_server(answer) as target:
        mapping = make(admin, machine, target_port=target, options={"carrier": carrier})
        got = call("nc", "-N", host, str(mapping["public_port"]), data=b"x" * 100_000)
        assert got == b"you said 100000\n" + b"a" * 3_000_000


@pytest.mark.needs("nc")
@pytest.mark.parametrize("carrier", ["mux", "dedicated"])
def test_nc_goes_on_sending_after_the_end_of_the_answer(
    admin: httpx.Client, machine: str, carrier: str
) -> None:
    heard: list[bytes] = []

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"go ahead\n")
        sock.shutdown(socket.SHUT_WR)  # with the words, or right behind them
        heard.append(read_all(sock))

    with tcp_server(greet) as target:
        mapping = make(admin, machine, target_port=target, options={"carrier": carrier})
        with subprocess.Popen(
            ["nc", "-N", "127.0.0.1", str(mapping["public_port"])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as client:  # fmt: skip
            assert client.stdout is not None
            assert client.stdin is not None
            assert client.stdout.readline() == b"go ahead\n"
            client.stdin.write(b"z" * 2_000_000)
            client.stdin.close()
            assert client.wait(30) == 0
        eventually(lambda: heard, what="the end arriving")
        assert heard == [b"z" * 2_000_000]


@pytest.mark.needs("nc")
def test_nc_at_both_ends(admin: httpx.Client, machine: str) -> None:
    """An nc that serves one connection, and nc to it, over IPv6."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        target = int(probe.getsockname()[1])
    with subprocess.Popen(
        ["nc", "-6", "-l", "-N", "::1", str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        mapping = make(admin, machine, target_host="::1", target_port=target)
        with subprocess.Popen(
            ["nc", "-6", "-N", "::1", str(mapping["public_port"])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as client:  # fmt: skip
            for program, words in ((server, b"from the server\n"), (client, b"from the client\n")):
                assert program.stdin is not None
                program.stdin.write(words)
                program.stdin.close()
            said, heard = server.stdout, client.stdout
            assert said is not None
            assert heard is not None
            assert said.read() == b"from the client\n"
            assert heard.read() == b"from the server\n"


# -- dig: UDP -------------------------------------------------------------------------------------


def name_server(question: bytes) -> bytes:
    """Answers every question for an address with 192.0.2.53, and for text with 2,000 bytes."""
    (ident,) = struct.unpack_from("!H", question)
    end = question.index(b"\0", 12) + 5
    asked = question[12:end]
    if asked[-4:-2] == b"\0\x10":  # TXT
        text = b"".join(b"\xfa" + bytes([number + 97]) * 250 for number in range(8))
        data, kind = text, b"\0\x10"
    else:
        data, kind = socket.inet_aton("192.0.2.53"), b"\0\1"
    record = b"\xc0\x0c" + kind + b"\0\1" + struct.pack("!IH", 60, len(data)) + data
    return struct.pack("!6H", ident, 0x8580, 1, 1, 0, 0) + asked + record


def dig(port: int, *arguments: str) -> str:
    return call(
        "dig", "@127.0.0.1", "-p", str(port), "+tries=3", "+time=5", "+short", *arguments
    ).decode()


@pytest.mark.needs("dig")
def test_dig_asks_a_name_server_behind_the_machine(admin: httpx.Client, machine: str) -> None:
    with udp_server(name_server) as target:
        port = make(admin, machine, protocol="udp", target_port=target)["public_port"]
        assert dig(port, "www.example", "A") == "192.0.2.53\n"
        text = dig(port, "+bufsize=4096", "+ignore", "www.example", "TXT")
        assert text.count("h" * 250) == 1  # the eighth, in a datagram of 2,000 bytes
        assert dig(port, "a.example", "A", "b.example", "A") == "192.0.2.53\n" * 2


@pytest.mark.needs("dig")
def test_dig_hears_answers_from_the_address_it_asked(admin: httpx.Client, machine: str) -> None:
    """On a gateway with several addresses; dig takes answers from no other."""
    with udp_server(name_server) as target:
        source = {"bind": "0.0.0.0"}
        port = make(admin, machine, protocol="udp", target_port=target, source=source)[
            "public_port"
        ]
        for address in ("127.0.0.2", "127.1.2.3"):
            said = call(
                "dig", f"@{address}", "-b", "127.0.0.1", "-p", str(port), "+tries=1", "+time=5",
                "+short", "www.example",
            )  # fmt: skip
            assert said == b"192.0.2.53\n"


# -- ssh ------------------------------------------------------------------------------------------


@pytest.mark.needs("sshd", "ssh")
@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "carrier": "mux"}])
def test_ssh_through_a_mapping(
    admin: httpx.Client,
    machine: str,
    sshd: tuple[int, Path],  # noqa: F811
    tmp_path: Path,
    options: dict[str, str],
) -> None:
    target, key = sshd
    name = unique("ssh")
    port = make(admin, machine, name=name, target_port=target, options=options)["public_port"]
    command = [
        "ssh", "-F", "/dev/null", "-i", str(key), "-p", str(port), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known",
        "127.0.0.1",
    ]  # fmt: skip
    assert call(*command, "echo $((6*7))") == b"42\n"
    data = os.urandom(2 << 20)
    assert call(*command, "cat", data=data) == data


@pytest.mark.needs("curl")
def test_curl_through_a_mapping_over_ipv6(admin: httpx.Client, machine: str) -> None:
    def page(sock: socket.socket) -> None:
        sock.recv(10_000)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"page\n" * 100_000)

    with tcp_server(page, "::1") as target:
        port = make(admin, machine, target_host="::1", target_port=target)["public_port"]
        assert call("curl", "-sS", "--noproxy", "*", f"http://[::1]:{port}/") == b"page\n" * 100_000


def test_a_message_and_its_end_in_one_packet(admin: httpx.Client, machine: str) -> None:
    """What a small client does: connect, send, end, read; many times."""
    with tcp_server(after_the_end) as target:
        port = make(admin, machine, target_port=target)["public_port"]
        for size in range(1, 60):
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"x" * size)
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == b"got %d\n" % size
