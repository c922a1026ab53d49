"""One running terminal session: a pty, its flow, and whichever trunk is attached.

The deciding part is :mod:`.flow`; this is the shell around it. Reading the pty, writing to it and
serving a trunk are separate tasks on purpose: Ctrl-C must reach the program however stuck its
output is, and the program must go on however often the trunk is lost.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from underpass.agent.terminals.attachment import Attachment
from underpass.agent.terminals.flow import READ_AHEAD, SessionFlow
from underpass.agent.terminals.login import Login
from underpass.agent.terminals.pty import Pty
from underpass.agent.terminals.trunk import Trunk
from underpass.core.clock import Clock
from underpass.core.supervisor import Supervisor
from underpass.wire.terminal import Attached, Exit, Failure
from underpass.wire.terminal_requests import OpenedBy

__all__ = ["Session", "SessionFacts"]

_log = structlog.get_logger(__name__)

_DETACHED_PAUSE = 0.005  # caps a detached flood at ~13 MB/s, so it can't eat the machine
_RESIZE_PAUSE = 0.05
_LINGER = 1.0
_LINGER_TICK = 0.1
_RETRY_CLOSED_PTY = 0.2


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What does not change about a session."""

    id: str
    login: Login
    command: str
    user: OpenedBy
    started_at: float


