"""The hello of spare connections: nothing but BadSpare comes out, and nobody proves by luck."""

from __future__ import annotations

from underpass.links.carriers.preface import HELLO_BYTES, BadSpare, HelloReader, hello

KEY = b"k" * 32
_GOOD = hello(KEY, bytes(16))
_OTHER = hello(b"o" * 32, bytes(range(16)))

SEEDS: list[bytes] = [b"\x00" + _GOOD, b"\x05" + _OTHER, b"\x09" + _GOOD[:30], b"\x01UNDPASS1"]


def one_input(data: bytes) -> None:
    """Feed *data* in pieces of the length its first byte names."""
    if not data:
        return
    step = data[0] or len(data)
    reader = HelloReader()
    fed = b""
    for start in range(1, len(data), step):
        fed += data[start : start + step]
        try:
            said = reader.feed(data[start : start + step])
        except BadSpare:
            return
        assert len(fed) <= HELLO_BYTES
        if said is not None:
            assert said.proves(KEY) == (fed == _GOOD)
