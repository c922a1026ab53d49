"""``underpass doctor``: checks the way to the gateway, step by step, and says what to do."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from underpass.cli import exits
from underpass.cli.credentials import Credentials
from underpass.cli.options import Connection, options_of
from underpass.cli.output import Output, size
from underpass.core.errors import UnderpassError

__all__ = ["Check", "app", "checks"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

MAX_SKEW = 120.0
"""Seconds a clock may be off before agents are refused (spec 1, "Enrolment")."""
MIN_FREE = 200 << 20
"""Bytes that should be free for state and recordings."""
TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """What one step found.

    Attributes:
        result: ``ok``, ``fail``, or ``skip`` when an earlier failure makes it moot, or when it is
            not to be had and nobody needs it.
        detail: what was found.
        hint: what to do about it.
    """

    name: str
    result: Literal["ok", "fail", "skip"]
    detail: str
    hint: str = ""


@app.command()
def doctor(
    ctx: typer.Context,
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="The state directory to look at.")
    ] = Path("~/.underpass"),
) -> None:
    """Check the way to the gateway, step by step; exits 1 when a check fails.

    \b
    Examples:
      underpass doctor
      underpass --server https://gw.example.org doctor
    """
    options = options_of(ctx)
    output = Output(options.json)
    found: list[Check] = []
    for check in checks(options.connection(), state.expanduser()):
        found.append(check)
        if not options.json:
            hint = f"\n        {check.hint}" if check.hint else ""
            print(f"{check.result:<5} {check.name}: {check.detail}{hint}", flush=True)
    output.value(
        [{"name": c.name, "result": c.result, "detail": c.detail, "hint": c.hint} for c in found]
    )
    raise typer.Exit(exits.FAILED if any(c.result == "fail" for c in found) else exits.OK)


def checks(connection: Connection, state: Path) -> Iterator[Check]:
    """Every check in order; what depends on a failed one is skipped, not guessed at."""
    name = _guarded("gateway name", lambda: _name(connection))
    yield name
    reached = yield from _after(name, "gateway port", lambda: _port(connection))
    if connection.server.startswith("https"):
        reached = yield from _after(reached, "certificate", lambda: _certificate(connection))
    reached = yield from _after(reached, "gateway", lambda: _ready(connection))
    yield from _after(reached, "clock", lambda: _clock(connection))
    token = yield from _after(reached, "login", lambda: _login(connection))
    tcp = yield from _after(token, "link over TCP", lambda: _link(connection, "tcp"))
    websocket = yield from _after(
        token, "link over WebSocket", lambda: _link(connection, "websocket")
    )
    quic = yield from _after(name, "QUIC over UDP", lambda: _quic(connection))
    yield from _after(token, "way chosen", lambda: _way(connection, tcp, websocket, quic))
    yield from _after(reached, "terminal WebSocket", lambda: _websocket(connection))
    yield _guarded("stored login", _stored_login)
    yield _guarded("state directory", lambda: _state(state))
    yield _guarded("disk", lambda: _disk(state))


def _after(before: Check, name: str, check: Callable[[], Check]) -> Iterator[Check]:
    """Run *check* unless *before* failed; yields the result and gives it back, too."""
    made = (
        _guarded(name, check)
        if before.result == "ok"
        else Check(name, "skip", f"not checked, because {before.name} failed")
    )
    yield made
    return made


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except UnderpassError as error:
        return Check(name, "fail", error.message, error.hint or "")
    except (OSError, TimeoutError) as error:
        return Check(name, "fail", str(error) or type(error).__name__)


def _name(connection: Connection) -> Check:
    from underpass.links.dial import GatewayAddress

    address = GatewayAddress.parse(connection.server)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return Check(
            "gateway name", "fail", f"{address.host} has no address: {error.strerror}",
            "Check the spelling, or the name server of this machine.",
        )  # fmt: skip
    addresses = sorted({str(entry[4][0]) for entry in found})
    return Check("gateway name", "ok", f"{address.host} is {', '.join(addresses)}")


def _port(connection: Connection) -> Check:
    from underpass.links.dial import GatewayAddress

    address = GatewayAddress.parse(connection.server)
    started = time.perf_counter()
    try:
        socket.create_connection((address.host, address.port), TIMEOUT).close()
    except OSError as error:
        return Check(
            "gateway port", "fail", f"{address.authority}: {error.strerror or error}",
            "Is the gateway running (underpass serve)? Does a firewall drop the port?",
        )  # fmt: skip
    spent = (time.perf_counter() - started) * 1000
    return Check("gateway port", "ok", f"{address.authority} answers in {spent:.1f} ms")


def _certificate(connection: Connection) -> Check:
    from underpass.links.dial import GatewayAddress
    from underpass.links.trust import client_context, fingerprint_of

    address = GatewayAddress.parse(connection.server)
    context = client_context(connection.fingerprint)
    try:
        with (
            socket.create_connection((address.host, address.port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secured,
        ):
            der = secured.getpeercert(binary_form=True) or b""
    except ssl.SSLError as error:
        return Check(
            "certificate", "fail", str(error),
            "For a self-made certificate give --fingerprint (the gateway prints it at its start);"
            " for your own authority set SSL_CERT_FILE.",
        )  # fmt: skip
    how = "pinned" if connection.fingerprint else "believed"
    return Check("certificate", "ok", f"{how}, {fingerprint_of(der)}")


def _ready(connection: Connection) -> Check:
    from underpass.cli.api import Api

    with Api(connection, timeout=TIMEOUT) as api:
        api.get("/ready")
    return Check("gateway", "ok", f"{connection.server} is ready")


def _clock(connection: Connection) -> Check:
    import httpx

    from underpass.cli.api import is_local, reaching
    from underpass.links.trust import client_context

    verify = (
        client_context(connection.fingerprint) if connection.server.startswith("https") else True
    )
    with reaching(connection.server):
        before = time.time()
        answer = httpx.get(
            f"{connection.server}/ready", verify=verify, timeout=TIMEOUT,
            trust_env=not is_local(connection.server),
        )  # fmt: skip
        after = time.time()
    shown = answer.headers.get("Date")
    if not shown:
        return Check("clock", "skip", "the gateway does not say its time")
    # The header counts whole seconds: its middle is our best guess.
    skew = parsedate_to_datetime(shown).timestamp() + 0.5 - (before + after) / 2
    text = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the gateway's"
    if abs(skew) > MAX_SKEW:
        return Check("clock", "fail", text, "Set this machine's clock, e.g. with NTP.")
    return Check("clock", "ok", text if abs(skew) >= 2 else "agrees with the gateway's")


def _login(connection: Connection) -> Check:
    from underpass.cli.api import Api

    _ = connection.required_token
    with Api(connection, timeout=TIMEOUT) as api:
        answer = api.get("/api/v1/auth/me")
    user = answer["user"]
    return Check("login", "ok", f"{user['username']} ({user['role']})")


def _link(connection: Connection, transport: Literal["tcp", "websocket"]) -> Check:
    from underpass.cli.links import client_link
    from underpass.wire.handshake import Established

    name = f"link over {'TCP' if transport == 'tcp' else 'WebSocket'}"
    found: list[Established] = []

    async def handshake() -> float:
        started = time.perf_counter()
        async with client_link(connection, transport=transport, timeout=TIMEOUT, established=found):
            return time.perf_counter() - started

    try:
        spent = asyncio.run(handshake())
    except UnderpassError as error:
        other = "WebSocket" if transport == "tcp" else "TCP"
        return Check(
            name, "fail", error.message,
            error.hint or f"A proxy in between may be the reason; the other way ({other}) may do.",
        )  # fmt: skip
    pinned = "its key is the pinned one" if connection.gateway_key else "its key is not pinned"
    return Check(name, "ok", f"{spent * 1000:.0f} ms, {pinned}")


def _quic(connection: Connection) -> Check:
    """A QUIC handshake; that UDP does not get through is no failure, since TCP is tried first."""
    from underpass.links.dial import GatewayAddress
    from underpass.links.quic.probe import probe_quic

    address = GatewayAddress.parse(connection.server)
    try:
        found = asyncio.run(
            probe_quic(
                address.host, address.port, fingerprint=connection.fingerprint,
                verify=address.tls, timeout=TIMEOUT,
            )
        )  # fmt: skip
    except (UnderpassError, OSError, TimeoutError) as error:
        reason = str(error) or f"no answer within {TIMEOUT:g} s"
        return Check(
            "QUIC over UDP",
            "fail" if connection.transport == "quic" else "skip",
            f"UDP port {address.port} of {address.host}: {reason}",
            "A firewall may drop UDP, or the gateway runs with --no-quic or behind an HTTP proxy.",
        )
    return Check(
        "QUIC over UDP", "ok",
        f"version {found.version}, round trip {found.rtt * 1000:.1f} ms,"
        f" handshake {found.took * 1000:.0f} ms",
    )  # fmt: skip


def _way(connection: Connection, tcp: Check, websocket: Check, quic: Check) -> Check:
    """Which way a link takes now, and why."""
    from underpass.cli.links import client_link

    async def taken() -> str:
        async with client_link(connection, timeout=TIMEOUT) as link:
            return link.carrier

    carrier = asyncio.run(taken())
    return Check(
        "way chosen", "ok", f"{carrier}: {_why(connection, carrier, tcp, websocket, quic)}"
    )


def _why(connection: Connection, carrier: str, tcp: Check, websocket: Check, quic: Check) -> str:
    if connection.transport != "auto":
        return f"asked for by --transport {connection.transport}"
    beside = "QUIC would get through, too" if quic.result == "ok" else "QUIC does not get through"
    if carrier in ("tcp", "tls"):
        return f"it gets through and costs least; {beside}, and is for paths that lose packets"
    first = f"TCP does not get through ({tcp.detail})" if tcp.result == "fail" else "see above"
    if carrier == "websocket":
        return f"{first}; {beside}"
    second = " nor does a WebSocket" if websocket.result == "fail" else ""
    return f"{first},{second}" if second else first


def _websocket(connection: Connection) -> Check:
    """A terminal's socket opens; a wrong token is then refused by the gateway itself."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake
    from websockets.sync.client import connect

    from underpass.cli.api import is_local
    from underpass.links.trust import client_context

    server = connection.server
    tls = client_context(connection.fingerprint) if server.startswith("https") else None
    url = f"ws{server.removeprefix('http')}/api/v1/tty/ws"
    try:
        with connect(
            url,
            ssl=tls,
            open_timeout=TIMEOUT,
            close_timeout=1,
            proxy=None if is_local(server) else True,
        ) as websocket:
            websocket.send('{"type":"auth","token":"doctor"}')
            try:
                while True:
                    websocket.recv(timeout=TIMEOUT)
            except ConnectionClosed:
                pass  # refused as it must be: the messages got through both ways
    except (InvalidHandshake, ssl.SSLError) as error:
        return Check(
            "terminal WebSocket", "fail", str(error),
            "A proxy in between does not pass WebSockets on; see docs/how-to/behind-a-proxy.md.",
        )  # fmt: skip
    return Check("terminal WebSocket", "ok", "messages pass both ways")


def _stored_login() -> Check:
    credentials = Credentials.load()
    path = credentials.path
    if not path.exists():
        return Check("stored login", "ok", "none (underpass login makes one)")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Check(
            "stored login", "fail", f"others can read {path} ({mode:o})", f"Run: chmod 600 {path}"
        )
    return Check("stored login", "ok", f"{len(credentials.logins)} in {path}")


def _state(state: Path) -> Check:
    if not state.exists():
        return Check("state directory", "ok", f"{state} is not there yet")
    mode = stat.S_IMODE(state.stat().st_mode)
    if mode & 0o077:
        return Check(
            "state directory", "fail", f"others can read {state} ({mode:o})",
            f"Run: chmod 700 {state}",
        )  # fmt: skip
    return Check("state directory", "ok", f"{state} is private")


def _disk(state: Path) -> Check:
    place = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < MIN_FREE:
        return Check(
            "disk", "fail", f"{size(free)} free at {place}", "Recordings need room; make some."
        )
    return Check("disk", "ok", f"{size(free)} free at {place}")