class Session:
    """A session; made by the host, over when its program is and somebody was told.

    Args:
        facts: what it is.
        pty: its terminal; owned from now on.
        flow: its deciding part.
        clock: where the time comes from.
        supervisor: owns its tasks.
    """

    def __init__(
        self,
        facts: SessionFacts,
        pty: Pty,
        flow: SessionFlow,
        *,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        self.facts = facts
        self.flow = flow
        self.delivered = False
        """Whether a gateway has read everything to the end."""
        self.unwanted = False
        """Whether a gateway had it ended: then nobody will come for what it printed last."""
        self._pty = pty
        self._clock = clock
        self._supervisor = supervisor
        self._attachment: Attachment | None = None
        self._may_read = asyncio.Event()
        self._may_write = asyncio.Event()
        self._input_room = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: Failure | None = None
        self._ending = False
        self._wanted_size = pty.size
        self._resize_timer: asyncio.TimerHandle | None = None
        supervisor.start(self._run(), f"session {facts.id}")

    # -- what others may know -------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._pty.program.pid

    @property
    def ended(self) -> bool:
        """Whether the program is over and all of its output is in the ring."""
        return self._ended.is_set()

    def announcement(self) -> dict[str, Any]:
        """This session's entry of ``sessions.announce`` and of a heartbeat's ``tty_status``."""
        cols, rows = self._wanted_size
        entry: dict[str, Any] = {
            "session_id": self.facts.id,
            "offset": self.flow.offset,
            "input_offset": self.flow.input_offset,
            "started_at": self.facts.started_at,
            "exited": self.ended,
            "attached": self.flow.attached,
            "command": self.facts.command,
            "login": self.facts.login.name,
            "user": self.facts.user.username,
            "user_id": self.facts.user.id,
            "cols": cols,
            "rows": rows,
        }
        if self.flow.exit is not None:
            entry |= {"code": self.flow.exit.code, "signal": self.flow.exit.signal}
        return entry

    # -- ending ---------------------------------------------------------------------------------

    def terminate(self, failure: Failure | None = None) -> None:
        """End the program and all that belongs to it (≤ 5 s); returns at once.

        Args:
            failure: what the attached side is told instead of the exit status, when the end is the
                agent's own doing.
        """
        if self._failure is None:
            self._failure = failure
        # Nobody slows the end down: what is left of the output goes out whatever the credit.
        self.flow.grant(READ_AHEAD * 64)
        self._wake()
        if not self._ending and not self._ended.is_set():
            self._ending = True
            self._supervisor.start(self._pty.program.end(), f"end {self.facts.id}")

    async def wait_ended(self) -> None:
        """Wait until :attr:`ended`."""
        await self._ended.wait()

    # -- the terminal's side --------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep the pty going until the program has ended and given all of its output."""
        program = self._pty.program
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read_output())
                writer = group.create_task(self._write_input())
                await program.wait()
                self.flow.drain()
                self._may_read.set()
                if await self._drained(reader) and not self._ending:
                    # Nobody holds the terminal any more. What was put in the background with
                    # nohup lives on, as it does under sshd.
                    program.reap()
                else:
                    await program.end()
                self._pty.master.close()
                writer.cancel()
                self._may_read.set()
        finally:
            if not self._pty.master.closed:
                await asyncio.shield(self._pty.close())
            if self._resize_timer is not None:
                self._resize_timer.cancel()
            self.flow.end(program.code, program.signal)
            self._ended.set()
            self._wake()

    async def _drained(self, reader: asyncio.Task[None]) -> bool:
        """Wait for the end of the output; False when somebody keeps the terminal open too long.

        Time in which nothing may be read (the ring is full of what the trunk has not taken) does
        not count.
        """
        spent = 0.0
        while not reader.done():
            await asyncio.wait({reader}, timeout=_LINGER_TICK)
            if self.flow.read_budget() > 0:
                spent += _LINGER_TICK
            if spent >= _LINGER and not reader.done():
                return False
        return True

    async def _read_output(self) -> None:
        master = self._pty.master
        program = self._pty.program
        while not master.closed:
            got, end = 0, False
            # Linux gives at most 4 KiB a read; a flood is gathered before anybody is woken.
            while got < READ_AHEAD and (budget := self.flow.read_budget()) > 0:
                data = master.read_now(budget)
                if not data:
                    end = data is not None
                    break
                self.flow.output(data)
                got += len(data)
            if got:
                self._wake()
            if end:
                if program.ended or master.closed:
                    return
                # The program closed its terminal but lives; it may open it again.
                try:
                    await asyncio.wait_for(program.wait(), _RETRY_CLOSED_PTY)
                except TimeoutError:
                    pass
            elif self.flow.read_budget() <= 0:
                self._may_read.clear()
                await self._may_read.wait()
            elif got < READ_AHEAD:
                await master.readable()
            else:
                await asyncio.sleep(0 if self.flow.attached else _DETACHED_PAUSE)

    async def _write_input(self) -> None:
        master = self._pty.master
        while not master.closed:
            data = self.flow.next_input()
            if not data:
                self._may_write.clear()
                await self._may_write.wait()
                continue
            written = master.write_now(data)
            if written == 0:
                await master.writable()
                continue
            # None: nobody will ever read it; it counts as taken, like typing into a dead terminal.
            self.flow.took(len(data) if written is None else written)
            self._input_room.set()
            self._wake()

    def _apply_size(self) -> None:
        self._resize_timer = None
        if self._pty.resize(*self._wanted_size):
            loop = asyncio.get_running_loop()
            self._resize_timer = loop.call_later(_RESIZE_PAUSE, self._apply_size)

    # -- the trunk's side -----------------------------------------------------------------------

    def _wake(self) -> None:
        if self._attachment is not None:
            self._attachment.wake.set()

    async def serve(self, trunk: Trunk, offset: int) -> None:
        """Show the session over *trunk*, from output byte *offset* on, until either ends.

        A trunk that was attached before is ended at once. The trunk is closed when this returns.
        """
        mine = Attachment(trunk, self, self._clock)
        previous, self._attachment = self._attachment, mine
        if previous is not None:
            previous.replace()
        start = self.flow.attach(offset)
        self._may_read.set()
        self._input_room.set()
        cols, rows = self._wanted_size
        attached = Attached(
            session_id=self.facts.id,
            offset=start,
            input_offset=self.flow.input_offset,
            pid=self.pid,
            command=self.facts.command[:1024],
            login=self.facts.login.name,
            cols=cols,
            rows=rows,
        )
        try:
            if await mine.run(attached):
                self.delivered = True
        except BaseException:
            trunk.abort("detached", "The session is detached.")
            raise
        finally:
            if self._attachment is mine:
                self._attachment = None
                self.flow.detach(self._clock.monotonic())
                self._may_read.set()
        await trunk.close()

    # -- Terminal (attachment.py) ---------------------------------------------------------------

    def input_came(self) -> None:
        self._may_write.set()

    async def input_room(self) -> None:
        self._input_room.clear()
        await self._input_room.wait()

    def output_wanted(self) -> None:
        self._may_read.set()

    def resize(self, cols: int, rows: int) -> None:
        # Applied at once, but at most every 50 ms; the last one always counts.
        self._wanted_size = (cols, rows)
        if self._resize_timer is None:
            self._apply_size()

    def terminated(self, reason: str) -> None:
        _log.info("session_terminated", session=self.facts.id, reason=reason)
        self.unwanted = True
        self.terminate()

    def last_word(self) -> Exit | Failure | None:
        done = self.flow.due_exit()
        return None if done is None else self._failure or done
