"""What a person may ask of a mapping: every field checked, every error names its field (spec 7)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, cast

from underpass.control.mapping import Balancing, Health, Limits, Options
from underpass.core.addresses import network_of
from underpass.core.errors import InvalidRequest

__all__ = [
    "bad",
    "changed_balancing",
    "changed_limits",
    "changed_options",
    "checked_number",
    "checked_text",
    "fields_of",
    "one_of",
]

MAX_NETWORKS: Final = 1000
MAX_BANDWIDTH: Final = 10**12
MAX_CONNECTIONS: Final = 100_000
MAX_IDLE: Final = 7 * 86400.0

_HTTP_OPTIONS: Final = frozenset({
    "sign_in", "host_header", "request_headers", "response_headers", "response_timeout",
    "webhook", "strip_prefix", "tls", "inspect",
})  # fmt: skip
"""Options of spec 7 that are for HTTP mappings only."""

Protocols = frozenset[str]
_STREAMS: Final[Protocols] = frozenset({"tcp", "unix"})
_ONLY_FOR: Final[Mapping[str, Protocols]] = {
    "accept_proxy_protocol": frozenset({"tcp", "unix", "socks5"}),
    "username": frozenset({"socks5"}),
    "password": frozenset({"socks5"}),
    "e2e": _STREAMS,
}


def bad(
    field: str, text: str, *, code: str | None = None, hint: str | None = None
) -> InvalidRequest:
    """The error for *field*; *text* goes on after its name: ``limits.burst: must be …``."""
    return InvalidRequest(f"{field}: {text}.", code=code, hint=hint, details={"field": field})


def fields_of(field: str, value: object, known: frozenset[str]) -> dict[str, Any]:
    """*value* as an object with only *known* fields.

    Raises:
        InvalidRequest: it is something else, or has a field nobody knows (a misspelt
            ``allow_ips`` must not let everybody in).
    """
    if not isinstance(value, Mapping):
        raise bad(field, "must be an object")
    given = cast("Mapping[Any, Any]", value)
    for name in given:
        if name not in known:
            text = str(name)[:40]
            raise bad(
                f"{field}.{text}", "is not known here", hint=f"Known: {', '.join(sorted(known))}."
            )
    return dict(given)


def checked_number(field: str, value: object, low: int, high: int) -> int:
    """*value* as a whole number.

    Raises:
        InvalidRequest: it is none, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad(field, f"must be a whole number from {low} to {high}")
    return value


def checked_text(field: str, value: object, most: int) -> str:
    """*value* as a printable text of 1 to *most* bytes.

    Raises:
        InvalidRequest: it is none.
    """
    if (
        not isinstance(value, str)
        or not value.isprintable()
        or not 1 <= len(value.encode(errors="replace")) <= most
    ):
        raise bad(field, f"must be a printable text of 1 to {most} bytes")
    return value


