"""Arguments of mappings in the forms people type them, and the request they make together."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any, Literal

import typer

from underpass.cli.arguments import complete_machine, duration

__all__ = [
    "Allow", "At", "Balance", "Bandwidth", "Bind", "Burst", "Carrier", "Compression", "Connections",
    "Deny", "E2e", "Group", "Health", "Idle", "Machine", "Name", "PasswordStdin", "Port",
    "PortRange", "ProxyProtocol", "Username", "amount", "asked", "given_password", "health_of",
    "source_of", "target_of",
]  # fmt: skip

_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)([kmg]i?)?b?")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

Machine = Annotated[
    str | None,
    typer.Option("--on", metavar="MACHINE", help="Where the target is.",
                 autocompletion=complete_machine),
]  # fmt: skip
At = Annotated[
    str | None,
    typer.Option("--at", metavar="MACHINE", help="This machine listens, not the gateway.",
                 autocompletion=complete_machine),
]  # fmt: skip
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="The gateway's port; default any.")
]
PortRange = Annotated[
    str | None, typer.Option(metavar="A-B", help="Ports; each leads to one as far on.")
]
Bind = Annotated[str | None, typer.Option(metavar="IP", help="The address to listen on.")]
Name = Annotated[str | None, typer.Option(help="What to call it.")]
Bandwidth = Annotated[
    str | None, typer.Option(metavar="N", help="Bytes a second each way: 500k, 2M, 1Mi; 0: any.")
]
Burst = Annotated[str | None, typer.Option(metavar="N", help="Bytes that may pass at once: 64k.")]
Connections = Annotated[
    int | None, typer.Option(min=0, help="Open at a time at most; 0: any number.")
]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", metavar="CIDR", help="Only these may connect.")
]
Deny = Annotated[
    list[str] | None, typer.Option("--deny", metavar="CIDR", help="These may not; wins.")
]
ProxyProtocol = Annotated[
    Literal["v1", "v2", "none"] | None,
    typer.Option(help="Tell the target the client's address so."),
]
Compression = Annotated[
    Literal["none", "zstd", "lz4", "gzip", "adaptive"] | None,
    typer.Option(help="Between gateway and machine."),
]
E2e = Annotated[
    bool | None,
    typer.Option("--e2e/--no-e2e", help="With --at: encrypt between the two machines."),
]
Carrier = Annotated[
    Literal["auto", "mux", "dedicated"] | None,
    typer.Option(help="Connections ride in the link's own, or on ones of their own."),
]
Idle = Annotated[
    str | None, typer.Option("--idle-timeout", metavar="TIME", help="End what is silent: 90, 5m.")
]
Username = Annotated[
    str | None, typer.Option("--username", "-u", help="socks: a login, its password made up.")
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="socks: read the password from standard input.")
]
Group = Annotated[str | None, typer.Option(help="Mappings of one group share a port.")]
Balance = Annotated[
    Literal["round_robin", "least_connections"] | None, typer.Option(help="How a group shares.")
]

Health = Annotated[
    str | None,
    typer.Option(
        metavar="CHECK",
        help="Try the target: tcp, http:/PATH; with ,interval=10s,fall=3,rise=2; none.",
    ),
]


def amount(text: str) -> int:
    """Bytes in ``500``, ``64k``, ``1.5M``, ``1Mi``.

    Raises:
        typer.BadParameter: it is no such number.
    """
    match = _AMOUNT.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of bytes; write 500k, 2M or 1Mi")
    return int(float(match[1]) * _FACTORS[match[2] or ""])


def target_of(protocol: str, text: str | None) -> dict[str, Any]:
    """``22``, ``HOST:22``, ``[::1]:22`` or a socket's path, as the fields of a request.

    Raises:
        typer.BadParameter: it is none, or not for *protocol*.
    """
    if protocol == "socks5":
        if text is not None:
            raise typer.BadParameter("a socks5 mapping has no target: every client names its own")
        return {}
    if protocol == "unix":
        if text is None or not text.startswith("/"):
            raise typer.BadParameter("the target of a unix mapping is the path of a socket")
        return {"target_path": text}
    host, colon, port = (text or "").rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise typer.BadParameter(f"{text or ''!r} is no target; write PORT or HOST:PORT")
    if colon and (not host or (":" in host and not host.startswith("["))):
        raise typer.BadParameter(f"{text!r} is no target; an IPv6 address goes into brackets")
    found: dict[str, Any] = {"target_port": int(port)}
    return found | {"target_host": host.strip("[]")} if host else found


def source_of(
    port: int | None, port_range: str | None, bind: str | None, at: str | None
) -> dict[str, Any]:
    """The ``source`` of a request; empty when nothing was said of it.

    Args:
        at: the id of the machine that listens.
    """
    given = {"port": port, "port_range": port_range, "bind": bind, "client_id": at}
    return {name: value for name, value in given.items() if value is not None}


def health_of(text: str | None) -> dict[str, Any]:
    """``tcp``, ``http:/ok`` or ``http:/ok,interval=5s,fall=2`` as the ``health`` of a request;
    ``none`` ends the tries, and nothing is nothing.

    Raises:
        typer.BadParameter: it is none of these.
    """
    if text is None:
        return {}
    if text == "none":
        return {"health": None}
    check, *more = text.split(",")
    kind, _, path = check.partition(":")
    found: dict[str, Any] = {"type": kind}
    if kind not in {"tcp", "http"} or (kind == "tcp" and path):
        raise typer.BadParameter(f"{text!r} is no check; write tcp or http:/PATH")
    if path:
        found["path"] = path
    for part in more:
        name, _, value = part.partition("=")
        if name == "interval":
            found[name] = duration(value)
        elif name in {"fall", "rise"} and value.isascii() and value.isdigit():
            found[name] = int(value)
        else:
            raise typer.BadParameter(f"{part!r} is none of interval=TIME, fall=N, rise=N")
    return {"health": found}


def asked(
    *,
    bandwidth: str | None = None,
    burst: str | None = None,
    connections: int | None = None,
    idle: str | None = None,
    options: dict[str, Any],
    **fields: Any,
) -> dict[str, Any]:
    """The request that flags make together; what was not given is not in it.

    ``0`` and ``none`` take a limit or option away.

    Raises:
        typer.BadParameter: a number or time is none.
    """
    limits = {
        "bandwidth": None if bandwidth is None else amount(bandwidth),
        "burst": None if burst is None else amount(burst),
        "connections": connections,
    }
    limits = {name: value or None for name, value in limits.items() if value is not None}
    options = {name: value for name, value in options.items() if value is not None}
    if options.get("proxy_protocol") == "none":
        options["proxy_protocol"] = None
    for name in ("allow_ips", "deny_ips"):
        if options.get(name) in (["any"], ["none"]):
            options[name] = []
    if idle is not None:
        options["idle_timeout"] = None if idle == "0" else duration(idle)
    found = {name: value for name, value in fields.items() if value is not None}
    return found | {
        name: value for name, value in (("limits", limits), ("options", options)) if value
    }


def given_password(from_stdin: bool) -> str:
    """The password on standard input, or a new one of 128 bits.

    Raises:
        typer.BadParameter: nothing came.
    """
    if not from_stdin:
        from underpass.core.ids import new_secret

        return new_secret(bits=128)
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise typer.BadParameter("no password on standard input")
    return password
