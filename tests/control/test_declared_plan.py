"""The steps from one list of declared mappings to another: as few as there can be, in an order
that works, and to the same end whatever was there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.declared_plan import MAX_DECLARED, Plan, Wanted, described, plan, wanted_of
from underpass.control.mapping import Health, Mapping, Source
from underpass.control.mapping_requests import new_mapping
from underpass.core.errors import InvalidRequest

AGENT = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
ADA = "00000000-0000-4000-8000-00000000000a"


def body(name: str, port: int = 0, target: int = 22, **more: Any) -> dict[str, Any]:
    source = {"port": port} if port else {}
    return {"name": name, "protocol": "tcp", "source": source, "target_port": target, **more}


def there(number: int, name: str, port: int, target: int = 22, **more: Any) -> Mapping:
    """What came of ``body`` before."""
    wanted = wanted_of([body(name, port, target, **more)], AGENT)[0].mapping
    return replace(wanted, id=f"m{number}", user_id=ADA, declared_by=AGENT)


def wanted(*bodies: dict[str, Any]) -> tuple[Wanted, ...]:
    return wanted_of(list(bodies), AGENT)


def steps(found: Plan) -> tuple[list[str], list[str], list[str], list[str]]:
    return (
        [f"{'make' if old is None else 'change'} {each.name}" for old, each in found.first],
        [old.name for old in found.freed],
        [each.name for each in found.then],
        [old.name for old in found.last],
    )


class TestPlan:
    def test_new_ones_are_made_and_old_ones_go_last(self) -> None:
        found = plan([there(1, "a", 1)], wanted(body("b", 2, 80)), ADA)
        assert steps(found) == (["make b"], [], [], ["a"])

    def test_what_is_there_is_changed_in_place(self) -> None:
        found = plan([there(1, "a", 1)], wanted(body("a", 2, 80)), ADA)
        assert steps(found) == (["change a"], [], [], [])

    def test_another_name_for_the_same_target_is_a_change(self) -> None:
        found = plan([there(1, "a", 1)], wanted(body("b", 1)), ADA)
        assert steps(found) == (["change b"], [], [], [])
        assert found.first[0][0] == there(1, "a", 1)

    def test_a_port_changes_hands_once_it_is_free(self) -> None:
        found = plan([there(1, "a", 1)], wanted(body("b", 1, 80)), ADA)
        assert steps(found) == ([], ["a"], ["b"], [])

    def test_ports_are_swapped(self) -> None:
        found = plan([there(1, "a", 1), there(2, "b", 2)], wanted(body("a", 2), body("b", 1)), ADA)
        assert steps(found) == ([], ["a", "b"], ["a", "b"], [])

    def test_another_machines_port_of_that_number_is_another_port(self) -> None:
        far = {"source": {"client_id": OTHER, "port": 1}}
        found = plan([there(1, "a", 1)], wanted(body("a", 1), body("b", 1, 80, **far)), ADA)
        assert steps(found) == (["change a", "make b"], [], [], [])
        # It leaves the gateway's port, so another may have that at once after it.
        found = plan([there(1, "a", 1)], wanted(body("a", **far), body("b", 1, 80)), ADA)
        assert steps(found) == (["change a"], [], ["b"], [])

    def test_udp_does_not_stand_in_the_way_of_tcp(self) -> None:
        udp = replace(there(1, "a", 1), protocol="udp")
        found = plan([udp], wanted(body("b", 1, 80)), ADA)
        assert steps(found) == (["make b"], [], [], ["a"])

    def test_another_protocol_or_owner_takes_a_new_mapping(self) -> None:
        udp = replace(there(1, "a", 1), protocol="udp")
        assert steps(plan([udp], wanted(body("a")), ADA)) == ([], ["a"], ["a"], [])
        before = replace(there(1, "a", 1), user_id="somebody else")
        assert steps(plan([before], wanted(body("a")), ADA)) == (["make a"], [], [], ["a"])

    def test_a_group_moves_together(self) -> None:
        current = [there(1, "a", 1, group="g"), there(2, "b", 1, group="g")]
        asked = wanted(body("a", 2, group="g"), body("b", 2, group="g"))
        assert steps(plan(current, asked, ADA)) == ([], ["a", "b"], ["a", "b"], [])

    def test_any_port_keeps_the_one_there_is(self) -> None:
        found = plan([there(1, "a", 1)], wanted(body("a")), ADA)
        assert steps(found) == (["change a"], [], [], [])

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4),
    )
    def test_whatever_there_was_the_end_is_what_is_declared(
        self, before: list[tuple[int, int]], after: list[tuple[int, int]]
    ) -> None:
        current = [
            there(number, f"n{number}", port + 1, 20 + target)
            for number, (port, target) in enumerate(dict(before).items())
        ]
        asked = wanted(
            *(body(f"n{n}", port + 1, 20 + target) for n, (port, target) in enumerate(
                dict(after).items()
            ))
        )  # fmt: skip
        found = plan(current, asked, ADA)
        held = {old.id: (old.name, old.source.port) for old in current}

        def take(key: str, each: Wanted) -> None:
            name, port = each.name, each.mapping.source.port
            held.pop(key, None)
            assert name not in {name for name, _ in held.values()}
            assert port not in {port for _, port in held.values()}, "a port that is still held"
            held[key] = (name, port)

        for old, each in found.first:
            take(old.id if old is not None else f"new {each.name}", each)
        for old in found.freed:
            del held[old.id]
        for each in found.then:
            take(f"new {each.name}", each)
        for old in found.last:
            del held[old.id]
        assert sorted(held.values()) == sorted(
            (each.name, each.mapping.source.port) for each in asked
        )


class TestWanted:
    def test_what_is_not_said_is_back_at_its_default(self) -> None:
        each = wanted(body("a", limits={"connections": 5}))[0]
        assert each.body["limits"] == {"bandwidth": None, "connections": 5, "burst": None}
        assert each.body["options"]["compression"] is None
        assert (each.mapping.limits.connections, each.mapping.target_agent_id) == (5, AGENT)

    def test_the_source_may_be_another_machine(self) -> None:
        source = {"client_id": OTHER, "port": 5432}
        each = wanted(body("a", source=source, options={"e2e": True}))[0]
        assert each.mapping.source.place == OTHER
        assert each.mapping.options.e2e

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            {},
            [[]],
            [{"name": 5}],
            [body("a"), body("a")],
            [body("a") | {"status": "disabled"}],
            [body("a") | {"target_client_id": AGENT}],
            [body("a") | {"source": {"client_id": "box"}}],
            [body("a") | {"limits": "x"}],
            [body("a") | {"nonsense": 1}],
            [body("")],
            [body(f"n{number}") for number in range(MAX_DECLARED + 1)],
        ],
    )
    def test_what_a_machine_may_not_say(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest):
            wanted_of(wrong, AGENT)

    def test_a_wrong_one_is_named(self) -> None:
        with pytest.raises(InvalidRequest) as refused:
            wanted(body("a"), body("b", 99999))
        assert refused.value.details["mapping"] == "b"


def test_a_description_makes_the_same_mapping_again() -> None:
    before = there(
        1, "a", 0, group="g", balance="least_connections", limits={"bandwidth": 5, "burst": 2},
        options={"allow_ips": ["192.0.2.0/24"], "idle_timeout": 3.5},
        health={"type": "http", "path": "/x"},
    )  # fmt: skip
    assert before.balancing.health == Health("http", "/x")
    for one in (
        before,
        replace(before, status="disabled"),
        replace(before, group=None, source=Source(port=5, port_range=(5, 9), bind="127.0.0.1")),
        replace(before, protocol="unix", target_host=None, target_port=None, target_path="/s"),
    ):
        again = new_mapping(described(one), id=one.id, user_id=one.user_id, now=0.0)
        assert replace(again, declared_by=AGENT) == one
