"""``underpass offer``, ``accept`` and ``offers`` against a real gateway; the machine is away."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from underpass.cli import accept as accept_command
from underpass.cli import exits
from underpass.cli import offer as offer_command
from underpass.cli.expose import Stopped
from underpass.cli.options import Connection
from underpass.cli.output import Output
from underpass.core.errors import Gone, InvalidRequest, NotFound, Unavailable, UnderpassError

from .conftest import Result, RunningGateway
from .test_machines import apply

Call = Callable[..., Result]
DEAD_CODE = "0000-0000-0000"


@pytest.fixture
def machine(gateway: RunningGateway, signed_in: Call) -> str:
    name = f"box-{secrets.token_hex(3)}"
    apply(gateway, name)
    assert signed_in("approve", name).status == 0
    return name


def status_of(call: Call, offer_id: str) -> str:
    listed = call("--json", "offers", "list", "--all").json
    return next(str(one["status"]) for one in listed if one["id"] == offer_id)


def test_the_code_is_the_last_word_of_the_first_line(signed_in: Call, machine: str) -> None:
    result = signed_in("offer", "tcp", "10.0.0.7:3306", "--on", machine, "--detach")
    assert result.status == 0, result.err
    (line,) = result.out.splitlines()
    code = line.split()[-1]
    assert line == f"underpass accept {code}"
    assert [len(part) for part in code.split("-")] == [4, 4, 4]
    assert "tcp:10.0.0.7:3306" in result.err
    assert code not in result.err
    listed = signed_in("offers")
    for text in ("waiting", "tcp:10.0.0.7:3306", machine):
        assert text in listed.out
    assert code not in listed.out


def test_as_json_with_times(signed_in: Call, machine: str) -> None:
    arguments = ("unix", "/run/x.sock", "--on", machine, "--for", "1h", "--access", "2d", "-d")
    made = signed_in("--json", "offer", *arguments)
    assert made.status == 0, made.err
    assert made.json["command"] == f"underpass accept {made.json['code']}"
    assert (made.json["target"], made.json["access_for"]) == ("unix:/run/x.sock", 172800)
    revoked = signed_in("offers", "revoke", made.json["id"])
    assert (revoked.status, revoked.out) == (0, "Revoked.\n")
    assert status_of(signed_in, made.json["id"]) == "revoked"
    assert made.json["id"] not in signed_in("offers", "list").out
    assert signed_in("offers", "revoke", "nothing").status == exits.NOT_FOUND


def test_of_this_machine_by_its_host_name(
    gateway: RunningGateway, signed_in: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostname = f"here-{secrets.token_hex(3)}"
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    assert signed_in("offer", "tcp", "22", "--detach").status == exits.NOT_FOUND
    apply(gateway, hostname)
    assert signed_in("approve", hostname).status == 0
    assert hostname in signed_in("offer", "tcp", "22", "--detach").err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.OK)]
)
def test_a_signal_revokes_what_nobody_accepted(
    gateway: RunningGateway, signed_in: Call, machine: str, number: int, status: int
) -> None:
    offers, heard = gateway._gateway.services.offers, threading.Event()
    made: list[str] = []
    create = offers.create

    async def noticed(*arguments: Any) -> Any:
        offer, code = await create(*arguments)
        made.append(offer.id)
        heard.set()
        return offer, code

    def stop() -> None:
        assert heard.wait(20)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    offers.create = noticed  # type: ignore[method-assign]
    try:
        result = signed_in("offer", "tcp", "22", "--on", machine)
    finally:
        offers.create = create  # type: ignore[method-assign]
        thread.join(25)
    assert result.status == status, result.err
    assert result.err.splitlines()[-1] == "Revoked."
    assert status_of(signed_in, made[0]) == "revoked"


class Answers:
    """What the gateway says of an offer, look by look."""

    def __init__(self, *answers: dict[str, Any] | UnderpassError) -> None:
        self._answers = list(answers)
        self.deleted = False

    def get(self, _path: str) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, UnderpassError):
            raise answer
        return answer

    def delete(self, _path: str) -> None:
        self.deleted = True


WAITING = {"status": "waiting"}
ACCEPTED = {"status": "accepted", "accepted_by": "bob", "expires_at": "tonight"}


def wait(answers: Answers, *, told: bool = False) -> None:
    stopped = Stopped()
    if told:
        stopped.tell(signal.SIGINT, None)
    offer_command._wait(cast("Any", answers), "id", stopped, Output())


def test_it_waits_until_somebody_accepts(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer_command, "LOOK_EVERY", 0.0)
    away = Unavailable("No gateway.")
    wait(Answers(WAITING, away, away, WAITING, ACCEPTED))
    assert capfd.readouterr().err.splitlines() == [
        "No gateway.", "Accepted by bob, until tonight.",
    ]  # fmt: skip
    for status in ("expired", "revoked"):
        with pytest.raises(Gone) as gone:
            wait(Answers({"status": status}))
        assert gone.value.code == f"offer_{status}"
    with pytest.raises(NotFound):
        wait(Answers(NotFound("None.")))


def test_a_signal_after_somebody_accepted_takes_nothing_back() -> None:
    answers = Answers(ACCEPTED)
    wait(answers, told=True)
    assert not answers.deleted
    answers = Answers(WAITING)
    wait(answers, told=True)
    assert answers.deleted


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("13306", ("127.0.0.1", 13306)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_where_to_listen(text: str, place: tuple[str, int]) -> None:
    assert accept_command._place(text) == place


@pytest.mark.parametrize("text", ["", "x", "70000", "::1:80", "1:2:3", "[]:80", "80:"])
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(InvalidRequest):
        accept_command._place(text)


def test_wrong_codes_and_wrong_usage(signed_in: Call, machine: str) -> None:
    wrong = signed_in("accept", DEAD_CODE)
    assert wrong.status == exits.NOT_FOUND
    assert len(wrong.err.strip().splitlines()) == 1
    for arguments in (
        ("accept", DEAD_CODE, "--listen", "x"),
        ("accept", DEAD_CODE, "--for", "soon"),
        ("accept",),
        ("offer", "tcp", "ssh", "--on", machine),
        ("offer", "tcp", "22", "--on", machine, "--for", "25h"),
        ("offer", "udp", "53"),
    ):
        assert signed_in(*arguments).status == exits.USAGE, arguments


def test_an_id_is_no_code_and_an_ended_offer_is_told(signed_in: Call, machine: str) -> None:
    made = signed_in("--json", "offer", "tcp", "22", "--on", machine, "--detach").json
    early = signed_in("accept", made["id"])
    assert (early.status, "no code" in early.err) == (exits.USAGE, True)
    assert signed_in("offers", "revoke", made["id"]).status == 0
    late = signed_in("accept", made["id"])
    assert (late.status, "revoked" in late.err) == (exits.NOT_FOUND, True)


async def test_it_hears_of_the_end_and_outlives_a_gateway_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept_command, "LOOK_EVERY", 0.0)
    answers = Answers(ACCEPTED, Unavailable("No gateway."), ACCEPTED, {"status": "expired"})
    monkeypatch.setattr(accept_command, "_read", lambda _connection, _id: answers.get(""))
    error = await accept_command._end_of(Connection("http://localhost"), "id")
    assert error.code == "offer_expired"
