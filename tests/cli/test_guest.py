"""``offer`` and ``accept`` without a login, against a real gateway that allows guests or not."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socketserver
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from underpass.cli import exits, guest_host
from underpass.cli.guest import as_somebody
from underpass.cli.options import Connection
from underpass.cli.output import Output
from underpass.control.guest import GuestMode
from underpass.core.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnderpassError,
)
from underpass.links.link import Opening

from .conftest import Result, RunningGateway

Call = Callable[..., Result]
DEAD_CODE = "0000-0000-0000"


@pytest.fixture
def guests(gateway: RunningGateway) -> Iterator[Callable[[GuestMode], None]]:
    """Says what guests may."""
    service = gateway._gateway.services.guests

    def allow(mode: GuestMode) -> None:
        service.mode = mode

    yield allow
    service.mode = "off"


def test_a_login_is_used_where_there_is_one() -> None:
    connection = Connection("http://localhost:1", "upt_x")
    assert as_somebody(connection) is connection


@pytest.mark.parametrize("command", [("offer", "tcp", "3306"), ("accept", DEAD_CODE)])
def test_where_there_are_no_guests(
    gateway: RunningGateway, underpass: Call, command: tuple[str, ...]
) -> None:
    result = underpass(*command, "--server", gateway.url)
    assert result.status == exits.REFUSED
    (line,) = result.err.strip().splitlines()
    assert "not signed in" in line
    assert "allows no guests" in line
    assert f"underpass login {gateway.url}" in line


def test_where_guests_only_borrow(
    gateway: RunningGateway, underpass: Call, guests: Callable[[GuestMode], None]
) -> None:
    guests("accept")
    refused = underpass("offer", "--server", gateway.url, "tcp", "3306")
    assert refused.status == exits.REFUSED
    assert "use codes, not make them" in refused.err
    wrong = underpass("accept", DEAD_CODE, "--server", gateway.url)
    assert (wrong.status, "does not work" in wrong.err) == (exits.NOT_FOUND, True)


@pytest.mark.parametrize("flags", [("--on", "box"), ("--detach",)])
def test_what_takes_a_login(
    gateway: RunningGateway,
    underpass: Call,
    guests: Callable[[GuestMode], None],
    flags: tuple[str, ...],
) -> None:
    guests("all")
    result = underpass("--server", gateway.url, "offer", "unix", "/run/x", *flags)
    assert (result.status, f"{flags[0]} needs a login" in result.err) == (exits.USAGE, True)


class Answer:
    """An ``Api`` that answers the same to everything."""

    def __init__(self, error: UnderpassError) -> None:
        self.error = error

    def __call__(self, _connection: Connection) -> Answer:
        return self

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def post(self, _path: str) -> Any:
        raise self.error


class NotAllowed(UnderpassError):
    status = 405


@pytest.mark.parametrize("error", [NotFound("?"), NotAllowed("?"), Forbidden("?")])
def test_a_gateway_that_knows_no_guests(
    monkeypatch: pytest.MonkeyPatch, error: UnderpassError
) -> None:
    monkeypatch.setattr("underpass.cli.api.Api", Answer(error))
    with pytest.raises(Unauthenticated, match="allows no guests"):
        as_somebody(Connection("http://localhost:1"))


@pytest.mark.parametrize("error", [Unavailable("?"), TooManyRequests("?")])
def test_what_else_goes_wrong_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, error: UnderpassError
) -> None:
    monkeypatch.setattr("underpass.cli.api.Api", Answer(error))
    with pytest.raises(type(error)):
        as_somebody(Connection("http://localhost:1"))


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.OK)]
)
def test_the_command_carries_what_it_lends_until_a_signal(
    gateway: RunningGateway,
    underpass: Call,
    guests: Callable[[GuestMode], None],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
) -> None:
    guests("all")
    services = gateway._gateway.services
    made: list[Any] = []
    waiting = guest_host._ended

    async def signalled(*arguments: Any) -> UnderpassError:
        """The command has said all it says and waits: nothing else catches the signal before."""
        made.extend(services.offers._guests_offers.listed(of=None, running_at=time.time()))
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        return await waiting(*arguments)

    monkeypatch.setattr(guest_host, "_ended", signalled)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        port = server.server_address[1]
        result = underpass("offer", "--server", gateway.url, "tcp", str(port))
    assert result.status == status, result.err
    (line,) = result.out.splitlines()
    assert re.fullmatch(rf"underpass --server {re.escape(gateway.url)} accept \S+", line)
    assert f"tcp:127.0.0.1:{port} of this machine" in result.err
    assert result.err.splitlines()[-1] == "Revoked."
    kept = services.offers._guests_offers.get(made[0].id)
    assert kept is not None
    assert kept.status(time.time()) == "revoked"


class Asked(Opening):
    """An opening that notes what becomes of it."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.meta = {}


async def test_nothing_but_what_is_lent_is_opened() -> None:
    opened: list[str] = []

    async def opener(opening: Opening) -> None:
        opened.append(opening.target)

    lent = guest_host._Lent(guest_host.Resumables())
    lent._opener = opener
    with pytest.raises(Forbidden):
        await lent(Asked("tcp:127.0.0.1:80"))
    lent.target = "tcp:127.0.0.1:80"
    await lent(Asked("tcp:127.0.0.1:80"))
    for target in ("tcp:127.0.0.1:81", "unix:/run/x", "exec", ""):
        with pytest.raises(Forbidden):
            await lent(Asked(target))
    assert opened == ["tcp:127.0.0.1:80"]


async def test_not_even_a_guest_lends_a_clouds_credentials() -> None:
    lent = guest_host._Lent(guest_host.Resumables())
    lent.target = "tcp:169.254.169.254:80"
    with pytest.raises(Forbidden):
        await lent(Asked("tcp:169.254.169.254:80"))


class Looks:
    """What the gateway says of the offer, look by look."""

    def __init__(self, *answers: dict[str, Any] | UnderpassError) -> None:
        self._answers = list(answers)

    def __call__(self, _connection: Connection, _id: str) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, UnderpassError):
            raise answer
        return answer


async def test_it_says_who_accepted_and_hears_of_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guest_host, "LOOK_EVERY", 0.0)
    accepted = {"status": "accepted", "accepted_by": "bob", "expires_at": "tonight"}
    connection = Connection("http://localhost:1")

    async def end(*answers: dict[str, Any] | UnderpassError) -> UnderpassError:
        monkeypatch.setattr(guest_host, "_read", Looks(*answers))
        return await guest_host._ended(connection, "id", Output())

    error = await end({"status": "waiting"}, Unavailable("?"), accepted, accepted, {
        "status": "expired",
    })  # fmt: skip
    assert error.code == "offer_expired"
    assert capfd.readouterr().err.splitlines() == ["Accepted by bob, until tonight."]
    assert (await end(NotFound("?"))).code == "offer_forgotten"

    class Keeper:
        async def failed(self) -> UnderpassError:
            return InvalidRequest("refused")

    monkeypatch.setattr(guest_host, "LOOK_EVERY", 60.0)
    async with asyncio.timeout(5):
        found = await guest_host._end(connection, "id", Keeper(), Output())  # type: ignore[arg-type]
    assert found.message == "refused"


def test_revoking_at_a_gateway_that_is_away_is_no_failure() -> None:
    guest_host._revoke(Connection("http://127.0.0.1:1", "upg_x"), "id", Output())
