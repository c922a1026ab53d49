"""One declared mapping, from the words of ``underpass.yaml`` to those of the gateway's API.

Each part is tried by itself, so that one mistake does not hide the next.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from underpass.agent.yaml_text import line_of
from underpass.control.mapping import Mapping
from underpass.control.mapping_requests import changed_mapping, new_mapping
from underpass.core.errors import InvalidRequest

__all__ = ["CheckedMapping", "Problem", "Problems"]

_SOMEWHERE: Final = "00000000-0000-4000-8000-000000000000"
_MAX_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        line: where, the first is 1; 0: the file as a whole.
        text: what is wrong, and what to do.
    """

    line: int
    text: str


class Problems:
    """What is wrong with a file; at most 100 are kept.

    Attributes:
        found: in the order they were seen.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []

    @property
    def full(self) -> bool:
        """Whether looking for more is pointless."""
        return len(self.found) >= _MAX_PROBLEMS

    def add(self, line: int, text: str) -> None:
        """Note one."""
        if not self.full:
            self.found.append(Problem(line, text))


class CheckedMapping:
    """See the module.

    Args:
        problems: where what is wrong is noted.
        what: the mapping, for people.
        given: its values as nodes, for their lines.
        line: where it begins.
        before: problems there were before this mapping.
    """

    def __init__(
        self, problems: Problems, what: str, given: dict[str, yaml.Node], line: int, before: int
    ) -> None:
        self._problems = problems
        self._what = what
        self._given = given
        self._line = line
        self._before = before

    def body(self, values: dict[str, Any]) -> dict[str, Any]:
        """*values* as the gateway takes them, without what is not given; of no use when a problem
        was noted."""
        protocol = values["protocol"]
        body: dict[str, Any] = {"name": values["name"], "protocol": protocol}
        try:
            start = _blank(protocol)
        except InvalidRequest as error:
            self._fail(error)
            return body
        body |= self._source(values.get("source")) | self._target(protocol, values.get("target"))
        for name in ("limits", "options", "group", "balance", "health"):
            value = values.get(name)
            if value is None:
                continue
            body[name] = value
        for part in _parts(body):
            try:
                changed_mapping(start, part)
            except InvalidRequest as error:
                self._fail(error)
        if len(self._problems.found) == self._before:  # else it may be a mere consequence
            try:
                new_mapping(body | {"target_client_id": _SOMEWHERE}, id="", user_id="", now=0.0)
            except InvalidRequest as error:
                self._fail(error)
        return body

    def _source(self, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if isinstance(value, dict):
            return {"source": value}
        if isinstance(value, str) and "-" in value:
            return {"source": {"port_range": value}}
        return {"source": {"port": value}}

    def _target(self, protocol: str, value: Any) -> dict[str, Any]:
        if protocol == "socks5":
            if value is not None:
                self._fail_at("target", "is not for socks5: every client names its own.")
            return {}
        if value is None:
            if self._shapeless("target"):
                return {}
            self._fail_at("", f"target is missing; {_TARGETS[protocol]}.")
            return {}
        if protocol == "unix":
            return {"target_path": value}
        host, colon, port = value.rpartition(":")
        if not (port.isascii() and port.isdigit() and len(port) <= 5) or (colon and not host):
            self._fail_at("target", f"{value[:80]!r} is none; {_TARGETS[protocol]}.")
            return {}
        found: dict[str, Any] = {"target_port": int(port)}
        if not colon:
            return found
        bare = host.removeprefix("[").removesuffix("]")
        if ":" in host and (bare == host or not _is_ipv6(bare)):
            self._fail_at("target", f"{value[:80]!r}: an IPv6 address goes into brackets.")
            return {}
        return found | {"target_host": bare}

    def _shapeless(self, name: str) -> bool:
        """Whether something stands there that has been complained about already."""
        node = self._given.get(name)
        return node is not None and not isinstance(node, yaml.ScalarNode)

    def _fail(self, error: InvalidRequest) -> None:
        text = error.message.replace("target_path:", "target:").replace("target_port:", "target:")
        text = text.replace("target_host:", "target:").replace("an object", "`key: value` lines")
        where = str(error.details.get("field") or "")
        hint = f" {error.hint}" if error.hint else ""
        self._problems.add(self._line_of(where), f"{self._what}: {text}{hint}")

    def _fail_at(self, name: str, text: str) -> None:
        shown = f"{name} {text}" if name else text
        self._problems.add(self._line_of(name), f"{self._what}: {shown}")

    def _line_of(self, where: str) -> int:
        """The line of a field such as ``options.allow_ips[3]``, as near as there is one."""
        outer, _, inner = where.partition(".")
        node = self._given.get("target" if outer.startswith("target_") else outer)
        if node is None:
            return self._line
        if isinstance(node, yaml.MappingNode):
            wanted = inner.partition("[")[0]
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value == wanted:
                    return line_of(value if isinstance(value, yaml.ScalarNode) else key)
        return line_of(node)


_TARGETS: Final = {
    "tcp": "write PORT or HOST:PORT as this machine sees it",
    "udp": "write PORT or HOST:PORT as this machine sees it",
    "unix": "write the path of a socket",
}


def _blank(protocol: str) -> Mapping:
    """The least a mapping of *protocol* can be; every part is tried on it."""
    least: dict[str, Any] = {"protocol": protocol, "target_client_id": _SOMEWHERE}
    if protocol in {"tcp", "udp"}:
        least["target_port"] = 1
    elif protocol == "unix":
        least["target_path"] = "/"
    return new_mapping(least, id="", user_id="", now=0.0)


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in body.items():
        if name not in {"limits", "options"} or not isinstance(value, dict):
            yield {name: value}
            continue
        together = {key: value[key] for key in ("username", "password") if key in value}
        together |= {key: value[key] for key in ("bandwidth", "burst") if key in value}
        if together:
            yield {name: together}
        # What is encrypted depends on the source, too; the mapping as a whole is tried at the end.
        for key in value.keys() - together.keys() - {"e2e"}:
            yield {name: {key: value[key]}}


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
