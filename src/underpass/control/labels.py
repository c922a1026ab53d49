"""What a machine may be called: labels and names, given by admins and tokens, never by agents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from underpass.core.errors import InvalidRequest

__all__ = ["MAX_LABELS", "MAX_NAME", "checked_labels", "checked_name", "name_from_hostname"]

MAX_LABELS = 64
MAX_NAME = 64
MAX_VALUE = 128

_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"\w[\w.-]{0,63}")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def checked_labels(value: object) -> dict[str, str]:
    """*value* as labels.

    Raises:
        InvalidRequest: not an object of texts, or a key or value out of bounds (``bad_labels``).
    """
    if not isinstance(value, Mapping):
        raise _bad("Labels must be an object of names and texts.")
    given = cast("Mapping[Any, Any]", value)
    if len(given) > MAX_LABELS:
        raise _bad(f"A machine has at most {MAX_LABELS} labels.")
    labels: dict[str, str] = {}
    for key, text in given.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise _bad(f"The label name {str(key)[:64]!r} must be 1 to 63 of A-Z a-z 0-9 . _ / -.")
        if not isinstance(text, str) or len(text) > MAX_VALUE or not text.isprintable():
            raise _bad(
                f"The label {key} must be a printable text of at most {MAX_VALUE} characters."
            )
        labels[key] = text
    return dict(sorted(labels.items()))


def checked_name(value: object) -> str:
    """*value* as a machine's name: letters, digits, ``.``, ``_``, ``-``; one word in a shell.

    Raises:
        InvalidRequest: it is not (``bad_name``).
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"A name is 1 to {MAX_NAME} letters, digits, dots, dashes or underscores, "
            "and starts with a letter or digit.",
            code="bad_name",
        )
    return value


def name_from_hostname(hostname: str, taken: frozenset[str] | set[str]) -> str:
    """A valid name made of *hostname*, not among *taken* (lower case): ``web``, ``web-2``."""
    base = _NOT_IN_NAMES.sub("-", hostname).strip("-.")[:MAX_NAME] or "machine"
    name, number = base, 1
    while name.lower() in taken:
        number += 1
        suffix = f"-{number}"
        name = base[: MAX_NAME - len(suffix)] + suffix
    return name


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="bad_labels")
