"""The console's files: hashed ones cached for ever, every other page is its index."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from underpass.core.errors import NotFound

__all__ = ["Console"]

DIRECTORY: Final = Path(__file__).parent.parent / "console"
_NOT_PAGES: Final = ("/api/", "/.well-known/", "/assets/")
_IMMUTABLE: Final = "public, max-age=31536000, immutable"

_NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Underpass</title>
<body style="font: 16px/1.5 system-ui; max-width: 40em; margin: 4em auto; padding: 0 1em">
<h1>The gateway runs; its console is not built yet</h1>
<p>In a clone, <code>make run</code> builds it and starts the gateway. By hand:</p>
<pre>npm --prefix web ci &amp;&amp; npm --prefix web run build</pre>
<p>Then load this page again. Looked for it in <code>{directory}</code>.
The API works without it: see <a href="/openapi.json">/openapi.json</a>.</p>
"""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    compressed: Path | None


class Console:
    """An ASGI application for every path no route has; set as the router's default.

    The files are listed once, so a request names one of them or none: there is no path to escape
    from.
    """

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotFound("There is nothing at this address.")
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(404)
        response = self.answer(scope["path"], Headers(scope=scope))
        await response(scope, receive, send)

    def answer(self, path: str, headers: Headers) -> Response:
        """The answer to a GET of *path*.

        Raises:
            HTTPException: 404, for what looks like an API route or a missing file.
        """
        if not self._files:
            self._files = _listing(self._directory)
        if path in self._files and path != "/index.html":
            return self._send(path, headers)
        if (path + "/").startswith(_NOT_PAGES) or "." in path.rpartition("/")[2]:
            raise HTTPException(404)
        if "/index.html" in self._files:
            return self._send("/index.html", headers)
        page = _NOT_BUILT.format(directory=html.escape(str(self._directory)))
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    def _send(self, name: str, headers: Headers) -> Response:
        file = self._files[name]
        cache = _IMMUTABLE if name.startswith("/assets/") else "no-cache"
        extra = {"Cache-Control": cache}
        path = file.path
        if file.compressed is not None:
            extra["Vary"] = "Accept-Encoding"
            if "gzip" in headers.get("accept-encoding", "") and "range" not in headers:
                path = file.compressed
                extra["Content-Encoding"] = "gzip"
        response = FileResponse(
            path, headers=extra, media_type=_MEDIA.get(Path(name).suffix), stat_result=path.stat()
        )
        if headers.get("if-none-match") == response.headers.get("etag"):
            kept = {"ETag": response.headers["etag"], "Cache-Control": cache}
            return Response(status_code=304, headers=kept)
        return response


_MEDIA: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


def _listing(directory: Path) -> dict[str, _File]:
    if not (directory / "index.html").is_file():
        return {}
    found: dict[str, _File] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".gz":
            compressed = path.with_name(path.name + ".gz")
            found["/" + path.relative_to(directory).as_posix()] = _File(
                path, compressed if compressed.is_file() else None
            )
    return found
