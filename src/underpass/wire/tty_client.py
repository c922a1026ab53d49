"""The client's side of a terminal socket, without a socket: resume, credit, input, escapes.

Feed :class:`TtyClient` what happens (connected, message received, keys typed, window resized,
connection lost) and do what it answers: send, write to the screen, tell the person, end. The
protocol is that of ``/api/v1/tty/ws`` (spec 1 "Opening a terminal", spec 7 "Terminal socket").
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

__all__ = ["MAX_PENDING_INPUT", "Command", "End", "Retry", "Say", "Send", "TtyClient", "Write"]

MAX_PENDING_INPUT = 64 * 1024
"""Typed bytes kept until the agent has taken them; beyond it no more keys are read."""
CREDIT_STEP = 32 * 1024
"""Written bytes that are granted back in one message; an eighth of the server's first window."""
MAX_CONTROL = 64 * 1024
"""Longer control messages are ignored."""

_FINAL_CLOSES: dict[int, str] = {
    1000: "",
    1008: "The gateway ended the connection.",
    4400: "The gateway could not make sense of this client; is it an older version?",
    4401: "The login is no longer valid; run: underpass login",
    4403: "You may no longer use this machine.",
    4404: "The session is gone.",
    4409: "The session is not in a state that allows this.",
    4502: "The machine is lost, and the session with it.",
}
"""Close codes after which coming back is no use (spec 7); everything else is tried again."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message: text as text, bytes as binary."""

    data: bytes | str


