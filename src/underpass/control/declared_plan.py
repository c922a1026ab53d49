"""From what a machine has declared and what it declares now to the steps in between.

Pure. What is there already stays: a mapping is found again by its name, or, under another name, by
its target. Whatever can be made or changed beside the rest comes first, so that a refusal finds
everything else untouched; only what stands in the way of another is taken away before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Fields
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, cast

from underpass.control.mapping import Limits, Mapping, Options
from underpass.control.mapping_requests import new_mapping
from underpass.core.errors import InvalidRequest

__all__ = ["MAX_DECLARED", "Plan", "Wanted", "described", "plan", "wanted_of"]

MAX_DECLARED: Final = 500
"""Mappings one machine may declare; what its owner may have is another, usually lower limit."""
_NO_LIMITS: Final = {field.name: None for field in fields(Limits)}
_NO_OPTIONS: Final = {field.name: None for field in fields(Options)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One declared mapping.

    Attributes:
        body: as the API takes it, complete: what is not declared is back at its default.
        mapping: what it would be if it were new.
    """

    body: Fields[str, Any]
    mapping: Mapping

    @property
    def name(self) -> str:
        return self.mapping.name


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in their order.

    Attributes:
        first: to make (``None``) or to change.
        freed: to take away because others need their ports or names.
        then: to make where that was.
        last: to take away because nobody declares them any more.
    """

    first: tuple[tuple[Mapping | None, Wanted], ...] = ()
    freed: tuple[Mapping, ...] = ()
    then: tuple[Wanted, ...] = ()
    last: tuple[Mapping, ...] = ()


def wanted_of(declared: object, agent_id: str) -> tuple[Wanted, ...]:
    """What an agent's message asks for.

    Raises:
        InvalidRequest: it is malformed; ``details["mapping"]`` names the mapping if one is wrong.
    """
    if not isinstance(declared, list):
        raise InvalidRequest("mappings must be a list.", code="bad_declaration")
    items = cast("list[object]", declared)
    if len(items) > MAX_DECLARED:
        raise InvalidRequest(
            f"A machine may declare at most {MAX_DECLARED} mappings.", code="bad_declaration"
        )
    found: dict[str, Wanted] = {}
    for item in items:
        body = cast("dict[str, Any]", item) if isinstance(item, dict) else dict[str, Any]()
        name = body.get("name")
        if not isinstance(name, str) or name in found:
            raise InvalidRequest(
                "Every declared mapping needs a name of its own.", code="bad_declaration"
            )
        found[name] = _wanted(body, agent_id)
    return tuple(found.values())


def _wanted(body: dict[str, Any], agent_id: str) -> Wanted:
    if {"status", "target_client_id"} & body.keys():
        raise InvalidRequest(
            "Declared mappings are active and lead to the machine that declares them.",
            code="bad_declaration",
            details={"mapping": str(body["name"])[:64]},
        )
    complete: dict[str, Any] = {
        "source": {},
        "target_host": None,
        "limits": {},
        "options": {},
        "group": None,
        "balance": None,
        "health": None,
        **body,
        "target_client_id": agent_id,
    }
    for name, defaults in (("limits", _NO_LIMITS), ("options", _NO_OPTIONS)):
        if complete[name] is None or isinstance(complete[name], dict):
            complete[name] = defaults | (complete[name] or {})
    try:
        mapping = new_mapping(complete, id="declared", user_id="", now=0.0)
    except InvalidRequest as error:
        raise InvalidRequest(
            error.message,
            code=error.code,
            hint=error.hint,
            details=error.details | {"mapping": str(body["name"])[:64]},
        ) from None
    return Wanted(complete, mapping)


def plan(current: Sequence[Mapping], wanted: Sequence[Wanted], owner_id: str) -> Plan:
    """How to come from *current* to *wanted*, all of it *owner_id*'s."""
    kept = _kept(current, wanted, owner_id)
    stay = {old.id for old in kept.values()}
    gone = [old for old in current if old.id not in stay]
    replaced = {old.name for old in gone if old.user_id == owner_id}
    moving = {each.name for each in wanted if each.name in kept and _moves(kept[each.name], each)}
    # A group's port can't move while one of its members still has it.
    groups = {kept[name].group for name in moving} - {None}
    first: list[tuple[Mapping | None, Wanted]] = []
    then: list[Wanted] = []
    for each in wanted:
        old = kept.get(each.name)
        taken = _ports(one for one in current if one != old)
        if old is None or each.name in moving:
            waits = bool(_ports([each.mapping]) & taken) or each.mapping.group in groups
            waits = waits or (old is not None and old.group in groups)
            waits = waits or (old is None and each.name in replaced)
            if waits:
                then.append(each)
                continue
        first.append((old, each))
    needed = _ports(each.mapping for each in then)
    waiting = {each.name for each in then}
    freed = [old for name, old in kept.items() if name in waiting]
    freed += [old for old in gone if _ports([old]) & needed or old.name in waiting]
    last = [old for old in gone if old not in freed]
    return Plan(tuple(first), tuple(freed), tuple(then), tuple(last))


def _kept(
    current: Sequence[Mapping], wanted: Sequence[Wanted], owner_id: str
) -> dict[str, Mapping]:
    """By its name in the file, each mapping that is there already."""
    mine = {old.name: old for old in current if old.user_id == owner_id}
    kept = {
        each.name: mine[each.name]
        for each in wanted
        if each.name in mine and mine[each.name].protocol == each.mapping.protocol
    }
    free = [old for old in mine.values() if old.name not in {each.name for each in wanted}]
    for each in wanted:
        if each.name in mine:
            continue
        for old in free:
            if _same_target(old, each.mapping):
                kept[each.name] = old
                free.remove(old)
                break
    return kept


def _same_target(old: Mapping, new: Mapping) -> bool:
    if old.protocol == "socks5":  # has none
        return False
    return (old.protocol, old.target_host, old.target_port, old.target_path) == (
        new.protocol, new.target_host, new.target_port, new.target_path
    )  # fmt: skip


def _moves(old: Mapping, wanted: Wanted) -> bool:
    new = wanted.mapping.source
    elsewhere = new.port != 0 and list(new.ports) != list(old.source.ports)
    elsewhere = elsewhere or new.place != old.source.place
    return elsewhere or wanted.mapping.group != old.group


def _ports(mappings: Iterable[Mapping]) -> set[tuple[str, str, int]]:
    return {
        (mapping.source.place, transport, port)
        for mapping in mappings
        for transport in mapping.transports
        for port in mapping.source.ports
    }


def described(mapping: Mapping) -> dict[str, Any]:
    """The request that makes *mapping* again as it is, its port included."""
    found: dict[str, Any] = {
        "name": mapping.name,
        "protocol": mapping.protocol,
        "source": mapping.source.to_json(),
        "target_client_id": mapping.target_agent_id,
        "limits": asdict(mapping.limits),
        "options": mapping.options.to_json() | {"password": mapping.options.password},
        "group": mapping.group,
        "balance": mapping.balancing.balance,
        "health": None if mapping.balancing.health is None else asdict(mapping.balancing.health),
    }
    for name in ("target_host", "target_port", "target_path"):
        if getattr(mapping, name) is not None:
            found[name] = getattr(mapping, name)
    if not mapping.enabled:
        found["status"] = "disabled"
    return found
