"""Datagrams on a stream: boundaries survive any cut, lies about length do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.core.errors import InvalidRequest, TooLarge
from underpass.wire.datagrams import (
    MAX_ADDRESSED,
    MAX_DATAGRAM,
    DatagramDecoder,
    DatagramError,
    encode,
)


def test_a_datagram_is_its_length_and_its_payload() -> None:
    assert encode(b"abc") == b"\x00\x03abc"
    assert encode(b"") == b"\x00\x00"
    assert encode(memoryview(b"xyz")[1:]) == b"\x00\x02yz"
    assert encode(bytearray(b"a")) == b"\x00\x01a"


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_boundaries_survive_any_cut(payloads: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(encode, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    kind = data.draw(st.sampled_from([bytes, bytearray, memoryview]))
    decoder = DatagramDecoder()
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += decoder.feed(kind(wire[start:end]))
    assert got == payloads
    assert all(type(payload) is bytes for payload in got)
    assert not decoder.mid_datagram


def test_every_single_cut() -> None:
    payloads = [b"", b"one", b"", b"x" * 300, b"\x00\x01"]
    wire = b"".join(map(encode, payloads))
    for cut in range(len(wire) + 1):
        decoder = DatagramDecoder()
        assert decoder.feed(wire[:cut]) + decoder.feed(wire[cut:]) == payloads
    decoder = DatagramDecoder()
    assert [p for i in range(len(wire)) for p in decoder.feed(wire[i : i + 1])] == payloads


def test_a_datagram_is_handed_on_as_soon_as_it_is_whole() -> None:
    decoder = DatagramDecoder()
    assert decoder.feed(b"\x00") == []
    assert decoder.mid_datagram
    assert decoder.feed(b"\x02") == []
    assert decoder.feed(b"a") == []
    assert decoder.feed(b"b\x00") == [b"ab"]
    assert decoder.mid_datagram
    assert decoder.feed(b"\x00") == [b""]
    assert not decoder.mid_datagram


@pytest.mark.parametrize("size", [MAX_DATAGRAM - 1, MAX_DATAGRAM])
def test_the_largest_datagrams_fit(size: int) -> None:
    payload = bytes(size)
    assert DatagramDecoder().feed(encode(payload)) == [payload]


def test_one_oversize_datagram_is_refused_and_the_flow_goes_on() -> None:
    with pytest.raises(TooLarge) as caught:
        encode(bytes(MAX_DATAGRAM + 1))
    assert caught.value.code == "datagram_too_large"
    with pytest.raises(TooLarge):
        encode(bytes(MAX_ADDRESSED + 1), limit=MAX_ADDRESSED)


def test_with_an_address_in_front_more_fits() -> None:
    payload = bytes(MAX_ADDRESSED)
    assert DatagramDecoder(limit=MAX_ADDRESSED).feed(encode(payload, limit=65_535)) == [payload]


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_an_impossible_length_is_refused(step: int) -> None:
    wire = encode(b"fine") + (MAX_DATAGRAM + 1).to_bytes(2, "big") + bytes(20)
    decoder = DatagramDecoder()
    with pytest.raises(DatagramError, match="65508 bytes") as caught:
        for start in range(0, len(wire), step):
            decoder.feed(wire[start : start + step])
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.code == "bad_datagram"


def test_what_is_held_is_less_than_one_datagram() -> None:
    decoder = DatagramDecoder()
    wire = encode(bytes(MAX_DATAGRAM))
    for _ in range(3):
        for start in range(0, len(wire), 1000):
            decoder.feed(wire[start : start + 1000])
            assert len(decoder._kept) < len(wire)
    assert decoder._kept == b""
