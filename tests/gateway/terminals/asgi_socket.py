"""A WebSocket client of an ASGI application in this process, that can stop reading."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import unquote, urlsplit

from underpass.core.supervisor import Supervisor


class Closed(Exception):
    """The server closed the socket (or refused it: then ``status`` is the HTTP status)."""

    def __init__(self, code: int, reason: str = "", status: int | None = None) -> None:
        super().__init__(f"{code} {reason} {status or ''}")
        self.code = code
        self.reason = reason
        self.status = status


class AsgiSocket:
    """One connection. The server's ``send`` waits while :attr:`reading` is not set."""

    def __init__(self, app: Any, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": parts.scheme or "ws",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [
                (key.lower().encode(), value.encode())
                for key, value in {"host": parts.netloc or "test", **(headers or {})}.items()
            ],
            "client": ("192.0.2.7", 4711),
            "server": ("test", 80),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self._app = app
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.accepted = False
        self.done = asyncio.Event()
        self.gone = False
        self._status: int | None = None

    def start(self, supervisor: Supervisor) -> AsgiSocket:
        self._to_app.put_nowait({"type": "websocket.connect"})
        supervisor.start(self._run(), "socket")
        return self

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self._to_app.get, self._send)
        finally:
            self._from_app.put_nowait({"type": "over"})
            self.done.set()

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if self.gone:
            raise OSError("the client is gone")
        if message["type"] == "websocket.accept":
            self.accepted = True
        elif message["type"] == "websocket.http.response.start":
            self._status = message["status"]
        elif message["type"] == "websocket.http.response.body":
            self._from_app.put_nowait({"type": "websocket.close", "code": 1006})
        else:
            self._from_app.put_nowait(message)

    # -- as a client ------------------------------------------------------------------------------

    def say(self, kind: str, **fields: Any) -> None:
        self.text(json.dumps({"type": kind, **fields}))

    def text(self, text: str) -> None:
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def type(self, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    def drop(self) -> None:
        """The connection is lost."""
        self.gone = True
        self.reading.set()
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def receive(self, timeout: float = 10.0) -> bytes | dict[str, Any]:
        async with asyncio.timeout(timeout):
            message = await self._from_app.get()
        if message["type"] == "websocket.close":
            raise Closed(message.get("code", 1000), message.get("reason") or "", self._status)
        if message["type"] == "over":
            raise Closed(1006, "the application returned")
        if message.get("bytes") is not None:
            return bytes(message["bytes"])
        return dict(json.loads(message["text"]))


class Screen:
    """A terminal client: grants credit as it reads, keeps output and controls."""

    def __init__(self, socket: AsgiSocket, *, offset: int = 0, credit: bool = True) -> None:
        self.socket = socket
        self.output = bytearray()
        self.controls: list[dict[str, Any]] = []
        self.offset = offset
        self.credit = credit
        self.closed: Closed | None = None

    async def step(self, timeout: float = 10.0) -> None:
        try:
            message = await self.socket.receive(timeout)
        except Closed as closed:
            self.closed = closed
            return
        if isinstance(message, bytes):
            self.output += message
            self.offset += len(message)
            if self.credit:
                self.socket.say("credit", bytes=len(message))
            return
        if message.get("type") == "resumed":
            self.offset = message["offset"]
        self.controls.append(message)

    async def until(self, needle: bytes, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while needle not in self.output:
                assert self.closed is None, (self.closed, self.controls, bytes(self.output[-400:]))
                await self.step(timeout)

    async def control(self, key: str, timeout: float = 10.0) -> dict[str, Any]:
        """The first control of type *key* (or with that field); reads until it is there."""
        async with asyncio.timeout(timeout):
            while True:
                for control in self.controls:
                    if control.get("type") == key or key in control:
                        return control
                assert self.closed is None, (key, self.closed, self.controls)
                await self.step(timeout)

    async def end(self, timeout: float = 10.0) -> Closed:
        async with asyncio.timeout(timeout):
            while self.closed is None:
                await self.step(timeout)
        return self.closed
