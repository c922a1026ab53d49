"""The ways a session ends other than by its program: what people, agents and rows are told."""

from __future__ import annotations

from underpass.core.errors import UnderpassError
from underpass.gateway.terminals.hub import Outcome
from underpass.gateway.terminals.trunk import TrunkLost
from underpass.wire.terminal import Exit

__all__ = [
    "access_removed",
    "agent_deleted",
    "exit_status",
    "failure",
    "gone_on_agent",
    "grace_over",
    "restarting",
    "terminated",
    "unreachable",
]

_REASONS = {
    "disabled": "This user was disabled.",
    "deleted": "This user was deleted.",
    "demoted": "This user's role was changed.",
    "password_changed": "This user's password was changed.",
}


def failure(error: UnderpassError) -> Outcome:
    """The agent can't be reached, or refuses."""
    close_code = error.close_code
    if isinstance(error, TrunkLost) or error.code == "session_gone":
        close_code = 4502
    elif error.status == 403:
        close_code = 4403
    return Outcome("error", code=error.code, message=str(error), close_code=close_code)


def terminated(text: str) -> Outcome:
    """A person ended it."""
    return Outcome("closed", code="terminated", message=text, tell_agent=text)


def access_removed(reason: str) -> Outcome:
    """Its owner may not go on.

    Args:
        reason: a sentence, or one of the codes of topic ``user`` (``disabled``…).
    """
    text = _REASONS.get(reason, reason)
    return Outcome("closed", code="access_removed", message=text, close_code=4403, tell_agent=text)


def agent_deleted(reason: str = "The machine was deleted.") -> Outcome:
    """Its machine is no longer one of ours."""
    return Outcome(
        "closed", code="agent_deleted", message=reason, close_code=4502, tell_agent=reason
    )


def grace_over() -> Outcome:
    """Nobody came back to it."""
    text = "The session was ended: nobody came back to it within its grace time."
    return Outcome("closed", code="grace_over", message=text, tell_agent=text)


def unreachable() -> Outcome:
    """Its machine did not come back."""
    return Outcome(
        "error",
        code="agent_lost",
        message="The machine did not come back within the grace time.",
        close_code=4502,
    )


def gone_on_agent() -> Outcome:
    """Its machine came back without it."""
    return Outcome(
        "error",
        code="session_gone",
        message="The machine's agent was restarted and no longer has the session.",
        close_code=4502,
    )


def restarting() -> Outcome:
    """For viewers only: this gateway stops, the session goes on."""
    return Outcome(
        "detached",
        code="gateway_restarting",
        message="The gateway restarts; the session goes on. Reconnect in a moment.",
        close_code=1012,
    )


def exit_status(end: Exit | None) -> str | None:
    """What a recording's last event says."""
    if end is None:
        return None
    return end.signal if end.signal is not None else str(end.code)
