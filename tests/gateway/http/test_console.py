"""The console's files: cached when hashed, compressed when there is a copy, and nothing else."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from underpass.gateway.http.console import Console
from underpass.gateway.http.envelope import install_error_handlers


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    built = tmp_path / "console"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text("<!doctype html><title>Underpass</title>")
    (built / "assets" / "app-1a2b.js").write_text("let x = 1;" * 100)
    (built / "assets" / "app-1a2b.js.gz").write_bytes(gzip.compress(b"let x = 1;" * 100))
    (built / "icon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("secret")
    (built / "link.txt").symlink_to(tmp_path / "secret.txt")
    return built


def _client(directory: Path) -> httpx.AsyncClient:
    app = Starlette()
    app.router.default = Console(directory)
    install_error_handlers(app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gw")


async def test_hashed_files_are_kept_for_ever_and_the_index_is_not(directory: Path) -> None:
    async with _client(directory) as client:
        script = await client.get("/assets/app-1a2b.js", headers={"Accept-Encoding": "identity"})
        assert "immutable" in script.headers["cache-control"]
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["vary"] == "Accept-Encoding"
        index = await client.get("/")
        assert index.headers["cache-control"] == "no-cache"
        assert "Underpass" in index.text
        again = await client.get("/", headers={"If-None-Match": index.headers["etag"]})
        assert again.status_code == 304
        assert (await client.get("/icon.svg")).headers["content-type"] == "image/svg+xml"


async def test_a_compressed_copy_is_sent_to_who_takes_it(directory: Path) -> None:
    async with _client(directory) as client:
        packed = await client.get("/assets/app-1a2b.js", headers={"Accept-Encoding": "br, gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.text == "let x = 1;" * 100
        part = await client.get(
            "/assets/app-1a2b.js", headers={"Accept-Encoding": "gzip", "Range": "bytes=0-3"}
        )
        assert part.status_code == 206
        assert part.content == b"let "


@pytest.mark.parametrize("path", ["/machines", "/machines/abc", "/setup", "/index.html", "/a/b/c"])
async def test_pages_are_the_index(directory: Path, path: str) -> None:
    async with _client(directory) as client:
        answer = await client.get(path)
        assert (answer.status_code == 200) == (path != "/index.html")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/x", "/api", "/.well-known/x", "/assets/", "/assets/none.js", "/none.js",
        "/../secret.txt", "/%2e%2e/secret.txt", "/assets/..%2f..%2fsecret.txt", "/link.txt",
        "/..%5csecret.txt", "/assets/app-1a2b.js.gz", "//etc/passwd.txt", "/icon.svg/x.y",
    ],
)  # fmt: skip
async def test_nothing_else_is_there(directory: Path, path: str) -> None:
    async with _client(directory) as client:
        answer = await client.get(path)
        assert answer.status_code == 404
        assert "secret" not in answer.text


async def test_only_reading(directory: Path) -> None:
    async with _client(directory) as client:
        assert (await client.head("/")).status_code == 200
        assert (await client.post("/machines")).status_code == 404


async def test_without_a_build_a_page_says_how_to_make_one(tmp_path: Path) -> None:
    async with _client(tmp_path / "nothing") as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert "make run" in answer.text
        assert answer.headers["cache-control"] == "no-store"
        (tmp_path / "nothing").mkdir()
        (tmp_path / "nothing" / "index.html").write_text("built")
        assert (await client.get("/")).text == "built", "no restart needed"
