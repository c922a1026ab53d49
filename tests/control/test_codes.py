"""One-time codes: random enough, and read however people type them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.codes import ALPHABET, BITS, canonical_code, new_code


def test_codes_are_readable_and_never_the_same() -> None:
    codes = {new_code() for _ in range(500)}
    assert len(codes) == 500
    assert all(re.fullmatch(rf"[{ALPHABET}]{{4}}(-[{ALPHABET}]{{4}}){{2}}", code) for code in codes)
    assert set("".join(codes)) == {*ALPHABET, "-"}
    assert BITS == 60


@pytest.mark.parametrize(
    "typed",
    ["7K3M-9QXD-4T01", "7k3m9qxd4t01", " 7k3m 9qxd 4t01\n", "7K3M_9QXD.4TOL", "7k3m-9qxd-4toi"],
)
def test_the_same_code_in_other_clothes(typed: str) -> None:
    assert canonical_code(typed) == "7K3M-9QXD-4T01"


@pytest.mark.parametrize(
    "typed", ["", "7K3M-9QXD", "7K3M-9QXD-4T011", "7K3M-9QXD-4TU1", "７K3M-9QXD-4T01", "-" * 70]
)
def test_what_is_no_code(typed: str) -> None:
    assert canonical_code(typed) is None


@given(st.text(max_size=80))
def test_whatever_is_read_is_read_the_same_again(typed: str) -> None:
    code = canonical_code(typed)
    assert code is None or canonical_code(code) == code
    assert code is None or canonical_code(code.lower().replace("-", "")) == code
