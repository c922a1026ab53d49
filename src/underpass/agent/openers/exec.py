"""Opens the target ``exec``: one program without a terminal, its three pipes over one stream."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from underpass.agent.terminals.descriptor import Descriptor
from underpass.agent.terminals.login import Login, LoginAllowed, build_environment, choose_login
from underpass.agent.terminals.processes import Program
from underpass.core.errors import Conflict, Unavailable, UnderpassError
from underpass.links.link import Opening
from underpass.links.stream import Stream
from underpass.wire.terminal import (
    Exit,
    FrameDecoder,
    FrameType,
    Signal,
    TerminalFrameError,
    encode_control,
    frame,
)
from underpass.wire.terminal_requests import ExecRequest, parse_exec_request

if sys.platform != "win32":
    import fcntl

__all__ = ["exec_opener"]

_log = structlog.get_logger(__name__)

_CHUNK = 65536
_PIPE = 1024 * 1024
_LINGER = 2.0
_LOGIN_TIMEOUT = 10.0
_STDIN_HIGH = 256 * 1024
_EXHAUSTED = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
# What a person may send a program; SIGSTOP and the like would only hang the stream.
_SIGNALS = {
    name: getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGKILL", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


def exec_opener(
    login_allowed: LoginAllowed,
    *,
    default_login: str | None = None,
    max_running: int = 256,
    environ: Mapping[str, str] | None = None,
) -> Callable[[Opening], Awaitable[None]]:
    """The opener for programs.

    Args:
        login_allowed: the machine's policy for ``exec``.
        default_login: the login for requests that name none; None = the agent's own.
        max_running: programs at a time at most.
        environ: the environment inherited parts are taken from; the agent's own by default.
    """
    running = 0

    async def open_exec(opening: Opening) -> None:
        nonlocal running
        request = parse_exec_request(opening.meta)
        if running >= max_running:
            raise Unavailable(
                f"This machine already runs {running} programs for its users, its limit.",
                code="too_many_programs",
                retry_after=10,
            )
        running += 1
        try:
            async with asyncio.timeout(_LOGIN_TIMEOUT):
                login = await asyncio.to_thread(
                    choose_login, request.login, login_allowed,
                    default=default_login, environ=environ,
                )  # fmt: skip
            execution = _start(request, login, environ)
            _log.info(
                "exec_started",
                session=request.session_id,
                user=request.user.username,
                login=login.name,
                pid=execution.program.pid,
            )
            await execution.run(opening)
        except TimeoutError:
            raise Unavailable(
                "This machine's account database does not answer.", code="login_lookup_timeout"
            ) from None
        finally:
            running -= 1

    return open_exec


def _start(request: ExecRequest, login: Login, environ: Mapping[str, str] | None) -> _Execution:
    """Start the program as the leader of a new OS session, with three pipes.

    Unlike a terminal's program it needs nothing done between fork and exec that ``subprocess``
    cannot do in C, privilege drop included.

    Raises:
        Conflict: ``program_missing``.
        Unavailable: ``spawn_failed``.
    """
    command = request.command
    if isinstance(command, str):
        words, executable = [Path(login.shell).name, "-c", command], login.shell
    else:
        words, executable = command, None
    environment = build_environment(
        login, terminal=False, session_id=request.session_id,
        requested=request.env, environ=environ,
    )  # fmt: skip
    drop = login.drop
    try:
        process = subprocess.Popen(
            words,
            executable=executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd=login.directory,
            start_new_session=True,
            umask=0o022,
            user=None if drop is None else drop.uid,
            group=None if drop is None else drop.gid,
            extra_groups=None if drop is None else drop.groups,
        )
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise Unavailable(
                f"This machine cannot start another program: {error.strerror}.",
                code="spawn_failed",
            ) from error
        raise Conflict(
            f"The program {words[0][:256]!r} cannot be run: {error.strerror}.",
            code="program_missing",
        ) from error
    return _Execution(process)


class _Execution:
    """A running program and the stream it talks over; receives what the stream pushes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        # Duplicates, so that Popen's own file objects can be closed and forgotten.
        self._stdin = Descriptor(os.dup(process.stdin.fileno()))
        self._stdout = Descriptor(os.dup(process.stdout.fileno()))
        self._stderr = Descriptor(os.dup(process.stderr.fileno()))
        for file in (process.stdin, process.stdout, process.stderr):
            file.close()
        for descriptor in (self._stdin, self._stdout, self._stderr):
            _widen(descriptor.fileno())
        self.program = Program(process)
        self._decoder = FrameDecoder()
        self._input: deque[bytes] = deque()
        self._input_bytes = 0
        self._input_over = False
        self._may_write = asyncio.Event()
        self._lost = asyncio.Event()
        self._stream: Stream | None = None
        self._reading_at = 0.0

    async def run(self, opening: Opening) -> None:
        """Run to the end; whatever happens, nothing of it is left afterwards."""
        stream: Stream | None = None
        try:
            stream = self._stream = opening.accept()
            stream.attach(self)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._lost.wait())
                work = group.create_task(self._work(stream))
                await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
                watch.cancel()
                work.cancel()
        except* UnderpassError:
            pass  # the stream is over; what is left is to end the program
        finally:
            for descriptor in (self._stdin, self._stdout, self._stderr):
                descriptor.close()
            if self.program.ended:
                self.program.reap()
            else:
                await asyncio.shield(self.program.end())
            if stream is not None and not stream.closed:
                stream.abort("ended")

    async def _work(self, stream: Stream) -> None:
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._feed())
            output = [
                group.create_task(self._forward(self._stdout, FrameType.BYTES, stream)),
                group.create_task(self._forward(self._stderr, FrameType.STDERR, stream)),
            ]
            await self.program.wait()
            writer.cancel()
            await self._drained(output)
            for task in output:
                task.cancel()
        message = Exit(code=self.program.code, signal=self.program.signal)
        stream.write(frame(FrameType.CONTROL, encode_control(message)))
        await stream.drain()
        await stream.close()

    async def _drained(self, output: list[asyncio.Task[None]]) -> None:
        """Wait for the end of both outputs, but not for ever for a background process.

        It may hold the pipes open as long as it lives; when it has been silent for 2 s after the
        program's end (time the stream was full does not count) we stop listening. It lives on.
        """
        loop = asyncio.get_running_loop()
        self._reading_at = loop.time()
        while not all(task.done() for task in output):
            await asyncio.wait(output, timeout=0.1)
            if self._stream is not None and self._stream.full:
                self._reading_at = loop.time()
            if loop.time() - self._reading_at >= _LINGER:
                return

    async def _forward(self, source: Descriptor, kind: FrameType, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(_CHUNK):
            self._reading_at = loop.time()
            stream.send(frame(kind, data))
            if stream.full:
                await stream.drain()
            else:
                # A pipe that always has more must not keep everybody else from their turn.
                await asyncio.sleep(0)

    async def _feed(self) -> None:
        """Give the program its stdin; its end when the person's side has ended."""
        while not self._stdin.closed:
            if not self._input:
                if self._input_over:
                    self._stdin.close()
                    return
                self._may_write.clear()
                await self._may_write.wait()
                continue
            written = self._stdin.write_now(self._input[0])
            if written is None:
                # The program closed its stdin; as in a pipeline, that is its business.
                self._stdin.close()
                self._drop_input()
                return
            if written == 0:
                await self._stdin.writable()
                continue
            first = self._input.popleft()
            if written < len(first):
                self._input.appendleft(first[written:])
            self._input_bytes -= written
            if self._input_bytes < _STDIN_HIGH // 2 and self._stream is not None:
                self._stream.resume()

    def _drop_input(self) -> None:
        self._input.clear()
        self._input_bytes = 0
        if self._stream is not None:
            self._stream.resume()

    # -- Receiver (links/stream.py) -------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: frames came."""
        try:
            messages = self._decoder.feed(chunk)
        except TerminalFrameError as error:
            assert self._stream is not None
            self._stream.abort(error.code, error.message)
            self._lost.set()
            return
        for kind, message in messages:
            if kind is FrameType.BYTES and isinstance(message, bytes):
                if not self._stdin.closed:
                    self._input.append(message)
                    self._input_bytes += len(message)
            elif kind is FrameType.STDIN_EOF:
                self._input_over = True
            elif isinstance(message, Signal):
                name = message.name.upper()
                number = _SIGNALS.get(name if name.startswith("SIG") else f"SIG{name}")
                if number is not None and not self.program.ended:
                    self.program.send_group(number)
        if self._input_bytes >= _STDIN_HIGH and self._stream is not None:
            self._stream.pause()
        self._may_write.set()

    def eof(self) -> None:
        """The stream's: nothing more comes; so no more stdin."""
        self._input_over = True
        self._may_write.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: nobody is there any more, so the program must not go on."""
        self._lost.set()

    def writable(self) -> None:
        """The stream's: :meth:`_forward` waits in ``drain``, which knows."""


def _widen(fd: int) -> None:
    # Linux gives a pipe 64 KiB; more saves a turn of the loop per chunk. Not everybody may.
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
    except (AttributeError, OSError):
        return
