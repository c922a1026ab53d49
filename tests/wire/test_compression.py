"""Compressed records: there and back, when it pays, and everything that is no record."""

from __future__ import annotations

import os
import zlib
from typing import Any, get_args

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire import compression
from underpass.wire.compression import HEADER, MAX_PLAIN, BadRecord, Codec, Decoder, Encoder

CODECS: tuple[Codec, ...] = get_args(Codec)
KINDS = {"zstd": 1, "lz4": 2, "gzip": 3, "adaptive": 1}
TEXT = b"".join(b"%d GET /page/%d HTTP/1.1\n" % (i, i * 7919 % 1000) for i in range(20_000))


def header(kind: int, size: int, length: int) -> bytes:
    return bytes([kind]) + size.to_bytes(3, "big") + length.to_bytes(3, "big")


def decoded(codec: Codec, wire: bytes, piece: int = 1 << 20) -> bytes:
    decoder = Decoder(codec)
    out = b""
    for start in range(0, len(wire), piece):
        decoder.feed(memoryview(wire)[start : start + piece])
        while (plain := decoder.next()) is not None:
            assert 0 < len(plain) <= MAX_PLAIN
            out += plain
        decoder.keep()
    decoder.finish()
    return out


def encoded(codec: Codec, *data: bytes) -> bytes:
    encoder = Encoder(codec)
    out: list[Any] = []
    for part in data:
        out += encoder.put(part)
    return b"".join(out + encoder.flush())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"a", TEXT, os.urandom(300_000), bytes(1 << 20)])
def test_there_and_back(codec: Codec, data: bytes) -> None:
    wire = encoded(codec, data)
    assert decoded(codec, wire) == decoded(codec, wire, 1000) == data


@pytest.mark.parametrize("codec", CODECS)
def test_text_shrinks_and_noise_does_not_grow(codec: Codec) -> None:
    assert len(encoded(codec, TEXT)) < len(TEXT) / 3
    noise = os.urandom(10 * MAX_PLAIN)
    assert len(encoded(codec, noise)) == len(noise) + 10 * HEADER


@given(
    codec=st.sampled_from(CODECS),
    parts=st.lists(st.one_of(st.binary(max_size=300), st.integers(1, 200_000).map(bytes))),
    piece=st.integers(1, 5000),
)
def test_any_writes_any_cuts(codec: Codec, parts: list[bytes], piece: int) -> None:
    encoder = Encoder(codec)
    wire = b""
    for index, part in enumerate(parts):
        wire += b"".join(encoder.put(part))
        assert encoder.waiting < MAX_PLAIN
        if index % 2:
            wire += b"".join(encoder.flush())
            assert encoder.waiting == 0
    wire += b"".join(encoder.flush())
    assert decoded(codec, wire, piece) == b"".join(parts)


def test_what_is_flushed_can_be_read_at_once() -> None:
    encoder, decoder = Encoder("zstd"), Decoder("zstd")
    for word in (b"ls\n", b"w" * 500):
        assert encoder.put(word) == []
        for buffer in encoder.flush():
            decoder.feed(buffer)
        got = decoder.next()
        assert got is not None
        assert bytes(got) == word
        assert decoder.next() is None
    assert encoder.flush() == []


def test_large_stored_records_are_not_copied() -> None:
    noise = os.urandom(MAX_PLAIN)
    sent = Encoder("zstd").put(noise)
    assert sent[1] is noise
    decoder = Decoder("zstd")
    for buffer in sent:
        decoder.feed(buffer)
    assert decoder.next() is noise


