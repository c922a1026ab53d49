"""Who may do what: every role, action and relation to a machine and a session has its answer."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.control.access import ACTIONS, AgentView, authorise, require
from underpass.control.subject import Subject
from underpass.core.errors import Forbidden, NotFound
from underpass.store.db.models import Agent

ADMIN = Subject("u-admin", "ada", "admin")
AUDITOR = Subject("u-auditor", "grace", "auditor")
USER = Subject("u-user", "linus", "user")
OTHER = "u-other"

MINE = AgentView("a-1", "web", frozenset({USER.user_id}))
FOREIGN = AgentView("a-2", "db", frozenset({OTHER}))
GONE = AgentView("a-3", "old", frozenset({USER.user_id, AUDITOR.user_id}), is_deleted=True)


def allowed(subject: Subject, agent: AgentView | None, **more: object) -> set[str]:
    return {a for a in ACTIONS if authorise(subject, a, agent, **more).allowed}  # type: ignore[arg-type]


def visible(subject: Subject, agent: AgentView | None, **more: object) -> bool:
    return authorise(subject, "admin", agent, **more).visible  # type: ignore[arg-type]


def test_admins_may_do_everything_that_exists() -> None:
    assert allowed(ADMIN, FOREIGN) == set(ACTIONS)
    assert allowed(ADMIN, None) == {"admin"}
    assert allowed(ADMIN, GONE) == {"admin"}
    assert allowed(ADMIN, GONE, owner_id=OTHER) == set(ACTIONS)


def test_auditors_look_and_do_not_touch() -> None:
    assert allowed(AUDITOR, FOREIGN) == {"see", "observe", "record-view"}
    assert allowed(AUDITOR, FOREIGN, owner_id=OTHER) == {"see", "observe", "record-view"}
    assert allowed(AUDITOR, GONE) == set()
    assert allowed(AUDITOR, GONE, owner_id=OTHER) == {"see", "observe", "record-view"}
    assert visible(AUDITOR, FOREIGN)
    assert not visible(AUDITOR, None)


def test_an_auditor_listed_on_a_machine_may_use_it_like_anybody() -> None:
    listed = AgentView("a-4", "x", frozenset({AUDITOR.user_id}))
    assert "shell" in allowed(AUDITOR, listed)
    assert "admin" not in allowed(AUDITOR, listed)


def test_users_use_the_machines_that_list_them() -> None:
    assert allowed(USER, MINE) == {"see", "shell", "forward", "files"}
    assert visible(USER, MINE)


def test_other_machines_do_not_exist_for_users() -> None:
    for agent in (FOREIGN, GONE, None):
        assert allowed(USER, agent) == set()
        assert not visible(USER, agent)


def test_owners_keep_their_records_and_use_their_sessions_while_the_machine_is_theirs() -> None:
    own = {"owner_id": USER.user_id}
    everything_own = {"see", "record-view", "observe", "join", "shell", "forward", "files"}
    assert allowed(USER, MINE, **own) == everything_own
    assert allowed(USER, FOREIGN, **own) == {"see", "record-view"}
    assert allowed(USER, None, **own) == {"see", "record-view"}
    assert visible(USER, FOREIGN, **own)


def test_sessions_of_others_do_not_exist_for_users() -> None:
    assert allowed(USER, MINE, owner_id=OTHER) == set()
    assert not visible(USER, MINE, owner_id=OTHER)


def test_a_shared_session_lets_in_those_who_have_the_machine() -> None:
    assert allowed(USER, MINE, owner_id=OTHER, shared=True) == {"observe", "join"}
    assert allowed(USER, FOREIGN, owner_id=OTHER, shared=True) == set()
    assert not visible(USER, FOREIGN, owner_id=OTHER, shared=True)


def test_refusals_say_not_found_for_what_is_invisible_and_forbidden_for_the_rest() -> None:
    assert require(USER, "shell", MINE).rule == "allowed_users"
    with pytest.raises(NotFound) as unknown:
        require(USER, "see", None)
    with pytest.raises(NotFound) as foreign:
        require(USER, "shell", FOREIGN)
    assert str(unknown.value) == str(foreign.value), "one body for both"
    with pytest.raises(Forbidden) as refused:
        require(USER, "admin", MINE)
    assert refused.value.details == {"rule": "default-deny"}
    with pytest.raises(NotFound, match="session"):
        require(USER, "observe", MINE, owner_id=OTHER, what="session")


def test_the_view_of_a_row() -> None:
    row = Agent(id="a", name="n", allowed_users=["u"], is_deleted=False)
    assert AgentView.of(row) == AgentView("a", "n", frozenset({"u"}))
    row = Agent(id="a", name="n", allowed_users=None, is_deleted=True)
    assert AgentView.of(row) == AgentView("a", "n", frozenset(), is_deleted=True)


def test_what_is_allowed_is_visible_and_every_decision_has_a_rule() -> None:
    agents = [None, MINE, FOREIGN, GONE]
    owners = [None, USER.user_id, OTHER]
    for subject, action, agent, owner, shared in product(
        [ADMIN, AUDITOR, USER], ACTIONS, agents, owners, [False, True]
    ):
        decision = authorise(subject, action, agent, owner_id=owner, shared=shared)
        assert decision.rule
        assert decision.why
        assert decision.visible or not decision.allowed


@given(
    st.sampled_from(ACTIONS),
    st.frozensets(st.sampled_from(["u-other", "u-third", "U-USER", "u-user ", ""])),
)
def test_nobody_gets_in_by_a_name_that_is_nearly_theirs(
    action: str, listed: frozenset[str]
) -> None:
    agent = AgentView("a", "x", listed)
    assert not authorise(USER, action, agent).allowed  # type: ignore[arg-type]
