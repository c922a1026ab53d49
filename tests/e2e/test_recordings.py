"""Recordings are true to the last second, searchable, seekable, and play in asciinema itself."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import GatewayProgram, eventually, unique
from tests.e2e.terminal import Terminal

STANDING = True


def finished(admin: httpx.Client, session_id: str) -> dict[str, object]:
    def probe() -> dict[str, object] | None:
        items = admin.get("/api/v1/recordings").json()["data"]["items"]
        for item in items:
            if item["session_id"] == session_id and item["status"] == "finished":
                return dict(item)
        return None

    return eventually(probe, 10, "the finished recording")


@pytest.mark.needs("asciinema", "script")
def test_a_recording_plays_in_asciinema(admin: httpx.Client, machine: str, tmp_path: Path) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.run("printf 'caf\\xc3\\xa9 \\xe6\\xbc\\xa2\\n'")
    terminal.control("resize", cols=90, rows=33)
    terminal.type("exit\n")
    terminal.until_control("exit")
    recording = finished(admin, terminal.session_id)
    cast = admin.get(f"/api/v1/recordings/{recording['id']}/cast")
    assert cast.headers["content-type"].startswith("application/x-asciicast")
    path = tmp_path / "session.cast"
    path.write_bytes(cast.content)
    shown = subprocess.run(
        # It insists on a controlling terminal, which `script` gives it.
        ["script", "-qec", f"asciinema cat {path}", "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "xterm"},
    )  # fmt: skip
    assert "café 漢".encode() in shown.stdout
    events = [json.loads(line) for line in cast.text.splitlines()]
    assert events[0]["version"] == 2
    assert any(event[1] == "r" and event[2] == "90x33" for event in events[1:])
    import hashlib

    assert hashlib.sha256(cast.content).hexdigest() == recording["sha256"]
    part = admin.get(f"/api/v1/recordings/{recording['id']}/cast", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == cast.content[10:20]


def test_text_search_finds_the_moment(admin: httpx.Client, machine: str) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.run("echo needle''-in-haystack")
    terminal.type("exit\n")
    terminal.until_control("exit")
    recording = finished(admin, terminal.session_id)
    found = admin.get("/api/v1/recordings", params={"text": "needle-in-haystack"}).json()["data"]
    assert [item["id"] for item in found["items"]] == [recording["id"]]
    hit = found["items"][0]["hits"][0]
    assert "needle-in-haystack" in hit["line"]
    assert 0 <= hit["time"] <= float(str(recording["duration"])) + 0.01
    assert (
        admin.get("/api/v1/recordings", params={"text": "not-there"}).json()["data"]["total"] == 0
    )


def test_kill_nine_loses_at_most_the_last_second(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.type("while :; do date +t-%s.%N; sleep 0.05; done\n")
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        terminal.step(0.2)
    gateway.kill()
    killed = time.time()
    cast = max(gateway.state.rglob("*.cast"), key=lambda path: path.stat().st_mtime)
    lines = cast.read_text(errors="strict").split("\n")
    events = [json.loads(line) for line in lines[:-1]]
    import re

    text = "".join(event[2] for event in events[1:] if event[1] == "o")
    newest = float(re.findall(r"t-(\d+\.\d+)", text)[-1])
    assert killed - newest < 1.5
    gateway.start()
    again = gateway.login()
    gateway.machine(again, "box")
    answer = again.get("/api/v1/recordings").json()["data"]["items"][0]
    assert answer["status"] in ("recording", "interrupted")
    assert again.delete(f"/api/v1/sessions/{terminal.session_id}").status_code in (200, 204)


@pytest.mark.parametrize(
    "evil", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "x" * 5000, "a/../b"]
)
def test_ids_that_are_paths_are_not_found(admin: httpx.Client, evil: str) -> None:
    for route in ("", "/cast", "/index"):
        answer = admin.get(f"/api/v1/recordings/{evil}{route}")
        assert answer.status_code in (404, 414), (evil, route, answer.status_code)
        assert "root:" not in answer.text


def test_other_peoples_recordings_do_not_exist(
    gateway: GatewayProgram, admin: httpx.Client, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.type("exit\n")
    terminal.until_control("exit")
    recording = finished(admin, terminal.session_id)
    other = gateway.add_user(admin, unique("nosy"))
    assert other.get("/api/v1/recordings").json()["data"]["total"] == 0
    for route in ("", "/cast", "/index"):
        assert other.get(f"/api/v1/recordings/{recording['id']}{route}").status_code == 404
    auditor = gateway.add_user(admin, unique("auditor"), role="auditor")
    assert auditor.get(f"/api/v1/recordings/{recording['id']}/cast").status_code == 200
