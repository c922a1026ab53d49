"""One-time codes without an account, with the real programs: where guests may, and where not."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import (
    AgentProgram,
    GatewayProgram,
    killing,
    run,
)
from tests.e2e.test_offers import Command
from tests.e2e.tunnelled import connect, echo, ended, tcp_server

OFFERS = "/api/v1/offers"


class Guest(Command):
    """A command that stays, of somebody without a login."""

    def run(self, *arguments: str) -> Guest:
        self.spawn(list(arguments))
        return self

    def ends_with(self, timeout: float = 20) -> int:
        assert self.process is not None
        return self.process.wait(timeout)


class House(GatewayProgram):
    """A gateway whose guests may what its current mode says."""

    def open(self, mode: str) -> House:
        if self.process is not None and self.alive:
            self.stop()
        self.env["UNDERPASS_GUESTS"] = mode
        self.start()
        return self


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    try:
        yield made.open("all")
    finally:
        made.close()


@pytest.fixture
def target() -> Iterator[int]:
    with tcp_server(echo) as port:
        yield port


def works(port: int, word: bytes = b"hello") -> None:
    with connect(port) as sock:
        sock.sendall(word)
        assert sock.recv(len(word)) == word


def test_from_guest_to_guest_and_ended_by_an_admin(
    house: House, target: int, tmp_path: Path
) -> None:
    offer, accept = Guest("offer", tmp_path / "ann"), Guest("accept", tmp_path / "bob")
    with killing(offer, accept), tcp_server(echo) as other:
        offer.run("offer", "--server", house.url, "tcp", f"127.0.0.1:{target}")
        line = offer.said(r"^(underpass .*)$")
        assert line.startswith(f"underpass --server {house.url} accept ")
        code = line.split()[-1]
        accept.run("accept", code.lower(), "--server", house.url, "--listen", "0")
        port = int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$"))
        works(port)
        assert offer.said(r"^Accepted by (guest-\w+)")
        with connect(port) as sock:
            sock.sendall(b"held")
            assert sock.recv(4) == b"held"
            admin = house.login()
            (seen,) = admin.get(OFFERS, params={"running": True}).json()["data"]["items"]
            assert seen["username"].startswith("guest-")
            assert seen["accepted_by"].startswith("guest-")
            # The code is good for this one target of this one command.
            again = run(house, tmp_path / "eve", "accept", code, token="")
            assert (again.returncode, b"does not work" in again.stderr) == (5, True), again.stderr
            guest = house.client().post("/api/v1/guests").json()["data"]["access_token"]
            for path in ("assets", "mappings", "sessions", "events", "users", "auth/me"):
                answer = house.client(guest).get(f"/api/v1/{path}")
                assert (answer.status_code, answer.json()["code"]) == (403, "guests_may_not"), path
            elsewhere = run(
                house, tmp_path / "eve", "forward", seen["target_client_id"],
                f"0:127.0.0.1:{other}", token=guest,
            )  # fmt: skip
            assert elsewhere.returncode == 4, elsewhere.stderr
            assert admin.delete(f"{OFFERS}/{seen['id']}").status_code == 200
            assert ended(sock)
        assert accept.ends_with() == 5, accept.text()
        assert offer.ends_with() == 5, offer.text()
        assert "revoked" in offer.text()
        types = {
            event["type"]
            for event in admin.get("/api/v1/events", params={"page_size": 200}).json()["data"][
                "items"
            ]
        }
        assert types >= {
            "guest.admitted", "offer.created", "offer.accepted", "offer.revoked", "stream.opened",
            "stream.cut",
        }  # fmt: skip
        assert code not in house.text()


def test_a_person_uses_a_guests_code_and_ctrl_c_ends_it(
    house: House, target: int, tmp_path: Path
) -> None:
    admin = house.login()
    offer, accept = Guest("offer", tmp_path / "ann"), Guest("accept", tmp_path / "bob")
    with killing(offer, accept):
        offer.run("offer", "tcp", str(target), "--server", house.url)
        code = offer.said(r"accept (\S+)$")
        token = str(admin.headers["Authorization"]).removeprefix("Bearer ")
        accept.spawn(
            ["accept", code, "--listen", "0"], UNDERPASS_SERVER=house.url, UNDERPASS_TOKEN=token
        )
        port = int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$"))
        works(port)
        assert offer.process is not None
        offer.process.send_signal(signal.SIGINT)
        assert offer.ends_with() == 130
        assert "Revoked." in offer.text()
        assert accept.ends_with() == 5, accept.text()


def test_what_needs_a_login_says_so(house: House, target: int, tmp_path: Path) -> None:
    for arguments, code, text in (
        (("offer", "tcp", str(target), "--on", "box"), 2, b"--on needs a login"),
        (("offer", "tcp", str(target), "--detach"), 2, b"--detach needs a login"),
        (("expose", "tcp", str(target)), 3, b"not signed in"),
        (("machines",), 3, b"not signed in"),
    ):
        refused = run(house, tmp_path / "x", *arguments, token="")
        assert refused.returncode == code, refused.stderr
        assert text in refused.stderr


def test_where_guests_only_borrow_and_where_there_are_none(
    house: House, target: int, tmp_path: Path
) -> None:
    house.open("accept")
    admin = house.login()
    box = AgentProgram(tmp_path, house, "box", token=house.join_token(admin))
    accept = Guest("accept", tmp_path / "bob")
    with killing(box, accept):
        box.start()
        machine = house.machine(admin, "box")["id"]
        wanted = {"target_client_id": machine, "target_port": target}
        code = admin.post(OFFERS, json=wanted).json()["data"]["code"]
        accept.run("accept", code, "--server", house.url, "--listen", "0")
        works(int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$")))
        refused = run(house, tmp_path / "x", "offer", "tcp", str(target), token="")
        assert refused.returncode == 3, refused.stderr
        assert b"its guests may use codes, not make them" in refused.stderr
        # A gateway that thinks better of it ends them, within seconds of its restart.
        house.open("off")
        assert accept.ends_with(40) in (3, 4), accept.text()
        assert "not valid" in accept.text()
        for arguments in (("offer", "tcp", str(target)), ("accept", "7K3M-9QXD-4TNB")):
            refused = run(house, tmp_path / "x", "--json", *arguments, token="")
            assert refused.returncode == 3, refused.stderr
            error = json.loads(refused.stdout)["error"]
            assert error["code"] == "not_signed_in"
            assert "allows no guests" in error["message"]
            assert "underpass login" in error["hint"]


@pytest.fixture(autouse=True)
def open_again(house: House) -> Iterator[None]:
    """Whatever a test did, the next one finds all guests welcome."""
    yield
    if house.env["UNDERPASS_GUESTS"] != "all":
        house.open("all")


def test_switched_off_is_the_default(tmp_path: Path, gateway: GatewayProgram) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        refused = client.post("/api/v1/guests")
    assert (refused.status_code, refused.json()["code"]) == (403, "no_guests")
