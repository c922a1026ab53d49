"""Configuration messages an agent takes: refused without a trace, or taken as they say.

The first byte of an input chooses whether the message answers a question; the rest is msgpack.
"""

from __future__ import annotations

from typing import Any

import msgspec

from underpass.control.agent_config import ConfigFollower, ConfigLog
from underpass.core.errors import InvalidRequest

_LOG = ConfigLog("e")
_LOG.put("a", {"port": 1})
_LOG.put("b", {"port": 2})
_NEWER = ConfigLog("e")
for _mapping_id in "abcd":
    _NEWER.put(_mapping_id, {"port": 3})
_NEWER.remove("a")


def _seed(asked: bool, message: Any) -> bytes:
    return bytes([asked]) + msgspec.msgpack.encode(message)


SEEDS: list[bytes] = [
    _seed(False, _NEWER.since("e", 2)),
    _seed(False, _NEWER.since("e", 0)),
    _seed(False, _NEWER.since("e", 4)),
    _seed(True, ConfigLog("f").since(None, 0)),
    _seed(True, _NEWER.since(None, 0)),
    _seed(False, {"epoch": "e", "version": 3, "base": 2, "changes": [{"id": "a", "item": None}]}),
]


def one_input(data: bytes) -> None:
    """Whatever comes is refused and changes nothing, or is taken."""
    try:
        body = msgspec.msgpack.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if not isinstance(body, dict):
        return
    asked = bool(data[0] & 1)
    follower = ConfigFollower()
    follower.take(_LOG.since(None, 0), asked=True)
    before = (follower.epoch, follower.version, dict(follower.items))
    try:
        taken = follower.take(body, asked=asked)
    except InvalidRequest:
        assert before == (follower.epoch, follower.version, follower.items)
        return
    if taken.missing:
        assert not taken.changes
        assert before == (follower.epoch, follower.version, follower.items)
        return
    assert follower.epoch == before[0] or (asked and body.get("base") is None)
    assert follower.version >= before[1] or follower.epoch != before[0]
    for change in {change.id: change for change in taken.changes}.values():
        assert follower.items.get(change.id) == change.item
    # The same once more is nothing new.
    assert not follower.take(body, asked=asked).changes