@dataclass(frozen=True, slots=True)
class Write:
    """Put these bytes on the screen, then call :meth:`TtyClient.written` with their number."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the person this, outside of the terminal's own output."""

    text: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Close the socket and connect again."""


@dataclass(frozen=True, slots=True)
class End:
    """It is over.

    Attributes:
        status: the exit status to end with.
        text: why, for the person; empty for an ordinary end.
    """

    status: int
    text: str = ""


Command = Send | Write | Say | Retry | End

OWN_FAILURE = 255
"""Exit status when not the remote program but Underpass failed (as with ssh)."""


class TtyClient:
    """One terminal session as its user sees it, over any number of sockets.

    Args:
        escapes: understand ``~.`` (end), ``~~`` and ``~?`` at the start of a line.
        read_only: an observer: nothing typed is sent.
        session_id: the session to watch or come back to; None begins a new one.
        offset: output bytes of that session seen already.
    """

    def __init__(
        self,
        *,
        escapes: bool = True,
        read_only: bool = False,
        session_id: str | None = None,
        offset: int = 0,
    ) -> None:
        self.session_id = session_id
        self.offset = offset
        """Output bytes received since the session began: where to go on after a loss."""
        self.status: Literal["connecting", "greeting", "live", "ended"] = "connecting"
        self._escapes = escapes and not read_only
        self._read_only = read_only
        self._resuming = False
        self._size: tuple[int, int] | None = None
        self._sent_size: tuple[int, int] | None = None
        self._unacked = bytearray()  # typed and not yet taken by the agent
        self._input_base = 0  # session offset of its first byte
        self._sent = 0  # of them, how many went out on this socket
        self._owed = 0  # written bytes not granted back yet
        self._line_start = True
        self._tilde = False
        self._fault: str = ""
        self._asked_again = False  # a 4401 was answered with a fresh ticket already
        self._agent_lost = False

    # -- the socket ------------------------------------------------------------------------------

    def connected(self, token: str) -> list[Command]:
        """A socket is open; *token* is the ticket (observers: the access token)."""
        self.status = "greeting"
        self._owed = 0
        self._sent = 0
        self._sent_size = None
        commands: list[Command] = [_control("auth", token=token)]
        self._resuming = self.session_id is not None and not self._read_only
        if self._resuming:
            commands.append(_control("resume", session_id=self.session_id, offset=self.offset))
        return commands

    def received(self, message: bytes | str) -> list[Command]:
        """A message came: bytes are output, text is control."""
        if self.status == "ended":
            return []
        if isinstance(message, bytes):
            self.offset += len(message)
            return [Write(message)] if message else []
        control = _parse(message)
        return [] if control is None else list(self._controlled(control))

    def written(self, count: int) -> list[Command]:
        """*count* bytes have reached the screen; the server may send as many more."""
        self._owed += count
        if self._owed < CREDIT_STEP or self.status not in ("greeting", "live"):
            return []
        owed, self._owed = self._owed, 0
        return [_control("credit", bytes=owed)]

    def lost(self, close_code: int | None, reason: str = "") -> list[Command]:
        """The socket is gone, with the peer's *close_code* if it gave one."""
        if self.status == "ended":
            return []
        if close_code == 4401 and self.session_id is not None and not self._asked_again:
            # A ticket dies with the gateway that gave it; only a fresh one tells whether the
            # login still holds.
            self._asked_again = True
            self._fault = ""
            self.status = "connecting"
            return [Retry()]
        final = _FINAL_CLOSES.get(close_code or 0)
        if final is not None:
            return self._end(OWN_FAILURE, self._fault or reason or final or "The session ended.")
        if close_code == 4429 and self.session_id is None:
            return self._end(OWN_FAILURE, self._fault or reason or "Too many sessions.")
        self.status = "connecting"
        if self.session_id is None:
            return self._end(
                OWN_FAILURE, self._fault or reason or "The connection was lost before it began."
            )
        return [Retry()]

    # -- the person ------------------------------------------------------------------------------

    @property
    def wants_input(self) -> bool:
        """False while so much is typed ahead that keys should stay unread."""
        return len(self._unacked) < MAX_PENDING_INPUT

    def typed(self, data: bytes) -> list[Command]:
        """Keys were pressed. Kept until the agent has them, so a loss costs none."""
        if self.status == "ended":
            return []
        if self._read_only:
            return self._end(0) if b"\x03" in data or b"q" in data else []
        commands: list[Command] = []
        for piece in self._unescape(data) if self._escapes else (data,):
            if isinstance(piece, bytes):
                self._unacked += piece
            else:
                commands.append(piece)
                if isinstance(piece, End):
                    self.status = "ended"
                    return commands
        commands += self._flush()
        return commands

    def resized(self, cols: int, rows: int) -> list[Command]:
        """The window has a new size, in character cells."""
        self._size = (min(max(cols, 1), 1000), min(max(rows, 1), 1000))
        return self._send_size()

    # -- inside ----------------------------------------------------------------------------------

    def _controlled(self, control: dict[str, Any]) -> Iterator[Command]:
        kind = control.get("type")
        if self.status == "greeting" and kind in (None, "session") and "session_id" in control:
            yield from self._greeted(str(control["session_id"]))
        elif kind == "resumed":
            yield from self._resumed(control)
        elif kind == "ack":
            self._acknowledged(_number(control.get("input")))
        elif kind == "ping":
            yield _control("pong", t=control.get("t"))
        elif kind == "state":
            yield from self._trunk(control.get("trunk"))
        elif kind == "exit":
            yield from self._exited(control)
        elif kind == "error":
            # What it means for the socket is said by the close that follows.
            self._fault = str(control.get("message") or control.get("code") or "")

    def _greeted(self, session_id: str) -> Iterator[Command]:
        if self._resuming and session_id != self.session_id:
            yield from self._end(OWN_FAILURE, "The session is gone; its grace time is over.")
            return
        self.session_id = session_id
        if self._resuming:
            return  # input waits for `resumed`, which says how much of it has arrived
        self.status = "live"
        self._asked_again = False
        yield from self._send_size()
        yield from self._flush()

    def _resumed(self, control: dict[str, Any]) -> Iterator[Command]:
        offset = _number(control.get("offset"))
        if offset is not None:
            if offset > self.offset and (self._resuming or self.status == "live"):
                yield Say(f"{offset - self.offset} bytes of output were skipped")
            self.offset = offset
        if not self._resuming:
            return
        self._resuming = False
        taken = _number(control.get("input_offset"))
        # A gateway that does not say gets nothing twice: a key lost beats a command run twice.
        self._acknowledged(self._input_base + len(self._unacked) if taken is None else taken)
        self._sent = 0
        self.status = "live"
        self._asked_again = False
        yield Say("reconnected")
        yield from self._send_size()
        yield from self._flush()

    def _acknowledged(self, taken: int | None) -> None:
        if taken is None or taken <= self._input_base:
            return
        count = min(taken - self._input_base, len(self._unacked))
        del self._unacked[:count]
        self._sent = max(0, self._sent - count)
        self._input_base = taken

    def _trunk(self, state: object) -> Iterator[Command]:
        lost = state == "lost"
        if lost != self._agent_lost and state in ("lost", "attached"):
            self._agent_lost = lost
            yield Say("the machine's connection is lost; waiting for it" if lost else "it is back")

    def _exited(self, control: dict[str, Any]) -> Iterator[Command]:
        code, name = control.get("code"), control.get("signal")
        if isinstance(code, int) and not isinstance(code, bool):
            yield from self._end(code & 0xFF)
        elif isinstance(name, str) and name:
            yield from self._end(128 + _signal_number(name), f"The program was ended by {name}.")
        else:
            yield from self._end(OWN_FAILURE, self._fault or "How the program ended is not known.")

    def _end(self, status: int, text: str = "") -> list[Command]:
        self.status = "ended"
        return [End(status, text)]

    def _send_size(self) -> list[Command]:
        if self.status != "live" or self._read_only or self._size is None:
            return []
        if self._size == self._sent_size:
            return []
        self._sent_size = self._size
        cols, rows = self._size
        return [_control("resize", cols=cols, rows=rows)]

    def _flush(self) -> list[Command]:
        if self.status != "live" or self._sent >= len(self._unacked):
            return []
        data = bytes(self._unacked[self._sent :])
        self._sent = len(self._unacked)
        return [Send(data)]

    def _unescape(self, data: bytes) -> Iterator[bytes | Say | End]:
        """What of *data* is for the machine, with the escapes taken out."""
        plain = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte == 0x2E:  # ~.
                    yield bytes(plain)
                    yield End(OWN_FAILURE, self._left())
                    return
                if byte == 0x3F:  # ~?
                    yield Say("~. leaves, ~~ types a tilde, ~? shows this")
                    continue
                plain.append(0x7E)
                if byte == 0x7E:
                    self._line_start = False
                    continue
            elif byte == 0x7E and self._line_start:
                self._tilde = True
                continue
            plain.append(byte)
            self._line_start = byte in b"\r\n"
        yield bytes(plain)

    def _left(self) -> str:
        if self.session_id is None:
            return "Left before the session began."
        return (
            f"Left; the session lives on for its grace time. Come back: --resume {self.session_id}"
        )


def _control(kind: str, **fields: Any) -> Send:
    return Send(json.dumps({"type": kind, **fields}, separators=(",", ":")))


def _parse(text: str) -> dict[str, Any] | None:
    """The control message in *text*, or None for what is not one: it is ignored."""
    if len(text) > MAX_CONTROL:
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else None


def _number(value: object) -> int | None:
    plain = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
    return cast("int", value) if plain else None


def _signal_number(name: str) -> int:
    """15 for ``SIGTERM`` or ``TERM``; 0 for a name this system does not know."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    return int(getattr(signal, full, 0)) if full.isalnum() else 0
