"""One-time codes that people read out: made from 60 random bits, and read however they are typed.

Crockford's alphabet: no letter in it looks like a digit, so what is misread is read right.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

__all__ = ["BITS", "CodeMaker", "canonical_code", "new_code"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 12
BITS: Final = 5 * LENGTH
"""Of randomness. At the ten tries a minute that anybody gets, a code that is good for a day is
found with a probability of 10⁻¹⁴."""
_GROUP: Final = 4
_MAX_TYPED: Final = 64
_READ_AS: Final = str.maketrans("OIL", "011", "-_. \t")

CodeMaker = Callable[[], str]
"""What makes new codes; injected so that tests can predict them."""


def new_code() -> str:
    """A new code, e.g. ``7K3M-9QXD-4TNB``."""
    return _grouped("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))


def canonical_code(typed: str) -> str | None:
    """*typed* as :func:`new_code` writes it; ``None`` when it is no code.

    Case, hyphens and blanks don't matter; O is read as 0, I and L as 1.
    """
    if len(typed) > _MAX_TYPED or not typed.isascii():
        return None
    characters = typed.upper().translate(_READ_AS).strip()
    if len(characters) != LENGTH or not set(characters) <= set(ALPHABET):
        return None
    return _grouped(characters)


def _grouped(characters: str) -> str:
    return "-".join(characters[at : at + _GROUP] for at in range(0, LENGTH, _GROUP))
