"""A stream that a person opened over their own link: accepted, relayed within what they may use,
and cut when that ends."""

from __future__ import annotations

from underpass.control.access import Action
from underpass.control.mapping import Limits
from underpass.control.subject import Subject
from underpass.core.errors import Forbidden
from underpass.gateway.entrypoints.allowance import Allowance
from underpass.gateway.entrypoints.shape import Shape
from underpass.links.link import Opening
from underpass.links.relay import RelayResult, Tap, relay
from underpass.links.stream import Stream

__all__ = ["ClientStream"]


class ClientStream:
    """One stream of a person, from the asking on.

    Args:
        subject: whose.
        agent_id: where it goes.
        action: what it needs leave for, as long as it lasts.
        target: what is opened there.
    """

    def __init__(self, subject: Subject, agent_id: str, action: Action, target: str) -> None:
        self.subject = subject
        self.agent_id = agent_id
        self.action: Action = action
        self.target = target
        self.session_id: str | None = None
        self.stream: Stream | None = None
        self.allowance: Allowance | None = None
        self._cut: tuple[str, str] | None = None

    def attach(self, opening: Opening, remote: Stream) -> None:
        """The way is open: accept the person's end, unless it was cut meanwhile."""
        if self._cut is not None:
            remote.abort(self._cut[0])
            raise Forbidden(self._cut[1], code=self._cut[0])
        self.stream = opening.accept()

    async def relay(self, remote: Stream, tap: Tap | None) -> RelayResult:
        """Move bytes until both directions are over, within what the person may use."""
        stream, allowance = self.stream, self.allowance
        assert stream is not None
        if allowance is None:
            return await relay(stream, remote, tap=tap)
        shape = Shape(Limits(), allowance.clock, allowance)
        allowance.begin(stream, lambda error: self.cut(error.code, str(error)))
        try:
            with shape.around(stream, remote) as near:
                self.stream = near
                return await relay(near, remote, tap=tap)
        except BaseException:  # whatever it is, neither end is left behind
            stream.abort("cancelled")
            remote.abort("cancelled")
            raise
        finally:
            allowance.end(stream)

    def cut(self, code: str, message: str) -> None:
        """End it; the person's program is told why."""
        self._cut = (code, message)
        if self.stream is not None:
            self.stream.abort(code, message)
