"""From what a person asks for to the mapping they get: one function for making and changing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping as Fields
from dataclasses import replace
from typing import Any, Final, cast

from underpass.control.labels import checked_name
from underpass.control.mapping import Mapping, Source
from underpass.control.mapping_options import (
    bad,
    changed_balancing,
    changed_limits,
    changed_options,
    checked_number,
    checked_text,
    fields_of,
    one_of,
)
from underpass.core.errors import InvalidRequest
from underpass.core.ids import is_id

__all__ = ["changed_mapping", "check_login", "new_mapping"]

PROTOCOLS: Final = ("tcp", "udp", "socks5", "unix")
LATER: Final = ("http", "https", "websocket")
"""Protocols of spec 4 that this version does not offer."""
MAX_RANGE: Final = 100
"""Ports of one mapping at most."""
MAX_SOCKET_PATH: Final = 107
"""Bytes a Unix socket's path can have (``sockaddr_un``)."""

_WRITABLE: Final = frozenset({
    "name", "protocol", "source", "target_client_id", "target_host", "target_port", "target_path",
    "status", "limits", "options", "group", "balance", "health",
})  # fmt: skip
_READ_ONLY: Final = frozenset({
    "id", "user_id", "username", "error", "public_port", "public_url", "version", "stats",
    "created_at", "updated_at", "health_status", "declared_by",
})  # fmt: skip
"""Fields of the answer that may come back with a ``PUT``; they change nothing."""
_NEEDED: Final[Fields[str, tuple[str, ...]]] = {
    "tcp": ("target_port",),
    "udp": ("target_port",),
    "socks5": (),
    "unix": ("target_path",),
}
_GROUPING: Final = frozenset({"group", "balance", "health"})
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?")
_RANGE: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def new_mapping(wanted: Fields[str, Any], *, id: str, user_id: str, now: float) -> Mapping:  # noqa: A002
    """The mapping *wanted* describes; its port may still be 0 (any).

    Args:
        id, user_id: its id and owner, never from the request.
        now: Unix seconds.

    Raises:
        InvalidRequest: a field is missing, malformed or unknown; the message names it. Code
            ``protocol_not_offered`` for a protocol of a later version.
    """
    protocol = _protocol(wanted.get("protocol"))
    start = Mapping(
        id=id,
        name=f"{protocol}-{id[:8]}",
        user_id=user_id,
        protocol=protocol,
        source=Source(),
        target_agent_id="",
        target_host="127.0.0.1" if protocol in {"tcp", "udp"} else None,
        created_at=now,
        updated_at=now,
    )
    for name in ("target_client_id", *_NEEDED[protocol]):
        if wanted.get(name) is None:
            raise bad(name, "is missing")
    return changed_mapping(start, wanted)


def changed_mapping(mapping: Mapping, wanted: Fields[str, Any]) -> Mapping:
    """*mapping* with what *wanted* names; everything else stays.

    Raises:
        InvalidRequest: see :func:`new_mapping`; the protocol can't be changed.
    """
    given = _hoisted(wanted)
    for name in given:
        if name not in _WRITABLE | _READ_ONLY:
            known = ", ".join(sorted(_WRITABLE))
            raise bad(str(name)[:40], "is not known here", hint=f"Known: {known}.")
    if "protocol" in given and _protocol(given["protocol"]) != mapping.protocol:
        raise bad("protocol", "can't be changed", hint="Make a new mapping.")
    changes: dict[str, Any] = {}
    if given.get("name") is not None:
        changes["name"] = _name("name", given["name"])
    if given.get("status") is not None and given["status"] != mapping.status:
        changes["status"] = one_of("status", given["status"], "active", "disabled")
        changes["error"] = None
    if "source" in given:
        changes["source"] = _source(given["source"], mapping.source)
    if given.get("target_client_id") is not None:
        changes["target_agent_id"] = _agent_id("target_client_id", given["target_client_id"])
    changes |= _target(mapping.protocol, given)
    if given.get("limits") is not None:
        changes["limits"] = changed_limits(mapping.limits, given["limits"])
    if given.get("options") is not None:
        changes["options"] = changed_options(mapping.options, given["options"], mapping.protocol)
    if "group" in given:
        group = given["group"]
        changes["group"] = None if group is None else _name("group", group)
    changes["balancing"] = changed_balancing(mapping.balancing, given)
    changed = replace(mapping, **changes)
    _check_together(changed)
    return changed


def check_login(mapping: Mapping, default_bind: str) -> Mapping:
    """SOCKS5 without a login only where nobody but this machine comes in (spec 4).

    Args:
        default_bind: the address the gateway listens on.

    Returns:
        the mapping, its address pinned when it needs no login: it must not become public when
        the gateway's own address changes.

    Raises:
        InvalidRequest: it would be open to others (``login_needed``).
    """
    if mapping.protocol != "socks5" or mapping.options.username is not None:
        return mapping
    source = mapping.source
    bind = source.bind or ("127.0.0.1" if source.kind == "agent" else default_bind)
    try:
        loopback = ipaddress.ip_address(bind).is_loopback
    except ValueError:
        loopback = bind == "localhost"
    if not loopback:
        raise bad(
            "options.username",
            "SOCKS5 that others can reach needs a username and a password",
            code="login_needed",
            hint="Give both, or bind it to this machine with source.bind 127.0.0.1.",
        )
    return replace(mapping, source=replace(source, bind=bind))


