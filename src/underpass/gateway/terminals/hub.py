"""A hub: one live session on the gateway, between its agent's trunk and all who watch it.

The thin shell around :class:`~underpass.gateway.terminals.hub_core.HubCore`: it moves what the
core decides, wakes who waits, and remembers how the session ended. It outlives sockets and trunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import UnderpassError
from underpass.gateway.terminals.hub_core import HubCore, Role
from underpass.gateway.terminals.recorder import Recorder
from underpass.gateway.terminals.trunk import Trunk, TrunkLost
from underpass.gateway.terminals.viewer import Outcome, Viewer
from underpass.wire.terminal import (
    Ack,
    Attached,
    Control,
    Credit,
    Exit,
    Failure,
    Resize,
    Terminate,
    clamp_size,
)

__all__ = ["Hub", "Outcome", "SessionGone", "SessionInfo", "Viewer"]

_log = structlog.get_logger(__name__)

ATTACH_SECONDS = 10.0
RESIZE_SECONDS = 0.05
"""Resizes closer together than this reach the agent as one."""
SETTLE_SECONDS = 4.0


class SessionGone(UnderpassError):
    """The agent does not have this session (any more)."""

    code, status, close_code = "session_gone", 410, 4502


@dataclass(slots=True)
class SessionInfo:
    """What a hub knows of its session."""

    id: str
    agent_id: str
    agent_name: str
    user_id: str
    username: str
    command: str | None
    login: str | None
    cols: int
    rows: int
    created_at: float = 0.0


class Hub:
    """One live session.

    Args:
        info: what is known of it.
        core: the deciding half.
        clock: its monotonic side.
        on_change: called (without arguments) when a status row may have to change.
    """

    def __init__(
        self, info: SessionInfo, core: HubCore, clock: Clock, on_change: Callable[[Hub], None]
    ) -> None:
        self.info = info
        self.core = core
        self.recorder: Recorder | None = None
        self.viewers: set[Viewer] = set()
        self.trunk: Trunk | None = None
        self.was_attached = False
        self.agent_ip: str | None = None
        self.pid: int | None = None
        self.started_at: float | None = None
        """Unix time of the first attachment to the agent."""
        self.join_allowed = False
        self.written: dict[str, Any] = {}
        """What the row says, as far as we wrote it."""
        self.lost_at: float | None = None
        """Monotonic time since when there is no trunk."""
        self.detached_at: float | None = clock.monotonic()
        """Monotonic time since when no owner or writer is there."""
        self.outcome: Outcome | None = None
        self.concluded = asyncio.Event()
        """Set when it is over, or (without an outcome) when this gateway lets go of it."""
        self.agent_told = asyncio.Event()
        """Set when the agent has been told of an end that is not its own, or can't be."""
        self.settled = asyncio.Event()
        """Set when the row and the recording say how it ended."""
        self.announced: Outcome | None = None
        self.relink = asyncio.Event()
        """Set when trying to attach again makes sense at once."""
        self._clock = clock
        self._on_change = on_change
        self._trunk_wake = asyncio.Event()
        self._input_room = asyncio.Event()
        self._size_sent = (info.cols, info.rows)
        self._size_sent_at = 0.0

    # -- state ------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """``connecting``, ``active`` or ``detached``; how it ended is in :attr:`outcome`."""
        if not self.was_attached:
            return "connecting"
        return "active" if self.attached_viewers else "detached"

    @property
    def attached_viewers(self) -> int:
        """Owners and second writers."""
        return sum(1 for viewer in self.viewers if viewer.may_write)

    @property
    def observers(self) -> int:
        return sum(1 for viewer in self.viewers if not viewer.may_write)

    def resumed(self, offset: int) -> dict[str, Any]:
        """The message that says where output goes on."""
        return {"type": "resumed", "offset": offset, "input_offset": self.core.input_end}

    # -- viewers ----------------------------------------------------------------------------------

    def attach(
        self, subject: Subject, role: Role, offset: int | None, *, credit: bool, first: bool = False
    ) -> Viewer:
        """Begin to show the session to *subject*.

        Args:
            role: an owner's new socket takes over from their old one, which is told so.
            offset: output bytes they have; None = they have none.
            credit: whether the client grants credit (``?credit=off`` = it does not).
            first: the socket that opened the session: nothing to resume.
        """
        if role == "owner":
            for old in [viewer for viewer in self.viewers if viewer.role == "owner"]:
                old.cut(
                    Outcome(
                        "closed",
                        code="displaced",
                        message="The session was taken over by another window of yours.",
                        close_code=4409,
                    )
                )
                self._remove(old)
        cursor, start = self.core.add(role, offset, credit=credit)
        viewer = Viewer(self, subject, cursor)
        if not first:
            viewer.tell(self.resumed(start))
            viewer.tell({"type": "resize", "cols": self.info.cols, "rows": self.info.rows})
            if self.trunk is None and self.outcome is None:
                viewer.tell({"type": "state", "trunk": "lost"})
            self._tell_others(viewer, {"type": "attached", "user": subject.username, "mode": role})
            if self.recorder is not None:
                verb = {"owner": "attached", "writer": "joined", "observer": "observing"}[role]
                self.recorder.marker(f"{verb}: {subject.username}")
        self.viewers.add(viewer)
        if viewer.may_write:
            self.detached_at = None
        self._on_change(self)
        self.progress()
        return viewer

    def detach(self, viewer: Viewer) -> None:
        """Its socket is gone. Idempotent."""
        if viewer not in self.viewers:
            return
        self._remove(viewer)
        if self.outcome is None:
            name = viewer.subject.username
            self._tell_others(viewer, {"type": "detached", "user": name, "mode": viewer.role})
            if self.recorder is not None:
                verb = "detached" if viewer.may_write else "stopped observing"
                self.recorder.marker(f"{verb}: {name}")
        self._on_change(self)
        self.progress()

    def _remove(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self.core.remove(viewer.cursor)
        if viewer.may_write and not self.attached_viewers:
            self.detached_at = self._clock.monotonic()

    def _tell_others(self, viewer: Viewer, message: dict[str, Any]) -> None:
        for other in self.viewers:
            if other is not viewer:
                other.tell(message)

    # -- from browsers ----------------------------------------------------------------------------

    def input(self, data: bytes) -> None:
        """Input from someone who may write. Raises InvalidRequest for an oversized message."""
        self.core.input(data)
        self._trunk_wake.set()

    async def input_room(self) -> None:
        """Wait until more input may be accepted (or the session is over)."""
        while self.core.input_full and self.outcome is None:
            self._input_room.clear()
            await self._input_room.wait()

    def resize(self, viewer: Viewer, cols: int, rows: int) -> None:
        """Another size; clamped, and sent only if it is a change."""
        size = clamp_size(cols, rows)
        if size == (self.info.cols, self.info.rows):
            return
        self.info.cols, self.info.rows = size
        self._trunk_wake.set()
        self._tell_others(viewer, {"type": "resize", "cols": size[0], "rows": size[1]})

    def progress(self) -> None:
        """Someone took output: the agent may be due some credit."""
        if self.core.attached:
            self._trunk_wake.set()

    def recorded(self) -> None:
        """The recorder got further, or gave up."""
        recorder = self.recorder
        self.core.recorded = (
            None if recorder is None or recorder.failed is not None else recorder.position
        )
        self.progress()

    # -- the trunk --------------------------------------------------------------------------------

    async def run_trunk(self, trunk: Trunk) -> None:
        """Serve the session over *trunk* until it is lost or the session ends.

        Raises:
            SessionGone: the agent says so in its first message.
            UnderpassError: the agent refuses to start it.
        """
        try:
            rest = await self._first(trunk)
            over = False
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(trunk))
                try:
                    await self._read(trunk, rest)
                    over = True
                except TrunkLost as lost:
                    _log.info("trunk_lost", session_id=self.info.id, why=lost.message)
                finally:
                    writer.cancel()
            if over:
                # The agent forgets the session when we end the trunk: not before it is written.
                await _at_most(self.settled.wait(), SETTLE_SECONDS)
                await trunk.finish()
        finally:
            trunk.abort()
            self.agent_told.set()
            if self.trunk is trunk:
                self._lost()

    async def _first(self, trunk: Trunk) -> list[bytes | Control]:
        try:
            async with asyncio.timeout(ATTACH_SECONDS):
                messages = await trunk.receive()
        except TimeoutError:
            raise TrunkLost("The agent did not answer in time.") from None
        first = messages[0]
        if isinstance(first, Failure):
            if first.code == "session_gone":
                raise SessionGone(first.message or "The agent no longer has this session.")
            raise UnderpassError(first.message or "The agent refused.", code=first.code)
        if not isinstance(first, Attached) or first.session_id != self.info.id:
            raise TrunkLost("The agent did not begin with what the protocol asks for.")
        gap = self.core.trunk_attached(first.offset, first.input_offset)
        recorder = self.recorder
        if gap is not None and recorder is not None:
            recorder.skip(gap.count)
        if first.command and not self.info.command:
            self.info.command = first.command
        if first.login and not self.info.login:
            self.info.login = first.login
        if self.was_attached and recorder is not None:
            recorder.marker("link restored")
        self._size_sent = (first.cols, first.rows)
        self.trunk = trunk
        self.pid = first.pid or self.pid
        self.agent_ip = trunk.address or self.agent_ip
        self.was_attached = True
        self.lost_at = None
        for viewer in self.viewers:
            viewer.tell({"type": "state", "trunk": "attached"})
        self._trunk_wake.set()
        self._on_change(self)
        return messages[1:]

    def _lost(self) -> None:
        self.trunk = None
        self.core.trunk_lost()
        self.lost_at = self._clock.monotonic()
        if self.outcome is None:
            if self.recorder is not None:
                self.recorder.marker("link lost")
            for viewer in self.viewers:
                viewer.tell({"type": "state", "trunk": "lost"})
        self._on_change(self)

    async def _read(self, trunk: Trunk, messages: list[bytes | Control]) -> None:
        while True:
            for message in messages:
                if isinstance(message, bytes):
                    self._output(message)
                elif isinstance(message, Ack):
                    self._acknowledged(message.input)
                elif isinstance(message, Exit):
                    self.core.exited(message.offset)
                    self.conclude(Outcome("closed", exit=message))
                    return
                elif isinstance(message, Failure):
                    self.conclude(
                        Outcome("error", code=message.code, message=message.message,
                                close_code=4502)
                    )  # fmt: skip
                    return
            messages = await trunk.receive()

    def _output(self, data: bytes) -> None:
        before = self.core.log.end
        unrecorded = self.core.output(data)
        if self.core.log.end == before:
            return
        if self.recorder is not None and unrecorded:
            self.recorder.output(unrecorded)
        for viewer in self.viewers:
            viewer.wake.set()
        if self.core.owner is None:
            self.progress()

    def _acknowledged(self, offset: int) -> None:
        if not self.core.acknowledged(offset):
            return
        if not self.core.input_full:
            self._input_room.set()
        message = {"type": "ack", "input": self.core.input_acked}
        for viewer in self.viewers:
            if viewer.may_write:
                viewer.tell(message)

    async def _write(self, trunk: Trunk) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._trunk_wake.wait()
                self._trunk_wake.clear()
                if self.outcome is not None and self.outcome.tell_agent is not None:
                    trunk.send(Terminate(self.outcome.tell_agent[:256]))
                    await trunk.drain()
                    self.agent_told.set()
                    return
                while data := self.core.take_input():
                    trunk.send(data)
                size = (self.info.cols, self.info.rows)
                if size != self._size_sent:
                    wait = self._size_sent_at + RESIZE_SECONDS - loop.time()
                    if wait > 0:
                        loop.call_later(wait, self._trunk_wake.set)
                    else:
                        self._size_sent, self._size_sent_at = size, loop.time()
                        trunk.send(Resize(*size))
                        if self.recorder is not None:
                            self.recorder.resize(*size)
                due = self.core.credit_due()
                if due:
                    trunk.send(Credit(due))
                await trunk.drain()
        except TrunkLost:
            trunk.abort()  # the reader sees it, too

    # -- the end ----------------------------------------------------------------------------------

    def let_go(self) -> None:
        """This gateway stops: give the trunk up; the agent keeps the session."""
        if self.outcome is None:
            self.agent_told.set()
            self.concluded.set()
            self._input_room.set()
            if self.trunk is not None:
                self.trunk.abort()

    def conclude(self, outcome: Outcome) -> None:
        """The session is over; the first outcome counts. People hear of it from :meth:`announce`,
        after the row and the recording are written."""
        if self.outcome is None:
            self.outcome = outcome
            if self.trunk is None or outcome.tell_agent is None:
                self.agent_told.set()
            self.concluded.set()
            self.relink.set()
            self._input_room.set()
            self._trunk_wake.set()

    def announce(self) -> None:
        """Tell everybody who watches how it ended."""
        assert self.outcome is not None
        self.settled.set()
        self.announced = self.outcome
        for viewer in self.viewers:
            viewer.over.set()
            viewer.wake.set()


async def _at_most(wait: Coroutine[Any, Any, Any], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        pass
