"""The agent's policy file: YAML in, rules out, and every mistake with its line (spec 7)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from underpass.agent.policy import LOOPBACK, Kind, Policy, Rule, is_plain
from underpass.agent.yaml_text import MAX_FILE, compose, line_of
from underpass.core.addresses import network_of
from underpass.core.errors import InvalidRequest

__all__ = ["MAX_FILE", "PolicyError", "load_policy", "parse_policy"]

_PORT_KINDS: Final = frozenset({"tcp", "udp", "listen"})
_LISTS: Final = {
    "hosts": _PORT_KINDS,
    "paths": frozenset({"unix", "file"}),
    "logins": frozenset({"shell", "exec", "file"}),
}
_HOST_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?|\*")


class PolicyError(InvalidRequest):
    """The policy file is wrong; the message names file, line and what it should be."""

    code = "bad_policy"


def load_policy(path: Path | str | None, own_login: str = "self") -> Policy:
    """The policy in the file at *path*; without one, the defaults.

    Args:
        own_login: the login the agent runs as.

    Raises:
        PolicyError: it can't be read or is wrong.
    """
    if path is None:
        return Policy(own_login=own_login)
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise PolicyError(f"Can't read the policy file {file}: {error.strerror}.") from None
    return parse_policy(data, own_login, str(file))


def parse_policy(data: bytes | str, own_login: str = "self", source: str = "policy") -> Policy:
    """The policy in YAML text.

    Raises:
        PolicyError: with *source*, the line and what is wrong.
    """
    root = compose(data, source, PolicyError)
    if root is None:
        return Policy(allow=(), own_login=own_login)
    reader = _Reader(source)
    fields = reader.mapping(root, "the policy", {"allow", "deny"})
    rules = {
        key: tuple(
            reader.rule(node, f"{key}[{index}]")
            for index, node in enumerate(reader.sequence(fields[key], key))
        )
        for key in ("allow", "deny")
        if key in fields
    }
    return Policy(rules.get("allow", ()), rules.get("deny", ()), own_login)


class _Reader:
    """Turns YAML nodes into rules, and knows the line of everything that is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source

    def fail(self, node: yaml.Node, text: str) -> PolicyError:
        return PolicyError(f"{self._source}, line {line_of(node)}: {text}")

    def mapping(self, node: yaml.Node, what: str, known: set[str]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be `name: value` lines.")
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key, "a key")
            if name not in known:
                raise self.fail(
                    key, f"{what} has no {name!r}; it may have {', '.join(sorted(known))}."
                )
            if name in fields:
                raise self.fail(key, f"{name!r} is given twice.")
            fields[name] = value
        return fields

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, f"{what} must be a list.")
        return node.value

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.fail(node, f"{what} must be a text.")
        return str(node.value)

    def rule(self, node: yaml.Node, what: str) -> Rule:
        fields = self.mapping(node, what, {"kind", "hosts", "ports", "paths", "logins"})
        if "kind" not in fields:
            raise self.fail(node, f"{what} has no kind.")
        kind = self.text(fields["kind"], "kind")
        if kind not in get_args(Kind):
            raise self.fail(
                fields["kind"], f"kind {kind!r} is not one of {', '.join(get_args(Kind))}."
            )
        lists: dict[str, list[yaml.Node]] = {}
        for key, kinds in _LISTS.items():
            if key not in fields:
                continue
            if kind not in kinds:
                raise self.fail(fields[key], f"{key} means nothing for kind {kind}.")
            value = fields[key]
            lists[key] = (
                [value] if isinstance(value, yaml.ScalarNode) else self.sequence(value, key)
            )
        ports = None
        if "ports" in fields:
            if kind not in _PORT_KINDS:
                raise self.fail(fields["ports"], f"ports means nothing for kind {kind}.")
            ports = self.ports(fields["ports"])
        networks, names = self.hosts(lists["hosts"]) if "hosts" in lists else (None, None)
        return Rule(
            name=f"{what} (line {line_of(node)})",
            kind=kind,  # type: ignore[arg-type]  # checked above
            networks=networks,
            names=names,
            ports=ports,
            paths=tuple(map(self.path, lists["paths"])) if "paths" in lists else None,
            logins=(
                tuple(self.text(login, "a login") for login in lists["logins"])
                if "logins" in lists
                else None
            ),
        )

    def hosts(self, nodes: list[yaml.Node]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        networks: list[Any] = []
        names: list[str] = []
        for node in nodes:
            text = self.text(node, "a host").lower()
            if text in ("loopback", "localhost"):
                networks += LOOPBACK
                continue
            try:
                networks.append(network_of(text))
                continue
            except ValueError:
                pass
            if "/" in text or not _HOST_NAME.fullmatch(text):
                raise self.fail(
                    node, f"{text!r} is no address, network or host name (*.example.org is fine)."
                )
            names.append(text)
        return tuple(networks), tuple(names)

    def ports(self, node: yaml.Node) -> tuple[tuple[int, int], ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: list[tuple[int, int]] = []
        for item in nodes:
            for part in self.text(item, "ports").split(","):
                first, dash, last = (piece.strip() for piece in part.partition("-"))
                last = last if dash else first
                if not (
                    first.isascii() and first.isdigit() and last.isascii() and last.isdigit()
                    and len(first) <= 5 and len(last) <= 5
                    and 1 <= int(first) <= int(last) <= 65535
                ):  # fmt: skip
                    raise self.fail(item, f"{part.strip()!r} is no port or range like 8000-8999.")
                pairs.append((int(first), int(last)))
        return tuple(pairs)

    def path(self, node: yaml.Node) -> str:
        text = self.text(node, "a path")
        plain = text[1:] or "/" if text.startswith("~") else text
        if not is_plain(plain):
            raise self.fail(node, f"{text!r} must be absolute (or under ~) and without `..`.")
        return text
