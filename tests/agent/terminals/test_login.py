"""Which login, with which environment: policy first, then the account database."""

from __future__ import annotations

import os
import pwd

import pytest

from underpass.agent.terminals import login as logins
from underpass.agent.terminals.login import Login, build_environment, choose_login, own_login
from underpass.core.errors import Conflict, Forbidden

OWN = pwd.getpwuid(os.geteuid())


def code(error: pytest.ExceptionInfo[Forbidden] | pytest.ExceptionInfo[Conflict]) -> str:
    return error.value.code


@pytest.mark.parametrize("asked", [None, "", "self", OWN.pw_name])
def test_the_agents_own_login(asked: str | None) -> None:
    login = choose_login(asked, lambda name: name == "self", environ={"SHELL": "/bin/sh"})
    assert login.is_self
    assert login.drop is None
    assert (login.name, login.uid) == (OWN.pw_name, OWN.pw_uid)
    assert login.shell == "/bin/sh"


def test_an_own_login_allowed_by_name_is_enough() -> None:
    assert choose_login(None, lambda name: name == OWN.pw_name).is_self


def test_a_shell_that_is_none_is_not_taken_from_the_environment() -> None:
    for shell in ("bash", "/nonexistent/sh", ""):
        assert own_login({"SHELL": shell}).shell == OWN.pw_shell


def test_policy_comes_before_the_account_database() -> None:
    for name in ("no-such-login", "nobody"):
        with pytest.raises(Forbidden) as caught:
            choose_login(name, lambda name: name == "self")
        assert code(caught) == "login_forbidden"
    with pytest.raises(Forbidden) as caught:
        choose_login(None, lambda name: False)
    assert code(caught) == "login_forbidden"


@pytest.mark.parametrize("name", ["no-such-login", "a b;c", "x" * 64, "é\ud800"])
def test_an_unknown_login_is_refused_clearly(name: str) -> None:
    with pytest.raises(Conflict) as caught:
        choose_login(name, lambda name: True)
    assert code(caught) == "login_unknown"


def test_only_root_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("daemon").pw_uid)
    with pytest.raises(Forbidden) as caught:
        choose_login("nobody", lambda name: True)
    assert code(caught) == "login_unavailable"


def test_a_bare_uid_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    login = own_login({"HOME": "/tmp"})
    assert (login.name, login.home, login.shell) == ("54321", "/tmp", "/bin/sh")


def test_a_default_login_of_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    login = choose_login(None, lambda name: name == "nobody", default="nobody")
    assert login.name == "nobody"
    assert login.drop is login
    assert login.gid in login.groups


def test_a_login_without_a_shell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Conflict) as caught:
        choose_login(None, lambda name: True, environ={})
    assert code(caught) == "shell_missing"


def someone(*, is_self: bool) -> Login:
    return Login("ann", 1000, 1000, (1000,), "/nonexistent/ann", "/bin/zsh", is_self)


def test_the_environment_is_an_allow_list() -> None:
    environ = {
        "PATH": "/opt/bin",
        "LANG": "cs_CZ.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "UNDERPASS_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "LD_PRELOAD": "/evil.so",
        "HOME": "/root",
    }
    assert build_environment(
        someone(is_self=True), terminal=True, session_id="s1", environ=environ
    ) == {
        "PATH": "/opt/bin",
        "LANG": "cs_CZ.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "HOME": "/nonexistent/ann",
        "USER": "ann",
        "LOGNAME": "ann",
        "SHELL": "/bin/zsh",
        "UNDERPASS_SESSION": "s1",
    }


def test_another_login_does_not_get_the_agents_path() -> None:
    result = build_environment(
        someone(is_self=False), terminal=False, session_id="s", environ={"PATH": "/root/bin"}
    )
    assert result["PATH"] == logins.DEFAULT_PATH
    assert result["LANG"] == "C.UTF-8"
    assert "TERM" not in result


def test_a_person_sets_colours_and_language_only() -> None:
    requested = {
        "TERM": "screen-256color",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "LANG": "() { :; }; echo owned",
        "COLORTERM": "../../x",
        "BASH_ENV": "/tmp/evil",
        "LD_PRELOAD": "/tmp/evil.so",
        "PATH": "/tmp/evil",
        "PS1": "$(id)",
    }
    result = build_environment(
        someone(is_self=True), terminal=True, session_id="s", requested=requested, environ={}
    )
    assert result["TERM"] == "screen-256color"
    assert result["LC_ALL"] == "C.UTF-8"
    assert result["NO_COLOR"] == "1"
    assert result["LANG"] == "C.UTF-8"
    assert result["COLORTERM"] == "truecolor"
    assert result["PATH"] == logins.DEFAULT_PATH
    assert not {"BASH_ENV", "LD_PRELOAD", "PS1"} & set(result)


def test_a_missing_home_means_the_root_directory() -> None:
    assert someone(is_self=True).directory == "/"


def test_the_terminals_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(logins.tty_group(), int)

    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(logins.grp, "getgrnam", missing)
    assert logins.tty_group() is None
