"""Fuzz the client's terminal engine: a script of messages, keys and losses from the bytes."""

from __future__ import annotations

from underpass.wire.tty_client import TtyClient

SEEDS: list[bytes] = [
    b'\x01{"session_id":"s"}\x00\x02output\x00\x03keys\x00\x04\x00\x05\x00',
    b'\x01{"session_id":"s"}\x00\x04\x00\x05\x00\x01{"session_id":"s"}\x00'
    b'\x01{"type":"resumed","offset":9,"input_offset":3}\x00',
    b'\x01{"type":"ack","input":4}\x00\x01{"type":"exit","code":3}\x00',
    b'\x01{"type":"state","trunk":"lost"}\x00\x01{"type":"error","message":"x"}\x00',
    b'\x01{"type":"exit","signal":"SIGKILL"}\x00\x03~.\x00\x03~?~~\r~.\x00',
    b'\x01{"type":"ping","t":1}\x00\x06\x00\x07\x00',
]


def one_input(data: bytes) -> None:
    """Every piece between NULs is one thing that happens; its first byte says which."""
    engine = TtyClient()
    engine.connected("ticket")
    for piece in data.split(b"\0"):
        kind, rest = piece[:1], piece[1:]
        if kind == b"\x01":
            engine.received(rest.decode("utf-8", "surrogateescape"))
        elif kind == b"\x02":
            engine.received(rest)
        elif kind == b"\x03":
            engine.typed(rest)
        elif kind == b"\x04":
            engine.lost(int.from_bytes(rest[:2], "big") or None)
        elif kind == b"\x05":
            engine.connected("ticket")
        elif kind == b"\x06":
            engine.resized(int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big"))
        else:
            engine.written(len(rest))
    assert engine.offset >= 0
