"""The first bytes of a spare connection: any cut, any change, the right key only."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.links.carriers.preface import (
    ANSWER_BYTES,
    HELLO_BYTES,
    SPARE_PREFACE,
    BadSpare,
    HelloReader,
    answer,
    carrier_key,
    hello,
    is_answer,
)
from underpass.wire.handshake import PREFACE

KEY = b"k" * 32
TICKET = bytes(range(16))


@given(st.sets(st.integers(1, HELLO_BYTES - 1)))
def test_a_hello_in_any_pieces(cuts: set[int]) -> None:
    whole = hello(KEY, TICKET)
    assert len(whole) == HELLO_BYTES
    reader = HelloReader()
    said = None
    edges = [0, *sorted(cuts), HELLO_BYTES]
    for start, end in itertools.pairwise(edges):
        assert said is None
        said = reader.feed(whole[start:end])
    assert said is not None
    assert said.ticket == TICKET
    assert said.proves(KEY)
    assert not said.proves(b"o" * 32)
    with pytest.raises(BadSpare):
        reader.feed(b"x")


@given(st.integers(0, HELLO_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_proves_nothing(at: int, by: int) -> None:
    changed = bytearray(hello(KEY, TICKET))
    changed[at] ^= by
    try:
        said = HelloReader().feed(bytes(changed))
    except BadSpare:
        assert at < len(SPARE_PREFACE)
    else:
        assert said is not None
        assert not said.proves(KEY)


def test_more_than_a_hello_is_refused_before_it_is_kept() -> None:
    reader = HelloReader()
    reader.feed(hello(KEY, TICKET)[:-1])
    with pytest.raises(BadSpare):
        reader.feed(b"xy")
    with pytest.raises(BadSpare):
        HelloReader().feed(b"GET / HTTP/1.1\r\n")


def test_the_answer_is_the_nodes_own() -> None:
    said = answer(KEY, TICKET)
    assert len(said) == ANSWER_BYTES
    assert is_answer(KEY, TICKET, said)
    assert not is_answer(KEY, TICKET, hello(KEY, TICKET)[-ANSWER_BYTES:])
    assert not is_answer(KEY, bytes(16), said)
    assert not is_answer(b"o" * 32, TICKET, said)
    assert not is_answer(KEY, TICKET, said + b"x")


def test_keys_hang_on_secret_and_link() -> None:
    keys = {carrier_key(secret, link) for secret in (b"a" * 32, b"b" * 32) for link in ("1", "2")}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)
    assert carrier_key(b"a" * 32, "1") in keys


def test_the_prefaces_can_be_told_apart() -> None:
    assert len(SPARE_PREFACE) == len(PREFACE)
    assert not SPARE_PREFACE.startswith(PREFACE[:4])