def _protocol(value: object) -> Any:
    if value is None:
        raise bad("protocol", "is missing", hint=f"One of {', '.join(PROTOCOLS)}.")
    if value in LATER:
        raise bad(
            "protocol",
            f"{value} is not offered by this version",
            code="protocol_not_offered",
            hint=f"Use one of {', '.join(PROTOCOLS)}.",
        )
    return one_of("protocol", value, *PROTOCOLS)


def _hoisted(wanted: Fields[str, Any]) -> dict[str, Any]:
    """Spec 7 names ``group``, ``balance`` and ``health`` beside the options; both places do."""
    given = dict(wanted)
    options = given.get("options")
    if isinstance(options, Fields):
        inner = dict(cast("Fields[str, Any]", options))
        for name in _GROUPING & inner.keys():
            given.setdefault(name, inner.pop(name))
            inner.pop(name, None)
        given["options"] = inner
    return given


def _name(field: str, value: object) -> str:
    try:
        return checked_name(value)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{field}: {error.message}", code=error.code, details={"field": field}
        ) from None


def _agent_id(field: str, value: object) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise bad(field, "must be a machine's id", hint="See: underpass machines")
    return value


def _source(value: object, current: Source) -> Source:
    if value is None:
        return Source()
    given = cast("Fields[str, Any]", value) if isinstance(value, Fields) else dict[str, Any]()
    if {"host", "path"} & given.keys():
        raise bad(
            "source",
            "host names and paths are for HTTP mappings, which this version does not offer",
            code="source_not_offered",
        )
    given = fields_of(
        "source", cast("object", value), frozenset({"port", "port_range", "client_id", "bind"})
    )
    agent_id = given.get("client_id")
    if agent_id is not None:
        agent_id = _agent_id("source.client_id", agent_id)
    bind = None if given.get("bind") is None else _bind(given["bind"])
    kind = "agent" if agent_id is not None else "port"
    if given.get("port_range") is not None:
        if given.get("port") is not None:
            raise bad("source.port", "and source.port_range exclude each other")
        first, last = _range(given["port_range"])
        return Source(kind, first, (first, last), agent_id, bind)
    port = checked_number("source.port", given.get("port", 0) or 0, 0, 65535)
    if port == 0 and current.place == Source(kind, agent_id=agent_id).place:
        # Any port will do, so the one it has does.
        port = 0 if current.port_range is not None else current.port
    return Source(kind, port, None, agent_id, bind)


def _range(value: object) -> tuple[int, int]:
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise bad("source.port_range", "must be A-B with 1 ≤ A ≤ B ≤ 65535")
    if last - first >= MAX_RANGE:
        raise bad("source.port_range", f"may hold at most {MAX_RANGE} ports")
    return first, last


def _bind(value: object) -> str:
    try:
        return str(ipaddress.ip_address(checked_text("source.bind", value, 64)))
    except ValueError:
        raise bad("source.bind", "must be an IP address to listen on") from None


def _target(protocol: str, given: Fields[str, Any]) -> dict[str, Any]:
    address = ("target_host", "target_port")
    allowed = {"tcp": address, "udp": address, "unix": ("target_path",), "socks5": ()}[protocol]
    found: dict[str, Any] = {}
    for name in ("target_host", "target_port", "target_path"):
        value = given.get(name)
        if name not in given or (value is None and name != "target_host"):
            continue
        if value is None:
            found[name] = "127.0.0.1" if protocol in {"tcp", "udp"} else None
        elif name not in allowed:
            raise bad(name, f"is not for {protocol} mappings")
        elif name == "target_port":
            found[name] = checked_number(name, value, 1, 65535)
        else:
            found[name] = _host(value) if name == "target_host" else _path(value)
    return found


def _host(value: object) -> str:
    text = checked_text("target_host", value, 253)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        labels = text.removesuffix(".").split(".")
        numeric = labels[-1].isdigit()  # would be an address, and is none
        if not numeric and all(_HOST.fullmatch(label) for label in labels):
            return text.lower()
    raise bad("target_host", "must be an IP address or a host name")


def _path(value: object) -> str:
    text = checked_text("target_path", value, MAX_SOCKET_PATH)
    if not text.startswith("/"):
        raise bad("target_path", "must be the absolute path of a socket")
    return text


def _check_together(mapping: Mapping) -> None:
    source = mapping.source
    if source.port_range is not None and mapping.protocol in {"tcp", "udp"}:
        last = (mapping.target_port or 0) + source.port_range[1] - source.port_range[0]
        if last > 65535:
            raise bad("target_port", "and the range's length lead past port 65535")
    if mapping.options.e2e and source.kind == "port":
        raise bad(
            "options.e2e",
            "needs a source at an agent, since the gateway would have to read it",
            hint="Give source.client_id, or use `underpass forward`.",
        )
    if mapping.options.e2e:
        for name in ("proxy_protocol", "accept_proxy_protocol"):
            if getattr(mapping.options, name):
                raise bad(f"options.{name}", "can't go with e2e: the gateway would have to read it")
    if mapping.balancing.health is not None and mapping.protocol not in {"tcp", "unix"}:
        raise bad("health", "is only for tcp, unix mappings")
    if mapping.group is not None and (source.kind == "agent" or source.port_range is not None):
        raise bad("group", "is for mappings whose source is one port of the gateway")
