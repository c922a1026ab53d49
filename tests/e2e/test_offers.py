"""One-time codes with the real programs: Ann lends a port, Bob listens, Ann takes it back."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, Program, eventually, killing, run
from tests.e2e.test_exec import token_of
from tests.e2e.tunnelled import connect, echo, ended, tcp_server

PATH = "/api/v1/offers"


class Command(Program):
    """A command that stays."""

    def start(self, gateway: GatewayProgram, token: str, *arguments: str) -> Command:
        self.spawn(list(arguments), UNDERPASS_SERVER=gateway.url, UNDERPASS_TOKEN=token)
        return self

    def said(self, pattern: str) -> str:
        def probe() -> str | None:
            found = re.search(pattern, self.text(), re.MULTILINE)
            assert found or self.alive, self.text()
            return found[1] if found else None

        return str(eventually(probe, 20, f"{self.name} saying {pattern}"))


class Lent:
    """Ann's offer that Bob has accepted."""

    def __init__(self, accept: Command, offer_id: str, port: int) -> None:
        self.accept, self.id, self.port = accept, offer_id, port


@pytest.fixture
def ann(gateway: GatewayProgram, admin: httpx.Client, machine: str) -> httpx.Client:
    """She may use the machine ``box``."""
    client = gateway.add_user(admin, "ann")
    allowed = {"allowed_users": [client.get("/api/v1/auth/me").json()["data"]["user"]["id"]]}
    answer = admin.patch(f"/api/v1/assets/{machine}", json=allowed)
    assert answer.status_code == 200, answer.text
    return client


@pytest.fixture
def bob(gateway: GatewayProgram, admin: httpx.Client) -> httpx.Client:
    """He may not."""
    return gateway.add_user(admin, "bob")


@pytest.fixture
def target() -> Iterator[int]:
    with tcp_server(echo) as port:
        yield port


@pytest.fixture
def lent(
    gateway: GatewayProgram, ann: httpx.Client, bob: httpx.Client, target: int, tmp_path: Path
) -> Iterator[Lent]:
    offer, accept = Command("offer", tmp_path / "ann"), Command("accept", tmp_path / "bob")
    with killing(offer, accept):
        offer.start(gateway, token_of(ann), "offer", "tcp", f"127.0.0.1:{target}", "--on", "box")
        code = offer.said(r"^underpass accept (\S+)$")
        accept.start(gateway, token_of(bob), "accept", code.lower(), "--listen", "0")
        port = int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$"))
        assert offer.said(r"^Accepted by (\w+)") == "bob"
        assert offer.process is not None
        assert offer.process.wait(10) == 0
        (found,) = ann.get(PATH, params={"running": True}).json()["data"]["items"]
        assert (found["status"], found["accepted_by"]) == ("accepted", "bob")
        yield Lent(accept, found["id"], port)


def works(sock: socket.socket, word: bytes = b"hello") -> None:
    sock.sendall(word)
    assert sock.recv(len(word), socket.MSG_WAITALL) == word


def test_a_code_lends_one_port_until_it_is_revoked(
    gateway: GatewayProgram, ann: httpx.Client, bob: httpx.Client, target: int, lent: Lent,
    tmp_path: Path,
) -> None:  # fmt: skip
    with connect(lent.port) as sock:
        works(sock)
        with tcp_server(echo) as other:  # nothing but the target, not even over the same machine
            refused = run(
                gateway, tmp_path / "x", "forward", "box", f"0:127.0.0.1:{other}",
                token=token_of(bob), timeout=20,
            )  # fmt: skip
            assert refused.returncode == 5, refused.stderr
        ended_by = run(gateway, tmp_path / "x", "offers", "revoke", lent.id, token=token_of(ann))
        assert (ended_by.returncode, ended_by.stdout) == (0, b"Revoked.\n")
        revoked = time.monotonic()
        assert ended(sock)
        assert time.monotonic() - revoked < 5
    assert lent.accept.process is not None
    assert lent.accept.process.wait(15) == 5, "the command ends with the offer"
    assert "revoked" in lent.accept.text()
    listed = run(gateway, tmp_path / "x", "--json", "offers", "list", "--all", token=token_of(bob))
    (found,) = json.loads(listed.stdout)
    assert (found["id"], found["status"]) == (lent.id, "revoked")


