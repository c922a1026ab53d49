"""Who may do what: the one authorise function behind every route, socket and stream.

Pure and total: no I/O, every combination has an answer, no match means no. What a person may not
see does not exist for them (404, the same body as for an unknown id); what they see but may not
do is refused (403).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from underpass.control.subject import Subject
from underpass.core.errors import Forbidden, NotFound
from underpass.store.db.models import Agent

__all__ = ["ACTIONS", "Action", "AgentView", "Decision", "authorise", "require"]

Action = Literal["see", "shell", "observe", "join", "record-view", "forward", "files", "admin"]

ACTIONS: tuple[Action, ...] = (
    "see", "shell", "observe", "join", "record-view", "forward", "files", "admin",
)  # fmt: skip

_AUDITOR_ACTIONS: frozenset[str] = frozenset({"see", "observe", "record-view"})
_GRANTED_ACTIONS: frozenset[str] = frozenset({"see", "shell", "forward", "files"})
"""What ``allowed_users`` on a machine gives; watching *others'* sessions is not among it."""
_OWNER_ACTIONS: frozenset[str] = frozenset({"see", "record-view"})
"""What the owner of a session keeps even after losing the machine: its record."""
_OWNER_LIVE_ACTIONS: frozenset[str] = frozenset({"observe", "join"})
"""What the owner of a session may do with it while the machine is still granted."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """What a decision needs to know of a machine; never anything the agent says of itself."""

    id: str
    name: str = ""
    allowed_users: frozenset[str] = field(default_factory=frozenset[str])
    is_deleted: bool = False

    @classmethod
    def of(cls, row: Agent) -> AgentView:
        """The view of an ``assets`` row."""
        return cls(row.id, row.name, frozenset(row.allowed_users or ()), row.is_deleted)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and which rule gave it (every decision becomes an event naming the rule)."""

    allowed: bool
    rule: str
    why: str
    visible: bool = True


def authorise(
    subject: Subject,
    action: Action,
    agent: AgentView | None,
    *,
    owner_id: str | None = None,
    shared: bool = False,
) -> Decision:
    """Decide whether *subject* may do *action*.

    Args:
        subject: who asks, from the session or token.
        action: what they want to do.
        agent: the machine; ``None`` when it does not exist. Only an admin's ``admin`` action
            (managing the gateway itself) and an owner's old records do without one.
        owner_id: for sessions and recordings, whose it is. A session of somebody else is invisible
            to a plain user, whatever machines they may use.
        shared: the session's owner lets others with the same machine join it.
    """
    if subject.role == "guest":
        return _invisible("role:guest")  # guests have codes, and nothing else
    alive = agent is not None and not agent.is_deleted
    if subject.role == "admin":
        if alive or owner_id is not None or action == "admin":
            return Decision(True, "role:admin", "Admins may do everything.")
        return _invisible("no-such-machine")
    granted = alive and agent is not None and subject.user_id in agent.allowed_users
    owner = owner_id is not None and owner_id == subject.user_id
    auditor = subject.role == "auditor"

    if owner and action in _OWNER_ACTIONS:
        return Decision(True, "owner", "It is the person's own session.")
    if auditor and action in _AUDITOR_ACTIONS and (alive or owner_id is not None):
        return Decision(True, "role:auditor", "Auditors may look at everything.")
    if owner_id is None:
        if granted and action in _GRANTED_ACTIONS:
            return Decision(True, "allowed_users", "The machine lists this person.")
    elif granted and owner and action in _OWNER_LIVE_ACTIONS | _GRANTED_ACTIONS:
        return Decision(True, "owner", "It is the person's own session.")
    elif granted and shared and action in _OWNER_LIVE_ACTIONS:
        return Decision(True, "shared", "The session's owner lets others in.")

    if owner_id is None:
        visible = granted or (auditor and alive)
    else:
        visible = owner or auditor or (granted and shared)
    if visible:
        return Decision(False, "default-deny", f"No rule gives {action!r} to this person here.")
    return _invisible("invisible")


def require(
    subject: Subject,
    action: Action,
    agent: AgentView | None,
    *,
    owner_id: str | None = None,
    shared: bool = False,
    what: str = "machine",
) -> Decision:
    """:func:`authorise`, raising what the asker should get when the answer is no.

    Raises:
        NotFound: it does not exist or is invisible to *subject* (one body for both).
        Forbidden: it is visible, but the action is not allowed.
    """
    decision = authorise(subject, action, agent, owner_id=owner_id, shared=shared)
    if decision.allowed:
        return decision
    if not decision.visible:
        raise NotFound(f"There is no such {what}.", hint="Check the id or the name.")
    raise Forbidden(
        f"You may not do this ({action}) on this {what}.",
        hint="Ask an admin to add you to the machine's allowed users.",
        details={"rule": decision.rule},
    )


def _invisible(rule: str) -> Decision:
    return Decision(False, rule, "It does not exist, or not for this person.", visible=False)
