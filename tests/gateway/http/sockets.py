"""A WebSocket opened against an ASGI application, as far as whether it is let in."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def knock(
    app: Any,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    first: str | None = None,
    scheme: str = "ws",
    timeout: float = 5.0,
) -> tuple[str, int]:
    """Open a WebSocket and see what comes first.

    Returns:
        ``("refused", HTTP status)``, ``("closed", close code)`` or ``("open", 0)``.
    """
    path, _, query = path.partition("?")
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})
    if first is not None:
        inbox.put_nowait({"type": "websocket.receive", "text": first})
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in {"host": "localhost:3000", **(headers or {})}.items()
        ],
        "client": ("192.0.2.1", 50000),
        "server": ("localhost", 3000),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    async with asyncio.timeout(timeout):
        task = asyncio.get_running_loop().create_task(app(scope, inbox.get, outbox.put))
        try:
            while True:
                message = await outbox.get()
                kind = message["type"]
                if kind == "websocket.http.response.start":
                    return "refused", message["status"]
                if kind == "websocket.close":
                    return "closed", message.get("code", 1000)
                if kind == "websocket.send" and first is not None:
                    text = message.get("text")
                    if text and json.loads(text).get("type") == "error":
                        continue
                    return "open", 0
                if kind == "websocket.accept" and first is None:
                    return "open", 0
        finally:
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