def one_of(field: str, value: object, *known: str) -> Any:
    """*value*, which is one of *known*.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, str) or value not in known:
        raise bad(field, f"must be one of {', '.join(known)}")
    return value


def changed_limits(limits: Limits, wanted: object) -> Limits:
    """*limits* with what *wanted* names; null takes a limit away.

    Raises:
        InvalidRequest: a value is malformed, or a burst has no bandwidth.
    """
    given = fields_of("limits", wanted, frozenset({"bandwidth", "connections", "burst"}))
    most = {"bandwidth": MAX_BANDWIDTH, "connections": MAX_CONNECTIONS, "burst": MAX_BANDWIDTH}
    for name, value in given.items():
        if value is not None:
            checked_number(f"limits.{name}", value, 1, most[name])
    limits = replace(limits, **given)
    if limits.burst is not None and limits.bandwidth is None:
        raise bad("limits.burst", "needs a limits.bandwidth")
    return limits


def changed_options(options: Options, wanted: object, protocol: str) -> Options:
    """*options* with what *wanted* names; null brings a default back.

    ``basic_auth {username, password}`` is another way to give a SOCKS5 login. A user name without
    a password keeps the password there is.

    Raises:
        InvalidRequest: a value is malformed, unknown, or not for *protocol*.
    """
    known = frozenset(_CHECKS) | _HTTP_OPTIONS | {"basic_auth"}
    given = fields_of("options", wanted, known)
    for name in _HTTP_OPTIONS & given.keys():
        raise bad(
            f"options.{name}",
            "is for HTTP mappings, which this version does not offer",
            code="option_not_offered",
        )
    if "basic_auth" in given:
        given |= _login(given.pop("basic_auth"), protocol)
    found: dict[str, Any] = {}
    defaults = Options()
    for name, value in given.items():
        default = getattr(defaults, name)
        if value is None:
            found[name] = default
            continue
        found[name] = checked = _CHECKS[name](f"options.{name}", value)
        only_for = _ONLY_FOR.get(name)
        if checked != default and only_for is not None and protocol not in only_for:
            raise _not_for(name, only_for)
    options = replace(options, **found)
    if options.username is None:
        options = replace(options, password=None)
    _check_together(options, protocol)
    return options


def changed_balancing(balancing: Balancing, wanted: Mapping[str, Any]) -> Balancing:
    """*balancing* with the ``balance`` and ``health`` of *wanted*.

    Raises:
        InvalidRequest: a value is malformed or unknown.
    """
    if "balance" in wanted:
        value = "round_robin" if wanted["balance"] is None else wanted["balance"]
        value = one_of("balance", value, "round_robin", "least_connections")
        balancing = replace(balancing, balance=value)
    if "health" in wanted:
        health = None if wanted["health"] is None else _health(wanted["health"])
        balancing = replace(balancing, health=health)
    return balancing


def _health(value: object) -> Health:
    known = frozenset(field.name for field in fields(Health))
    given = {k: v for k, v in fields_of("health", value, known).items() if v is not None}
    if "type" in given:
        one_of("health.type", given["type"], "tcp", "http")
    if "path" in given and not checked_text("health.path", given["path"], 1024).startswith("/"):
        raise bad("health.path", "must begin with /")
    if "interval" in given:
        given["interval"] = _seconds("health.interval", given["interval"], 1, 3600)
    for name in {"fall", "rise"} & given.keys():
        checked_number(f"health.{name}", given[name], 1, 100)
    return Health(**given)


def _login(value: object, protocol: str) -> dict[str, Any]:
    if protocol != "socks5":
        raise bad("options.basic_auth", "is for socks5 and HTTP mappings")
    if value is None:
        return {"username": None, "password": None}
    return fields_of("options.basic_auth", value, frozenset({"username", "password"}))


def _check_together(options: Options, protocol: str) -> None:
    if protocol == "socks5" and options.username is not None and options.password is None:
        raise bad("options.password", "is missing; a username needs one")
    if options.proxy_protocol is None:
        return
    if protocol == "socks5":
        raise _not_for("proxy_protocol", _STREAMS | {"udp"})
    if protocol == "udp" and options.proxy_protocol == "v1":
        raise bad("options.proxy_protocol", "must be v2 for udp, v1 is for TCP only")


def _not_for(name: str, only_for: Protocols) -> InvalidRequest:
    return bad(f"options.{name}", f"is only for {', '.join(sorted(only_for))} mappings")


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise bad(field, "must be true or false")
    return value


def _seconds(field: str, value: object, low: float, high: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(seconds := float(cast("float", value))):
        raise bad(field, "must be a number of seconds")
    if not low <= seconds <= high:
        raise bad(field, f"must be {low:g} to {high:g} seconds")
    return seconds


def _networks(field: str, value: object) -> tuple[str, ...]:
    given = cast("list[object]", value) if isinstance(value, list | tuple) else None
    if given is None or len(given) > MAX_NETWORKS:
        raise bad(field, f"must be a list of at most {MAX_NETWORKS} networks")
    found: list[str] = []
    for number, text in enumerate(given):
        if not isinstance(text, str) or len(text) > 64 or not _NETWORK.fullmatch(text):
            raise bad(f"{field}[{number}]", "must be a network such as 192.0.2.0/24")
        try:
            found.append(str(network_of(text)))
        except ValueError:
            raise bad(f"{field}[{number}]", "must be a network such as 192.0.2.0/24") from None
    return tuple(dict.fromkeys(found))


_NETWORK: Final = re.compile(r"[0-9a-fA-F.:]+(/[0-9.]+)?")


def _choice(*known: str) -> Callable[[str, object], Any]:
    return lambda field, value: one_of(field, value, *known)


def _login_text(field: str, value: object) -> str:
    return checked_text(field, value, 255)  # RFC 1929: one byte says how long


_CHECKS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "proxy_protocol": _choice("v1", "v2"),
    "accept_proxy_protocol": _flag,
    "allow_ips": _networks,
    "deny_ips": _networks,
    "compression": _choice("none", "zstd", "lz4", "gzip", "adaptive"),
    "e2e": _flag,
    "carrier": _choice("auto", "mux", "dedicated"),
    "username": _login_text,
    "password": _login_text,
    "idle_timeout": lambda field, value: _seconds(field, value, 1, MAX_IDLE),
}
