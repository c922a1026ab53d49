"""YAML files of a machine, read without trusting them: bounded in size, depth and aliases, no tags
that make objects, and every node knows its line."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from underpass.core.errors import InvalidRequest

__all__ = ["MAX_FILE", "compose", "line_of", "plain_value"]

MAX_FILE: Final = 256 << 10
"""Bytes of a file at most."""
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_TRUE: Final = frozenset({"yes", "true", "on"})


def compose(data: bytes | str, source: str, error: type[InvalidRequest]) -> yaml.Node | None:
    """The document in *data*; ``None`` when it is empty.

    Raises:
        error: it is too large, no UTF-8 or no YAML; the message names *source* and, if known, the
            line.
    """
    if len(data) > MAX_FILE:
        raise error(f"{source} is larger than {MAX_FILE} bytes.")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise error(f"{source} is not UTF-8 text.") from None
    except (yaml.YAMLError, RecursionError) as failure:
        mark = getattr(failure, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise error(f"{source}{line}: this is not valid YAML.") from None


def line_of(node: yaml.Node) -> int:
    """The line *node* begins on, the first is 1."""
    return node.start_mark.line + 1


def plain_value(node: yaml.ScalarNode) -> Any:
    """What a scalar means: a number, a truth value, nothing (``None``), or else its text."""
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in _TRUE
    if kind == "int" and _INT.fullmatch(text):  # YAML 1.1 would make 22:22 a number, too
        return int(text)
    if kind == "float":
        try:
            return float(text)
        except ValueError:
            return text
    return text
