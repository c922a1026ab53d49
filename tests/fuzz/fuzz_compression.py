"""The decoder of compressed records: nothing but BadRecord comes out, and never more than it may.

The first byte of an input chooses the codec and how the rest is cut.
"""

from __future__ import annotations

from typing import get_args

from underpass.wire.compression import MAX_PLAIN, BadRecord, Codec, Decoder, Encoder

CODECS: tuple[Codec, ...] = get_args(Codec)


def _wire(codec: Codec) -> bytes:
    encoder = Encoder(codec)
    parts = encoder.put(b"GET / HTTP/1.1\r\n" * 20) + encoder.flush()
    parts += encoder.put(b"ls\n") + encoder.flush()
    parts += encoder.put(bytes(3000)) + encoder.flush()
    return b"".join(parts)


SEEDS: list[bytes] = [bytes([index]) + _wire(codec) for index, codec in enumerate(CODECS)]
SEEDS += [b"", b"\x05\x00\x00\x00\x05\x00\x00\x05hello"]


def one_input(data: bytes) -> None:
    """Decode in two pieces."""
    first = data[0] if data else 0
    decoder = Decoder(CODECS[first % len(CODECS)])
    middle = 1 + first // len(CODECS)
    count = 0
    try:
        for piece in (data[1:middle], memoryview(data)[max(1, middle) :]):
            decoder.feed(piece)
            while (plain := decoder.next()) is not None:
                assert 0 < len(plain) <= MAX_PLAIN
                count += 1
            decoder.keep()
        decoder.finish()
    except BadRecord:
        pass
    assert count <= len(data)
