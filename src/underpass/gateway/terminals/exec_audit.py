"""The record of a program run over ``exec``: session row, events, recording of its output."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from underpass.control.events import Events
from underpass.control.sessions import Sessions
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.core.ids import new_id
from underpass.core.metrics import SESSIONS_STARTED
from underpass.core.supervisor import Supervisor
from underpass.gateway.terminals.hub import SessionInfo
from underpass.gateway.terminals.recorder import Recorder
from underpass.gateway.terminals.recording_desk import RecordingDesk
from underpass.store.db.models import TtySession
from underpass.wire.terminal import Exit, FrameDecoder, FrameType, TerminalFrameError

__all__ = ["ExecAudit", "ExecRecord", "ExecTap"]

EXEC_LIMIT = 64 * 1024 * 1024
"""Largest cast of a program's output, in bytes; what comes later is relayed, not recorded."""
_MAX_COMMAND = 4096


class MachineRow(Protocol):
    """What is needed of an ``assets`` row."""

    id: Any
    name: Any


class ExecTap:
    """Sees the frames that pass and records output; never changes or delays them.

    Attributes:
        exit: how the program ended, once its agent said so.
        stdout, stderr: bytes of each.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self.exit: Exit | None = None
        self.stdout = 0
        self.stderr = 0
        self._recorder = recorder
        self._decoder: FrameDecoder | None = FrameDecoder()

    def a_to_b(self, data: bytes) -> None:
        """From the person: input is not recorded."""

    def b_to_a(self, data: bytes) -> None:
        """From the agent."""
        if self._decoder is None:
            return
        try:
            messages = self._decoder.feed(data)
        except TerminalFrameError:
            # The two ends will find out; there is nothing to record any more.
            self._decoder = None
            return
        for kind, message in messages:
            if isinstance(message, bytes):
                if kind == FrameType.STDERR:
                    self.stderr += len(message)
                else:
                    self.stdout += len(message)
                if self._recorder is not None:
                    # A pipe has no terminal that would turn line ends into new lines.
                    self._recorder.output(message.replace(b"\n", b"\r\n"))
            elif isinstance(message, Exit):
                self.exit = message


class ExecRecord:
    """One program under audit."""

    def __init__(self, session_id: str, tap: ExecTap) -> None:
        self.session_id = session_id
        self.tap = tap


class ExecAudit:
    """Keeps the record of programs; call it as ``client_streams`` does.

    ``async with audit(subject, machine, command) as record:`` gives ``record.session_id`` for the
    opening and ``record.tap`` for the relay. Who may run it was decided before.
    """

    def __init__(
        self, *, sessions: Sessions, desk: RecordingDesk, events: Events, clock: Clock
    ) -> None:
        self._sessions = sessions
        self._desk = desk
        self._events = events
        self._clock = clock

    @asynccontextmanager
    async def __call__(
        self, subject: Subject, machine: MachineRow, command: Any
    ) -> AsyncGenerator[ExecRecord]:
        """The context of one program.

        Raises:
            InvalidRequest: there is no command in *command*.
            TooManyRequests: a cap of live sessions is reached.
            Unavailable: it must be recorded and can't be (strict).
        """
        shown = command_text(command)
        info = SessionInfo(
            id=new_id(),
            agent_id=str(machine.id),
            agent_name=str(machine.name),
            user_id=subject.user_id,
            username=subject.username,
            command=shown,
            login=None,
            cols=80,
            rows=24,
        )
        await self._desk.check()
        await self._sessions.create(
            TtySession(
                id=info.id, asset_id=info.agent_id, user_id=info.user_id, username=info.username,
                kind="exec", status="active", command=shown, cols=80, rows=24,
                browser_ip=subject.ip, created_at=0.0, started_at=self._clock.now(),
            )
        )  # fmt: skip
        recorder: Recorder | None = None
        supervisor = Supervisor("exec audit")
        tap = ExecTap(None)
        error: BaseException | None = None
        try:
            recorder = await self._desk.begin(info, limit=EXEC_LIMIT, kind="exec")
            if recorder is not None:
                await self._sessions.change(info.id, recording=recorder.recording_id)
                supervisor.start(recorder.run(), "recorder")
            tap = ExecTap(recorder)
            await self._record(info, subject, "session.started", command=shown)
            SESSIONS_STARTED.labels("ok").inc()
            yield ExecRecord(info.id, tap)
        except BaseException as raised:
            error = raised
            raise
        finally:
            # A cancelled stream must still get its end written.
            await asyncio.shield(
                self._finish(info, subject, tap, recorder=recorder, error=error, writer=supervisor)
            )

    async def _finish(
        self,
        info: SessionInfo,
        subject: Subject,
        tap: ExecTap,
        *,
        recorder: Recorder | None,
        writer: Supervisor,
        error: BaseException | None,
    ) -> None:
        end = tap.exit
        finished = None
        if recorder is not None:
            status = None if end is None else end.signal or str(end.code)
            finished = await self._desk.finish(recorder, info, status)
        await writer.close()
        message = None
        if end is None:
            message = (
                str(error)
                if isinstance(error, UnderpassError)
                else "The stream ended before the program did."
            )
        await self._sessions.end(
            info.id,
            status="closed" if end is not None else "error",
            exit_code=end.code if end else None,
            signal=end.signal if end else None,
            error_message=message,
        )
        await self._record(
            info,
            subject,
            "session.ended",
            outcome="ok" if end is not None else "failed",
            exit_code=end.code if end else None,
            signal=end.signal if end else None,
            reason=message,
            stdout=tap.stdout,
            stderr=tap.stderr,
            recording=recorder.recording_id if recorder else None,
            sha256=finished.sha256 if finished else None,
        )

    async def _record(
        self, info: SessionInfo, subject: Subject, kind: str, outcome: Any = "ok", **details: Any
    ) -> None:
        await self._events.record(
            kind,
            actor=subject,
            agent_id=info.agent_id,
            object_id=info.id,
            outcome=outcome,
            details={
                "kind": "exec",
                **{key: value for key, value in details.items() if value is not None},
            },
        )


def command_text(command: Any) -> str:
    """A command as a person would read it.

    Raises:
        InvalidRequest: it is neither a text nor a list of texts, or empty.
    """
    if isinstance(command, str) and command:
        return command[:_MAX_COMMAND]
    if (
        isinstance(command, list)
        and command
        and all(isinstance(word, str) for word in command)
        and command[0]
    ):
        return shlex.join(command)[:_MAX_COMMAND]
    raise InvalidRequest("command: a text or a list of texts is needed.", code="bad_exec_request")
