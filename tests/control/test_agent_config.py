"""The list an agent listens for: any order, duplication and loss converges, each change once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control import agent_config
from underpass.control.agent_config import Change, ConfigFollower, ConfigLog, agent_item
from underpass.control.mapping import Limits, Mapping, Options, Source
from underpass.core.errors import InvalidRequest, TooManyRequests


def item(number: int) -> dict[str, Any]:
    return {"name": f"n{number}"}


def change(log: ConfigLog, mapping_id: str, number: int | None) -> Change | None:
    """Make a change; what it was, when it was one."""
    if number is None:
        return Change(mapping_id, None) if log.remove(mapping_id) else None
    return Change(mapping_id, item(number)) if log.put(mapping_id, item(number)) else None


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 3)), min_size=1, max_size=30
)


@given(CHANGES, st.data(), st.sampled_from([2, 5, 100]))
def test_any_order_converges(
    wanted: list[tuple[str, int | None]], data: st.DataObject, kept: int
) -> None:
    log, follower = ConfigLog("e", kept=kept), ConfigFollower()
    follower.take(log.since(None, 0), asked=True)
    made: list[Change] = []
    sent: list[dict[str, Any]] = []
    for mapping_id, number in wanted:
        if one := change(log, mapping_id, number):
            made.append(one)
        # The gateway may believe in any version that has been acknowledged once.
        sent.append(log.since("e", data.draw(st.integers(0, log.version))))
    whole = False
    taken: list[Change] = []
    for message in data.draw(st.lists(st.sampled_from(sent), max_size=60)):
        before = follower.version
        got = follower.take(message)
        whole = whole or (message["base"] is None and follower.version > before)
        assert follower.version >= before
        assert not (got.changes and got.missing)
        taken += got.changes
    got = follower.take(log.since(follower.epoch, follower.version), asked=True)
    taken += got.changes
    assert follower.items == log.items
    assert follower.version == log.version
    if not whole and kept == 100:
        assert taken == made  # each once, in order


@given(CHANGES)
def test_whole_list_touches_only_what_differs(wanted: list[tuple[str, int | None]]) -> None:
    old, new, follower = ConfigLog("e1"), ConfigLog("e2"), ConfigFollower()
    for number, (mapping_id, value) in enumerate(wanted):
        change(old, mapping_id, value)
        if number % 2:
            change(new, mapping_id, value)
    follower.take(old.since(None, 0), asked=True)
    before = dict(follower.items)
    got = follower.take(new.since(follower.epoch, follower.version), asked=True)
    assert follower.items == new.items
    for one in got.changes:
        assert before.get(one.id) != one.item
    assert not follower.take(new.since("e2", 0)).changes


def test_fifty_changes_while_away() -> None:
    log, follower = ConfigLog("e"), ConfigFollower()
    follower.take(log.since(None, 0), asked=True)
    for number in range(50):
        log.put(f"m{number}", item(number))
    message = log.since(follower.epoch, follower.version)
    assert message["base"] == 0
    assert [one.id for one in follower.take(message).changes] == [f"m{n}" for n in range(50)]
    assert follower.take(message).changes == ()


def test_gap_is_told() -> None:
    log, follower = ConfigLog("e"), ConfigFollower()
    follower.take(log.since(None, 0), asked=True)
    log.put("a", item(1))
    log.put("b", item(2))
    got = follower.take(log.since("e", 1))
    assert got.missing
    assert follower.items == {}


def test_another_epoch_counts_only_when_asked_for() -> None:
    log, follower = ConfigLog("e2"), ConfigFollower()
    follower.take(ConfigLog("e1").since(None, 0), asked=True)
    log.put("a", item(1))
    assert follower.take(log.since(None, 0)).missing
    assert follower.take(log.since("e2", 0), asked=True).missing
    assert follower.take(log.since("e1", 0), asked=True).changes == (Change("a", item(1)),)


def test_no_change_no_version() -> None:
    log = ConfigLog("e")
    assert log.put("a", item(1))
    assert not log.put("a", item(1))
    assert not log.remove("b")
    assert log.version == 1


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_config, "MAX_ITEMS", 2)
    log = ConfigLog("e")
    log.put("a", item(1))
    log.put("b", item(1))
    log.put("b", item(2))
    with pytest.raises(TooManyRequests):
        log.put("c", item(1))


GOOD = {"epoch": "e", "version": 1, "base": 0, "changes": [{"id": "a", "item": {}}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 1},
        {"epoch": "e" * 65},
        {"version": -1},
        {"version": True},
        {"version": 2},
        {"base": "0"},
        {"changes": None},
        {"changes": [{"id": 1, "item": None}]},
        {"changes": [{"id": "a", "item": 1}]},
        {"changes": [1]},
        {"base": None, "changes": [{"id": "a", "item": None}]},
    ],
)
def test_malformed(wrong: dict[str, Any]) -> None:
    follower = ConfigFollower()
    with pytest.raises(InvalidRequest):
        follower.take(GOOD | wrong, asked=True)
    assert follower.epoch is None


def test_an_item_says_nothing_secret() -> None:
    mapping = Mapping(
        id="m", name="db", user_id="u", protocol="tcp",
        source=Source("agent", 5432, None, "agent-1", None), target_agent_id="agent-2",
        target_host="127.0.0.1", target_port=5432, limits=Limits(connections=3),
        options=Options(username="bob", password="secret", allow_ips=("10.0.0.0/8",)),
    )  # fmt: skip
    found = agent_item(mapping)
    assert found["source"] == {"port": 5432}
    assert found["target"] == "tcp:127.0.0.1:5432"
    assert found["limits"]["connections"] == 3
    assert not {"bob", "secret", "10.0.0.0/8"} & set(str(found).replace("'", " ").split())
