"""``underpass.yaml``: the mappings a machine declares itself, read and checked (specs 4 and 7).

Pure. What a mapping may say is what the gateway lets a person say (``control.mapping_requests``);
here it gets the file's own, shorter spelling, and every mistake is told at once with its line,
what is wrong, and the nearest key that exists.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final

import yaml

from underpass.agent.yaml_text import compose, line_of, plain_value
from underpass.control.declared_plan import MAX_DECLARED
from underpass.control.mapping import Health, Limits, Mapping, Options
from underpass.control.mapping_options import MAX_NETWORKS
from underpass.control.mapping_requests import changed_mapping, new_mapping
from underpass.core.errors import InvalidRequest

__all__ = ["KEYS", "MAX_DECLARED", "Declared", "DeclaredError", "Problem", "parse_declared"]

_LIMITS: Final = tuple(each.name for each in fields(Limits))
_OPTIONS: Final = tuple(each.name for each in fields(Options) if each.name != "e2e")
_HEALTH: Final = tuple(each.name for each in fields(Health))
_SOURCE: Final = ("port", "port_range", "bind")
_MAPPING: Final = (
    "name", "protocol", "source", "target", "limits", "options", "group", "balance", "health",
)  # fmt: skip
KEYS: Final = {
    "": ("mappings",),
    "mappings": _MAPPING,
    "source": _SOURCE,
    "limits": _LIMITS,
    "options": _OPTIONS,
    "health": _HEALTH,
}
"""Every key there is, by what it stands in."""
_TEXTS: Final = frozenset({
    "name", "protocol", "target", "group", "balance", "bind", "port_range", "proxy_protocol",
    "allow_ips", "deny_ips", "compression", "carrier", "username", "password", "type", "path",
})  # fmt: skip
"""Keys whose values are texts, though they look like numbers (``password: 0123``)."""
_ELSEWHERE: Final = {
    "client_id": "declared mappings come in at the gateway; use `underpass mappings create --at`",
    "e2e": "declared mappings come in at the gateway, which has to read them",
    "status": "switch it with `underpass mappings disable` and `enable`",
    "target_client_id": "declared mappings lead to the machine that has the file",
}
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


class DeclaredError(InvalidRequest):
    """The file is wrong; the message has the first problem, ``problems`` all of them.

    Args:
        source: the file's name.
    """

    code = "bad_declaration"

    def __init__(self, message: str, problems: tuple[Problem, ...] = (), source: str = "") -> None:
        super().__init__(message)
        self.problems = problems or (Problem(0, message),)
        self.source = source

    @property
    def lines(self) -> tuple[str, ...]:
        """Every problem in one line, with file and line number."""
        return tuple(
            f"{self.source}, line {each.line}: {each.text}" if each.line else each.text
            for each in self.problems
        )


@dataclass(frozen=True, slots=True)
class Declared:
    """One mapping of the file.

    Attributes:
        body: as the gateway takes it, without what is not given.
        line: where it begins.
    """

    name: str
    body: dict[str, Any] = field(repr=False)  # may hold a password
    line: int


def parse_declared(data: bytes | str, source: str = "underpass.yaml") -> tuple[Declared, ...]:
    """The mappings in YAML text; none when it is empty or has no ``mappings``.

    Raises:
        DeclaredError: with every problem.
    """
    root = compose(data, source, DeclaredError)
    reader = _Reader()
    found = reader.file(root) if root is not None else []
    if reader.problems:
        problems = tuple(sorted(reader.problems, key=lambda each: each.line))
        first = problems[0]
        raise DeclaredError(f"{source}, line {first.line}: {first.text}", problems, source)
    return tuple(found)


class _Reader:
    """Turns YAML nodes into mappings, and collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fail(self, line: int, text: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(line, text))

    def file(self, root: yaml.Node) -> list[Declared]:
        node = self.keys(root, "", "the file").get("mappings")
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fail(line_of(node), "mappings must be a list: each begins with `- name:`.")
            return []
        if len(node.value) > MAX_DECLARED:
            self.fail(line_of(node), f"mappings may hold at most {MAX_DECLARED}.")
            return []
        found: list[Declared] = []
        names: dict[str, int] = {}
        for number, each in enumerate(node.value):
            if len(self.problems) >= _MAX_PROBLEMS:
                break
            mapping = self.mapping(each, f"mappings[{number}]")
            if mapping is None:
                continue
            if mapping.name in names:
                first = names[mapping.name]
                self.fail(
                    mapping.line, f"name: {mapping.name} is the name of the one in line {first}."
                )
            names.setdefault(mapping.name, mapping.line)
            found.append(mapping)
        return found

    def keys(self, node: yaml.Node, place: str, what: str) -> dict[str, yaml.Node]:
        """The values of an object by their keys, which are among those of *place*."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(line_of(node), f"{what} must be `key: value` lines.")
            return {}
        known = KEYS[place]
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if len(self.problems) >= _MAX_PROBLEMS:
                break
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name not in known:
                self.fail(line_of(key), f"{what} has no key {name[:40]!r}{_advice(name, known)}")
            elif name in found:
                self.fail(line_of(key), f"{what} has {name} twice.")
            else:
                found[name] = value
        return found

    def mapping(self, node: yaml.Node, what: str) -> Declared | None:
        before = len(self.problems)
        given = self.keys(node, "mappings", what)
        if not isinstance(node, yaml.MappingNode):
            return None
        line = line_of(node)
        values = {name: self.value(name, value, what) for name, value in given.items()}
        for needed in ("name", "protocol"):
            if needed not in given or _is_null(given[needed]):
                self.fail(line, f"{what} has no {needed}.")
        if not all(isinstance(values.get(needed), str) for needed in ("name", "protocol")):
            return None
        name = str(values["name"])
        body = _Checked(self, f"{what} ({name[:64]})", given, line, before).body(values)
        return None if len(self.problems) > before else Declared(name, body, line)

    def value(self, name: str, node: yaml.Node, what: str) -> Any:
        """The value of one key of a mapping, objects and lists included."""
        if isinstance(node, yaml.ScalarNode):
            value = plain_value(node)
            return value if value is None or name not in _TEXTS else str(node.value)
        if name in KEYS and isinstance(node, yaml.MappingNode):
            inner = self.keys(node, name, f"{name} of {what}")
            return {key: self.value(key, each, what) for key, each in inner.items()}
        if name in {"allow_ips", "deny_ips"} and isinstance(node, yaml.SequenceNode):
            return [
                str(each.value) if isinstance(each, yaml.ScalarNode) else None
                for each in node.value[: MAX_NETWORKS + 1]
            ]
        self.fail(line_of(node), f"{name} of {what} {_shape(name)}.")
        return None


class _Checked:
    """One mapping on its way to the gateway's words: each part is tried by itself, so that one
    mistake does not hide the next.

    Args:
        before: problems there were before this mapping.
    """

    def __init__(
        self, reader: _Reader, what: str, given: dict[str, yaml.Node], line: int, before: int
    ) -> None:
        self._reader = reader
        self._what = what
        self._given = given
        self._line = line
        self._before = before

    def body(self, values: dict[str, Any]) -> dict[str, Any]:
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
        if len(self._reader.problems) == self._before:  # else it may be a mere consequence
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
        self._reader.fail(self._line_of(where), f"{self._what}: {text}{hint}")

    def _fail_at(self, name: str, text: str) -> None:
        shown = f"{name} {text}" if name else text
        self._reader.fail(self._line_of(name), f"{self._what}: {shown}")

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
        for key in value.keys() - together.keys():
            yield {name: {key: value[key]}}


def _shape(name: str) -> str:
    if name in {"allow_ips", "deny_ips"}:
        return "must be a list of networks"
    return "must be `key: value` lines" if name in KEYS else "must be one value"


def _advice(name: str, known: tuple[str, ...]) -> str:
    if name in _ELSEWHERE:
        return f": {_ELSEWHERE[name]}."
    near = difflib.get_close_matches(name[:40], known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; it may have {', '.join(known)}."


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and plain_value(node) is None


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