class TestAdaptive:
    def test_it_stops_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[int] = []
        real = compression._COMPRESS[compression.ZSTD]

        def counting(plain: Any) -> bytes:
            tried.append(len(plain))
            return real(plain)

        monkeypatch.setitem(compression._COMPRESS, compression.ZSTD, counting)
        encoder = Encoder("adaptive")
        noise = os.urandom(MAX_PLAIN)
        for _ in range(1024):  # 64 MiB
            encoder.put(noise)
        assert tried[: compression.TRIES] == [MAX_PLAIN] * compression.TRIES
        samples = tried[compression.TRIES :]
        assert set(samples) == {compression.SAMPLE}
        # After 1, 2, 4, 8, 16, 16, 16 MiB.
        assert len(samples) == 7

    def test_it_begins_again_where_it_pays(self) -> None:
        encoder = Encoder("adaptive")
        for _ in range(compression.TRIES):
            encoder.put(os.urandom(MAX_PLAIN))
        text = TEXT[:MAX_PLAIN]
        sizes = [sum(map(len, encoder.put(text))) for _ in range(40)]
        rest = compression.FIRST_REST // MAX_PLAIN
        assert all(size == MAX_PLAIN + HEADER for size in sizes[: rest - 1])
        assert all(size < MAX_PLAIN / 3 for size in sizes[rest:])

    def test_some_noise_does_not_stop_it(self) -> None:
        encoder = Encoder("adaptive")
        for _ in range(20):
            for _ in range(compression.TRIES - 1):
                encoder.put(os.urandom(MAX_PLAIN))
            assert sum(map(len, encoder.put(TEXT[:MAX_PLAIN]))) < MAX_PLAIN / 3

    def test_small_records_do_not_stop_it(self) -> None:
        encoder = Encoder("adaptive")
        for _ in range(100):
            encoder.put(os.urandom(2000))
            encoder.flush()
        assert sum(map(len, encoder.put(TEXT[:MAX_PLAIN]))) < MAX_PLAIN / 3

    def test_the_others_try_always(self) -> None:
        encoder = Encoder("lz4")
        for _ in range(50):
            encoder.put(os.urandom(MAX_PLAIN))
        assert sum(map(len, encoder.put(TEXT[:MAX_PLAIN]))) < MAX_PLAIN / 2


BODIES: dict[str, Any] = {
    "zstd": zstandard.ZstdCompressor(level=1).compress,
    "adaptive": zstandard.ZstdCompressor(level=1).compress,
    "lz4": lambda data: lz4.block.compress(data, store_size=False),
    "gzip": lambda data: zlib.compress(data, 1),
}


@pytest.mark.parametrize("codec", CODECS)
class TestBadRecords:
    def refused(self, codec: Codec, wire: bytes) -> None:
        decoder = Decoder(codec)
        decoder.feed(wire)
        with pytest.raises(BadRecord) as caught:
            while decoder.next() is not None:
                pass
        assert caught.value.code == "bad_compression"

    def test_one_that_is_good(self, codec: Codec) -> None:
        body = BODIES[codec](bytes(1000))
        assert decoded(codec, header(KINDS[codec], 1000, len(body)) + body) == bytes(1000)

    def test_bombs(self, codec: Codec) -> None:
        # A gigabyte in a megabyte; a record that says so; one that does not.
        body = BODIES[codec](bytes(1 << 22))
        self.refused(codec, header(KINDS[codec], 1 << 22, len(body)) + body)
        self.refused(codec, header(KINDS[codec], MAX_PLAIN, len(body)) + body)
        body = BODIES[codec](bytes(MAX_PLAIN + 1))
        self.refused(codec, header(KINDS[codec], MAX_PLAIN + 1, len(body)) + body)
        self.refused(codec, header(KINDS[codec], MAX_PLAIN, len(body)) + body)

    def test_lengths(self, codec: Codec) -> None:
        body = BODIES[codec](bytes(1000))
        kind, length = KINDS[codec], len(body)
        self.refused(codec, header(kind, 0, length) + body)
        self.refused(codec, header(kind, 999, length) + body)
        self.refused(codec, header(kind, 1001, length) + body)
        self.refused(codec, header(kind, length, length) + body)
        self.refused(codec, header(kind, 1000, 0))
        self.refused(codec, header(kind, 1000, length - 1) + body[:-1])
        self.refused(codec, header(kind, 1000, length + 1) + body + b"\0")
        self.refused(codec, header(0, 10, 11) + b"x" * 11)
        self.refused(codec, header(0, MAX_PLAIN + 1, MAX_PLAIN + 1))

    def test_kinds(self, codec: Codec) -> None:
        for kind in (*(set(KINDS.values()) - {KINDS[codec]}), 4, 255):
            body = BODIES[codec](bytes(1000))
            self.refused(codec, header(kind, 1000, len(body)) + body)

    def test_noise_for_a_body(self, codec: Codec) -> None:
        for _ in range(50):
            self.refused(codec, header(KINDS[codec], 60_000, 100) + b"\xff" + os.urandom(99))

    def test_an_end_within(self, codec: Codec) -> None:
        for wire in (header(0, 5, 5) + b"1234", header(KINDS[codec], 1000, 50) + b"x", b"\0"):
            decoder = Decoder(codec)
            decoder.feed(wire)
            while decoder.next() is not None:
                pass
            with pytest.raises(BadRecord, match="middle"):
                decoder.finish()


def test_a_frame_that_does_not_say_its_size() -> None:
    body = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(1000))
    decoder = Decoder("zstd")
    decoder.feed(header(1, 1000, len(body)) + body)
    with pytest.raises(BadRecord):
        decoder.next()
