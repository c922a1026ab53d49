"""Resumption: no order of writes, deliveries, cuts and new paths loses or doubles a byte, and no
bytes of a peer raise anything but its own error.

The first byte chooses: even, a program of two-byte steps for both ends; odd, the rest goes raw into
one end in slices.
"""

from __future__ import annotations

from tests.wire.resumed import Cable
from underpass.wire.resume_records import ResumptionError, encode_offsets, encode_reset
from underpass.wire.resumption import Resumption

SEEDS: list[bytes] = [
    bytes([0, 0, 200, 2, 0, 3, 99, 4, 50, 6, 0, 7, 0, 2, 1, 3, 255, 8, 0, 3, 255]),
    bytes([0, 1, 90, 2, 1, 3, 20, 6, 1, 1, 90, 7, 0, 3, 255, 2, 1, 3, 255, 5, 1, 4, 255]),
    b"\1\7" + encode_offsets(0, 0, hello=True) + b"\0\0\0\5hello" + b"\2\0\0\0",
    b"\1\1\0\0\0\3abc" + encode_offsets(0, 0) + encode_reset("gone", "why"),
]


def one_input(data: bytes) -> None:
    """Run *data* as a program, or feed it."""
    if data and data[0] % 2:
        _feed(data[1:])
    else:
        _run(data[1:])


def _feed(data: bytes) -> None:
    core = Resumption(window=1000)
    if data and data[0] % 3 == 0:
        core.accepted(0)
    else:
        core.dialled()
    core.push(b"x" * 50)
    step = (data[0] if data else 0) % 40 + 1
    try:
        for at in range(1, len(data), step):
            core.feed(data[at : at + step])
            core.next_record()
            assert core.acked <= core.sent <= core.end
    except ResumptionError:
        pass


def _run(data: bytes) -> None:
    cable = Cable(window=600)
    for at in range(0, len(data) - 1, 2):
        kind, value = data[at] % 9, data[at + 1]
        side = cable.sides[value % 2]
        match kind:
            case 0 | 1:
                side = cable.sides[kind]
                side.write(bytes((len(side.written) + n) % 251 for n in range(value)))
            case 2:
                cable.send(side, value // 2 + 1)
            case 3:
                cable.deliver(side, value // 2 + 1)
            case 4:
                side.read(value)
            case 5:
                cable.acknowledge(side)
            case 6:
                cable.cut(agent_notices=bool(value % 2))
            case 7:
                cable.dial()
            case _:
                side.core.finish()
        cable.check()
    cable.dial()
    cable.settle()
    cable.check()
    assert cable.client.got == cable.agent.written
    assert cable.agent.got == cable.client.written