def test_a_code_works_once_and_is_written_nowhere(
    gateway: GatewayProgram, admin: httpx.Client, ann: httpx.Client, bob: httpx.Client,
    target: int, tmp_path: Path,
) -> None:  # fmt: skip
    made = run(
        gateway, tmp_path / "ann", "--json", "offer", "tcp", str(target), "--on", "box", "--detach",
        "--for", "5m", token=token_of(ann),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    code = json.loads(made.stdout)["code"]
    codes = [code] * 6
    programs = [
        subprocess.Popen(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{gateway.url}{PATH}/accept",
             "-H", f"Authorization: Bearer {token_of(bob)}", "-H", "Content-Type: application/json",
             "-d", json.dumps({"code": one})],
            stdout=subprocess.PIPE,
        )
        for one in codes
    ]  # fmt: skip
    answers = [program.communicate(timeout=20)[0] for program in programs]
    assert answers.count(b"200") == 1, answers
    assert set(answers) <= {b"200", b"404", b"429"}
    events = admin.get("/api/v1/events", params={"type": "offer"}).text
    assert {"offer.created", "offer.accepted"} <= set(re.findall(r"offer\.\w+", events))
    for place in (events, gateway.text(), ann.get(PATH).text):
        assert code not in place
    for file in gateway.state.rglob("*"):
        assert not file.is_file() or code.encode() not in file.read_bytes(), file


@pytest.mark.long
def test_the_access_runs_out_by_itself(
    gateway: GatewayProgram, ann: httpx.Client, bob: httpx.Client, target: int, machine: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    wanted = {"target_client_id": machine, "target_port": target}
    code = ann.post(PATH, json=wanted).json()["data"]["code"]
    accept = Command("accept", tmp_path / "bob")
    with killing(accept):
        accept.start(gateway, token_of(bob), "accept", code, "--e2e", "--for", "6s")
        with connect(int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$")), timeout=15) as sock:
            works(sock)
            assert ended(sock)
        assert accept.process is not None
        assert accept.process.wait(15) == 5
        assert "expired" in accept.text()


@pytest.mark.long
def test_what_the_lender_loses_the_borrower_loses(
    admin: httpx.Client, bob: httpx.Client, machine: str, lent: Lent
) -> None:
    with connect(lent.port) as sock:
        works(sock)
        answer = admin.patch(f"/api/v1/assets/{machine}", json={"allowed_users": []})
        assert answer.status_code == 200, answer.text
        assert ended(sock)


@pytest.mark.long
def test_it_goes_on_after_a_restart_of_the_gateway_and_of_the_command(
    gateway: GatewayProgram, agent: AgentProgram, bob: httpx.Client, lent: Lent, tmp_path: Path
) -> None:
    with connect(lent.port, timeout=30) as sock:
        works(sock)
        gateway.kill()
        gateway.start()
        works(sock, b"again")
    lent.accept.stop()
    again = Command("accept-again", tmp_path / "bob")
    with killing(again):
        again.start(gateway, token_of(bob), "accept", lent.id)
        with connect(int(again.said(r"^listening on 127\.0\.0\.1:(\d+)$"))) as sock:
            works(sock)


@pytest.mark.long
def test_ctrl_c_before_anybody_came_revokes_it(
    gateway: GatewayProgram, ann: httpx.Client, machine: str, target: int, tmp_path: Path
) -> None:
    offer = Command("offer", tmp_path / "ann")
    with killing(offer):
        offer.start(gateway, token_of(ann), "offer", "tcp", str(target), "--on", "box")
        offer.said(r"^underpass accept (\S+)$")
        assert offer.process is not None
        offer.process.send_signal(signal.SIGINT)
        assert offer.process.wait(10) == 130
    (found,) = ann.get(PATH).json()["data"]["items"]
    assert found["status"] == "revoked"


def test_a_taken_port_costs_no_code(
    gateway: GatewayProgram, ann: httpx.Client, bob: httpx.Client, machine: str, target: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    code = ann.post(PATH, json={"target_client_id": machine, "target_port": target}).json()["data"]
    refused = run(
        gateway, tmp_path / "bob", "accept", code["code"], "--listen", str(target),
        token=token_of(bob),
    )  # fmt: skip
    assert (refused.returncode, b"taken" in refused.stderr) == (6, True), refused.stderr
    wrong = run(gateway, tmp_path / "bob", "accept", "7K3M-9QXD-4TNB", token=token_of(bob))
    assert (wrong.returncode, b"does not work" in wrong.stderr) == (5, True), wrong.stderr
    (found,) = ann.get(PATH).json()["data"]["items"]
    assert found["status"] == "waiting"
