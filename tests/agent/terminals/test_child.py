"""The child's own steps, run here with the system calls replaced."""

from __future__ import annotations

import fcntl
import os

import pytest

from underpass.agent.terminals import child


class Exited(Exception):
    pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    made: list[tuple[str, object]] = []

    def note(name: str):
        return lambda *arguments: made.append((name, arguments))

    for name in ("setgroups", "setgid", "setuid", "chdir", "execve", "set_inheritable", "umask"):
        monkeypatch.setattr(os, name, note(name))
    monkeypatch.setattr(fcntl, "ioctl", note("ioctl"))
    monkeypatch.setattr(child.signals, "signal", lambda number, handler: None)
    monkeypatch.setattr(child.signals, "pthread_sigmask", note("pthread_sigmask"))

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", leave)
    return made


def run(*arguments: str) -> str:
    reader, writer = os.pipe()
    try:
        with pytest.raises(Exited):
            child.become([str(writer), *arguments])
    finally:
        os.close(writer)
    with os.fdopen(reader) as file:
        return file.read()


def test_steps_in_order(calls: list[tuple[str, object]]) -> None:
    assert run("-", "-", "-", "-", "/home", "/bin/sh", "-sh") == ""
    names = [name for name, _ in calls]
    assert names == ["set_inheritable", "pthread_sigmask", "ioctl", "umask", "chdir", "execve"]
    assert calls[-1][1] == ("/bin/sh", ["-sh"], os.environ)


def test_what_the_interpreter_set_for_itself_is_unset(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    assert run("-", "-", "-", "LC_CTYPE", "/", "/bin/sh", "sh") == ""
    assert "LC_CTYPE" not in os.environ


def test_groups_before_user(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("getuid", "geteuid", "getegid"):
        monkeypatch.setattr(os, name, lambda: 7)
    assert run("7", "7", "7,8", "-", "/", "/bin/sh", "sh") == ""
    assert [name for name, _ in calls if name.startswith("setg") or name == "setuid"] == [
        "setgroups",
        "setgid",
        "setuid",
    ]


def test_privileges_that_stay_are_an_error(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert run("7", "7", "7", "-", "/", "/bin/sh", "sh") == "login: privileges were not dropped"
    assert "execve" not in [name for name, _ in calls]


def test_a_failure_names_its_step(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", fail)
    assert run("-", "-", "-", "-", "/", "/bin/sh", "sh") == (
        "controlling terminal: Inappropriate ioctl for device"
    )


def test_signals_that_cannot_be_reset_do_not_matter(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, handler: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(child.signals, "signal", refuse)
    assert run("-", "-", "-", "-", "/", "/bin/sh", "sh") == ""
