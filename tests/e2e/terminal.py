"""A client for tests that speaks ``/api/v1/tty/ws`` the way spec 1 and 7 let scripts do."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

__all__ = ["Terminal", "authorise"]

_ANSI = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*(\x07|\x1b\\)|[()].|[=>])")


def authorise(client: httpx.Client, agent_id: str, **query: Any) -> dict[str, Any]:
    """Ask for a ticket; the whole answer."""
    answer = client.get(
        f"/api/v1/assets/{agent_id}/tty/authorize",
        params={"cols": 100, "rows": 30, "command": "/bin/bash --norc --noprofile", **query},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class Terminal:
    """One socket on one session.

    Args:
        url: ``ws_url`` of the authorise answer.
        token: the ticket, or an access token for observers.
        resume: ``(session_id, offset)`` to come back to a session.
        auto_credit: grant credit for every byte as it arrives, as the console does.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        resume: tuple[str, int] | None = None,
        auto_credit: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.socket: ClientConnection = connect(
            url, max_size=None, additional_headers=headers or {}, proxy=None, legacy=True
        )
        self.output = bytearray()
        self.controls: list[dict[str, Any]] = []
        self.auto_credit = auto_credit
        self.offset = 0
        self.close_code: int | None = None
        self.socket.send(json.dumps({"type": "auth", "token": token}))
        if resume is not None:
            self.control("resume", session_id=resume[0], offset=resume[1])
            self.offset = resume[1]
        self.session_id = str(self.until_control("session_id")["session_id"])

    @classmethod
    def open(cls, client: httpx.Client, agent_id: str, **query: Any) -> Terminal:
        ticket = authorise(client, agent_id, **query)
        return cls(ticket["ws_url"], ticket["token"])

    @classmethod
    def resume_on(
        cls, client: httpx.Client, agent_id: str, session_id: str, offset: int, **options: Any
    ) -> Terminal:
        ticket = authorise(client, agent_id)
        return cls(ticket["ws_url"], ticket["token"], resume=(session_id, offset), **options)

    def control(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def type(self, text: str | bytes) -> None:
        self.socket.send(text.encode() if isinstance(text, str) else text)

    def step(self, timeout: float) -> bytes | dict[str, Any] | None:
        """The next message, or None when none came in *timeout* seconds or the socket closed."""
        try:
            message = self.socket.recv(timeout=max(0.001, timeout))
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd else 1006
            return None
        if isinstance(message, bytes):
            self.output += message
            self.offset += len(message)
            if self.auto_credit:
                # The server may have closed meanwhile; what it sent before is still here to read.
                with contextlib.suppress(ConnectionClosed):
                    self.control("credit", bytes=len(message))
            return message
        control = dict(json.loads(message))
        if control.get("type") == "resumed":
            self.offset = int(control["offset"])
        self.controls.append(control)
        return control

    def until(self, pattern: str | bytes, timeout: float = 15.0) -> re.Match[bytes]:
        """Read until the output so far matches *pattern*."""
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        deadline = time.monotonic() + timeout
        while True:
            if match := expression.search(self.plain()):
                return match
            if self.close_code is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"never saw {pattern!r} (closed: {self.close_code}, controls:"
                    f" {self.controls[-5:]}); the end of the output: {self.plain()[-600:]!r}"
                )
            self.step(deadline - time.monotonic())

    def until_control(self, key: str, timeout: float = 15.0) -> dict[str, Any]:
        """Read until a control message of type *key* (or having that field) arrived."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            for control in self.controls[seen:]:
                if control.get("type") == key or key in control:
                    return control
            seen = len(self.controls)
            if self.close_code is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"no {key!r} control (closed: {self.close_code}, controls: {self.controls})"
                )
            self.step(deadline - time.monotonic())

    def plain(self) -> bytes:
        """What was printed, without escape sequences."""
        return _ANSI.sub(b"", bytes(self.output))

    def run(self, command: str, timeout: float = 15.0) -> bytes:
        """Type *command*, wait for it to end, give what it printed."""
        marker = f"end{time.monotonic_ns()}"
        before = len(self.output)
        self.type(f"{command}; echo {marker[:4]}''{marker[4:]}\n")
        self.until(marker, timeout)
        return _ANSI.sub(b"", bytes(self.output[before:]))

    def close(self) -> None:
        self.socket.close()

    def drop(self) -> None:
        """Lose the socket without saying goodbye, as a dead network would."""
        self.socket.socket.close()
