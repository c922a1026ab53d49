"""Lanes of a QUIC link and the QUIC header: only ProtocolError comes out, and only whole frames.

The first byte chooses how the input is cut and which QUIC stream each piece comes on.
"""

from __future__ import annotations

from underpass.links.quic.lanes import Lanes
from underpass.links.quic.packets import destination, is_initial
from underpass.wire.frames import (
    EndFrame,
    FrameDecoder,
    FrameType,
    OpenFrame,
    ProtocolError,
    encode_frame,
    encode_payload,
)

_open = encode_frame(2, FrameType.OPEN, encode_payload(OpenFrame("tcp:h:1", {}, 65536)))

SEEDS: list[bytes] = [
    b"\x00" + _open + encode_frame(2, FrameType.DATA, b"hello") + encode_frame(2, FrameType.EOF),
    b"\x05" + encode_frame(1, FrameType.DATA, b"x" * 3000) + encode_frame(1, FrameType.EOF),
    b"\x13" + _open + encode_frame(2, FrameType.RESET, encode_payload(EndFrame("x", "y"))),
    b"\x41" + encode_frame(0, FrameType.PING, b"12345678") + _open,
    b"\xc3\0\0\0\1\x08dcidcid1\x08scidscid" + bytes(1200),
    b"\x40cid-cid-and more",
]


def one_input(data: bytes) -> None:
    """Feed *data* to both ends' lanes and to the header parser."""
    if not data:
        return
    name = destination(data)
    assert name is None or len(name) <= 20
    is_initial(data)
    step = (data[0] & 0x3F) or len(data)
    numbers = iter(range(0, 8, 4))
    lanes = Lanes(lambda: next(numbers, None))
    own = encode_frame(1, FrameType.OPEN, encode_payload(OpenFrame("x", {}, 1)))
    lanes.outgoing(own)
    total = 0
    try:
        for index, start in enumerate(range(1, len(data), step)):
            number = (0, 1, 5)[(index * (data[0] >> 6)) % 3]
            piece = data[start : start + step]
            frames = lanes.incoming(number, piece, piece[-1:] == b"\xff", control=number == 5)
            whole = FrameDecoder(lambda *_: None, lambda *_: None)
            try:
                whole.feed(frames)
            except ProtocolError:
                pass  # the mux's to judge; what matters here is that nothing is left over
            else:
                assert not whole.mid_frame
            total += len(frames)
            lanes.take_finished()
    except ProtocolError:
        pass
    assert total <= 9 * len(data) + 8
    lanes.end_all()
