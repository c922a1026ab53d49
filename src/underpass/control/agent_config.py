"""What an agent should listen for, as versions of one list, and how both ends agree on it.

Pure: the gateway keeps a :class:`ConfigLog` per agent, the agent a :class:`ConfigFollower`. Every
change makes one version. A message carries the changes between two versions, or the whole list to
whoever missed too much; in whatever order messages come, how often, and whether they come at all,
each change is applied once and in its turn, and what has a gap before it is asked for again.

A log lives as long as the gateway's process, so it has an *epoch*: versions of different epochs
can't be compared, and an agent that comes with another one gets the whole list. It compares that
with what it has, so that what did not change stays untouched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping as Fields
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeGuard, cast

from underpass.control.mapping import Mapping
from underpass.core.errors import InvalidRequest, TooManyRequests

__all__ = ["MAX_ITEMS", "Change", "ConfigFollower", "ConfigLog", "Item", "Taken", "agent_item"]

MAX_ITEMS: Final = 1000
"""Mappings one agent listens for; their whole list fits into one control message (1 MiB)."""
KEPT: Final = 256
"""Changes a log remembers; who missed more gets the whole list."""
_MAX_ID: Final = 64
_MAX_VERSION: Final = 2**53

Item = dict[str, Any]
"""One mapping as its listening agent is told (:func:`agent_item`)."""


def agent_item(mapping: Mapping) -> Item:
    """What the agent that listens for *mapping* should know of it: no logins, no address lists,
    which the gateway looks at."""
    options = mapping.options
    source = mapping.source.to_json()
    source.pop("client_id", None)
    # Encrypted streams end at that machine, which has to prove its key.
    sealed = {"e2e": True, "machine": mapping.target_agent_id} if options.e2e else {}
    return {
        "name": mapping.name,
        "version": mapping.version,
        "protocol": mapping.protocol,
        "source": source,
        "target": mapping.target,
        "limits": asdict(mapping.limits),
        "options": {
            "compression": options.compression,
            "carrier": options.carrier,
            "idle_timeout": options.idle_timeout,
            **sealed,
        },
    }


@dataclass(frozen=True, slots=True)
class Change:
    """One mapping came or changed, or (without *item*) is no more."""

    id: str
    item: Item | None

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return {"id": self.id, "item": self.item}


class ConfigLog:
    """The gateway's side: the list as it should be, and how it came to be so.

    Args:
        epoch: tells this log from others of the same agent.
        kept: changes that are remembered.

    Attributes:
        version: how many changes there were.
        items: the list, by mapping id.
    """

    def __init__(self, epoch: str, *, kept: int = KEPT) -> None:
        self.epoch = epoch
        self.version = 0
        self.items: dict[str, Item] = {}
        self._changes: deque[Change] = deque(maxlen=kept)

    def put(self, mapping_id: str, item: Item) -> bool:
        """Have *item* in the list; whether that changes anything.

        Raises:
            TooManyRequests: code ``too_many_listeners``.
        """
        if self.items.get(mapping_id) == item:
            return False
        if mapping_id not in self.items and len(self.items) >= MAX_ITEMS:
            raise TooManyRequests(
                f"The machine listens for {MAX_ITEMS} mappings already.",
                code="too_many_listeners",
                hint="Delete one that is no longer needed.",
            )
        self.items[mapping_id] = item
        self._changed(Change(mapping_id, item))
        return True

    def remove(self, mapping_id: str) -> bool:
        """Take an item out of the list; whether it was there."""
        if self.items.pop(mapping_id, None) is None:
            return False
        self._changed(Change(mapping_id, None))
        return True

    def since(self, epoch: str | None, version: int) -> dict[str, Any]:
        """The message for whoever knows *version* of *epoch*.

        Returns:
            ``epoch``, ``version``, ``base`` and ``changes``: one for each version after ``base``,
            in order; or, when ``base`` is None, the whole list.
        """
        missed = self.version - version
        if epoch != self.epoch or not 0 <= missed <= len(self._changes):
            base, changes = None, [Change(*pair) for pair in self.items.items()]
        else:
            base, changes = version, list(self._changes)[len(self._changes) - missed :]
        return {
            "epoch": self.epoch,
            "version": self.version,
            "base": base,
            "changes": [change.to_json() for change in changes],
        }

    def _changed(self, change: Change) -> None:
        self.version += 1
        self._changes.append(change)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a message brought.

    Attributes:
        changes: what is new, in order.
        missing: something before it never came; ask (``config.get``) with epoch and version.
    """

    changes: tuple[Change, ...] = ()
    missing: bool = False


class ConfigFollower:
    """The agent's side: the list as far as it is known.

    Attributes:
        epoch: whose versions are counted; None before the first message.
        version: the last version that was taken.
        items: the list, by mapping id.
    """

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.version = 0
        self.items: dict[str, Item] = {}

    def take(self, body: Fields[str, Any], *, asked: bool = False) -> Taken:
        """Take a message.

        Args:
            asked: it answers our own question, so its epoch is the one that counts.

        Raises:
            InvalidRequest: code ``bad_config``: it is malformed; nothing of it was taken.
        """
        message = _Message.of(body)
        if message.epoch != self.epoch and not (asked and message.base is None):
            return Taken(missing=True)
        if message.base is None:
            if message.epoch == self.epoch and message.version <= self.version:
                return Taken()
            changes = self._differences(message.changes)
        elif message.base > self.version:
            return Taken(missing=True)
        elif message.version <= self.version:
            return Taken()
        else:
            changes = message.changes[self.version - message.base :]
        self.epoch = message.epoch
        self.version = message.version
        for change in changes:
            if change.item is None:
                self.items.pop(change.id, None)
            else:
                self.items[change.id] = change.item
        return Taken(changes)

    def _differences(self, whole: tuple[Change, ...]) -> tuple[Change, ...]:
        named = {change.id for change in whole}
        gone = [Change(known, None) for known in self.items if known not in named]
        new = [change for change in whole if self.items.get(change.id) != change.item]
        return (*gone, *new)


@dataclass(frozen=True, slots=True)
class _Message:
    epoch: str
    version: int
    base: int | None
    changes: tuple[Change, ...]

    @classmethod
    def of(cls, body: Fields[str, Any]) -> _Message:
        epoch, version, base = body.get("epoch"), body.get("version"), body.get("base")
        if not isinstance(epoch, str) or not 0 < len(epoch) <= _MAX_ID:
            raise _bad("epoch")
        if not _is_version(version):
            raise _bad("version")
        found = body.get("changes")
        if not isinstance(found, list):
            raise _bad("changes")
        changes = tuple(_change(each) for each in cast("list[object]", found))
        if base is None:
            if len(changes) > MAX_ITEMS or any(change.item is None for change in changes):
                raise _bad("changes")
        elif not _is_version(base) or version - base != len(changes):
            raise _bad("base")
        return cls(epoch, version, base, changes)


def _change(found: object) -> Change:
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else dict[str, Any]()
    mapping_id, item = fields.get("id"), fields.get("item")
    if not isinstance(mapping_id, str) or not 0 < len(mapping_id) <= _MAX_ID:
        raise _bad("changes")
    if item is not None and not isinstance(item, dict):
        raise _bad("changes")
    return Change(mapping_id, cast("Item | None", item))


def _is_version(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_VERSION


def _bad(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} of the pushed configuration is wrong.", code="bad_config")
