"""``underpass.yaml``: the mappings a machine declares itself, read and checked (specs 4 and 7).

Pure. What a mapping may say is what the gateway lets a person say (``control.mapping_requests``);
here it gets the file's own, shorter spelling, and every mistake is told at once with its line,
what is wrong, and the nearest key that exists.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, Final

import yaml

from underpass.agent.declared_mapping import CheckedMapping, Problem, Problems
from underpass.agent.yaml_text import compose, line_of, plain_value
from underpass.control.declared_plan import MAX_DECLARED
from underpass.control.mapping import Health, Limits, Options
from underpass.control.mapping_options import MAX_NETWORKS
from underpass.core.errors import InvalidRequest
from underpass.core.settings import GatewaySettings

__all__ = ["KEYS", "MAX_DECLARED", "Declared", "DeclaredError", "Problem", "parse_declared"]

_LIMITS: Final = tuple(each.name for each in fields(Limits))
_OPTIONS: Final = tuple(each.name for each in fields(Options))
_HEALTH: Final = tuple(each.name for each in fields(Health))
_SOURCE: Final = ("port", "port_range", "client_id", "bind")
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
    "name", "protocol", "target", "group", "balance", "bind", "client_id", "port_range",
    "proxy_protocol", "allow_ips", "deny_ips", "compression", "carrier", "username", "password",
    "type", "path",
})  # fmt: skip
"""Keys whose values are texts, though they look like numbers (``password: 0123``)."""
_ELSEWHERE: Final = {
    "status": "switch it with `underpass mappings disable` and `enable`",
    "target_client_id": "declared mappings lead to the machine that has the file",
}


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
    if reader.problems.found:
        problems = tuple(sorted(reader.problems.found, key=lambda each: each.line))
        first = problems[0]
        raise DeclaredError(f"{source}, line {first.line}: {first.text}", problems, source)
    return tuple(found)


class _Reader:
    """Turns YAML nodes into mappings, and collects what is wrong."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.fail = self.problems.add

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
            if self.problems.full:
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
            if self.problems.full:
                break
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if not place and name.replace("-", "_") in GatewaySettings.model_fields:
                self.fail(
                    line_of(key),
                    f"{name} is a setting of the gateway: `underpass serve --config` takes a file"
                    " of those.",
                )
            elif name not in known:
                self.fail(line_of(key), f"{what} has no key {name[:40]!r}{_advice(name, known)}")
            elif name in found:
                self.fail(line_of(key), f"{what} has {name} twice.")
            else:
                found[name] = value
        return found

    def mapping(self, node: yaml.Node, what: str) -> Declared | None:
        before = len(self.problems.found)
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
        body = CheckedMapping(self.problems, f"{what} ({name[:64]})", given, line, before).body(
            values
        )
        return None if len(self.problems.found) > before else Declared(name, body, line)

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
