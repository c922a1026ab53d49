"""Guests' tokens: ours, whole, and in time, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.guest import GUEST_PREFIX, LIFETIME, GuestTokens, guest_name, is_guest
from underpass.core.ids import is_id, new_id

TOKENS = GuestTokens(b"k" * 32)


def test_a_token_names_a_guest_until_it_ends() -> None:
    token, guest, end = TOKENS.make(1000.5)
    assert token.startswith(GUEST_PREFIX)
    assert end == int(1000.5 + LIFETIME)
    assert TOKENS.read(token, 1000.0) == (guest, end)
    assert TOKENS.read(token, end - 1) == (guest, end)
    assert TOKENS.read(token, end) is None
    assert TOKENS.make(1000.5)[1] != guest


def test_no_id_of_anything_else_is_a_guests() -> None:
    _, guest, _ = TOKENS.make(0.0)
    assert is_guest(guest)
    assert len(guest) == 36  # what columns hold
    assert not is_id(guest)
    assert not is_guest(new_id())
    assert guest_name(guest) == f"guest-{guest[6:14]}"


def test_another_gateways_token_is_none_of_ours() -> None:
    token, _, _ = GuestTokens(b"x" * 32).make(0.0)
    assert TOKENS.read(token, 0.0) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        GUEST_PREFIX,
        "ups_x",
        f"{GUEST_PREFIX}a.b.c",
        f"{GUEST_PREFIX}..",
        "x" * 500,
        "upg_ü.1.2",
    ],
)
def test_what_is_no_token(token: str) -> None:
    assert TOKENS.read(token, 0.0) is None


def test_nothing_in_it_can_be_changed() -> None:
    token, guest, end = TOKENS.make(0.0)
    other = TOKENS.make(0.0)[0].removeprefix(GUEST_PREFIX).partition(".")[0]
    mine = guest.removeprefix("guest:")
    for changed in (
        token.replace(mine, other),
        token.replace(str(int(end)), str(int(end) + 1)),
        token[:-1],
        token + "0",
        token.replace(f"{mine}.", f"{mine}.0"),
    ):
        assert TOKENS.read(changed, 0.0) is None


@given(st.text(max_size=250))
def test_any_text_is_read_without_a_fuss(text: str) -> None:
    assert TOKENS.read(text, 0.0) is None
    assert TOKENS.read(GUEST_PREFIX + text, 0.0) is None
