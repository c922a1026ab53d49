"""Which OS login a program runs as, and the environment it gets.

The gateway may ask for a login; the machine's policy decides (``LoginAllowed``). Becoming somebody
else takes root; without it only the agent's own login is possible.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from underpass.core.errors import Conflict, Forbidden

if sys.platform != "win32":
    import grp
    import pwd

__all__ = ["Login", "LoginAllowed", "build_environment", "choose_login", "own_login"]

LoginAllowed = Callable[[str], bool]
"""Asked with an OS login's name; the agent's own login is also asked about as ``"self"``."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a program started for somebody may inherit from the agent's own environment. Everything
# else (secrets of the agent, of the service manager, of the shell it was started from) stays out.
_INHERITED = re.compile(r"LANG|LANGUAGE|LC_[A-Z]+|TZ")
# What the person's side may set, by name and value: enough for colours and language, nothing that
# makes a shell or the dynamic linker run other code (GHSA-vfxf-76hv-v4w4: "user env").
_REQUESTED = {
    "TERM": re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"),
    "COLORTERM": re.compile(r"[A-Za-z0-9-]{0,32}"),
    "NO_COLOR": re.compile(r"[A-Za-z0-9]{0,8}"),
    "LANG": re.compile(r"[A-Za-z0-9_.@-]{0,64}"),
}
_LOCALE_NAME = re.compile(r"LC_[A-Z]{1,20}")


@dataclass(frozen=True, slots=True)
class Login:
    """An account programs can run as.

    Attributes:
        name: the login name, e.g. ``deploy``.
        uid: user id.
        gid: primary group id.
        groups: all group ids, primary included.
        home: home directory; may not exist.
        shell: absolute path of the login shell.
        is_self: whether this is whom the agent itself runs as, so nothing has to be dropped.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    is_self: bool

    @property
    def directory(self) -> str:
        """Where its programs start: the home when that is a directory, otherwise ``/``."""
        return self.home if Path(self.home).is_dir() else "/"

    @property
    def drop(self) -> Login | None:
        """Itself when privileges must be dropped to become it."""
        return None if self.is_self else self


def own_login(environ: Mapping[str, str] | None = None) -> Login:
    """The login the agent runs as. ``$SHELL`` counts here, as for a person's own terminal."""
    environ = os.environ if environ is None else environ
    uid = os.geteuid()
    shell = environ.get("SHELL", "")
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        # A container started with a bare uid has no account entry.
        home = environ.get("HOME") or "/"
        return Login(
            environ.get("USER") or str(uid), uid, os.getegid(), tuple(os.getgroups()),
            home, _runnable(shell) or "/bin/sh", is_self=True,
        )  # fmt: skip
    return Login(
        entry.pw_name, uid, os.getegid(), tuple(os.getgroups()),
        environ.get("HOME") or entry.pw_dir or "/",
        _runnable(shell) or entry.pw_shell or "/bin/sh", is_self=True,
    )  # fmt: skip


def _runnable(shell: str) -> str | None:
    return shell if shell.startswith("/") and os.access(shell, os.X_OK) else None


def choose_login(
    asked: str | None,
    allowed: LoginAllowed,
    *,
    default: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Login:
    """The login to use for a request that asks for *asked*.

    May block on the system's account database (LDAP and the like): call it in a thread.

    Args:
        asked: a login name from the request; None or empty = *default*.
        allowed: the machine's policy.
        default: the login for requests that name none; None = the agent's own.
        environ: the agent's environment, for tests.

    Raises:
        Forbidden: ``login_forbidden`` (policy) or ``login_unavailable`` (the agent is not root).
        Conflict: ``login_unknown``, there is no such account; ``shell_missing``.
    """
    own = own_login(environ)
    name = asked or default or own.name
    if name in (own.name, "self"):
        if not (allowed("self") or allowed(own.name)):
            raise _forbidden(own.name)
        return _with_shell(own)
    # Policy before the account database: who may not use a login does not learn that it exists.
    if not allowed(name):
        raise _forbidden(name)
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise Conflict(
            f"This machine has no login {name!r}.", code="login_unknown",
            hint="Ask for another login, or leave it out to use the agent's own.",
        ) from None  # fmt: skip
    if entry.pw_uid == own.uid:
        return _with_shell(own)
    if own.uid != 0:
        raise Forbidden(
            f"The agent runs as {own.name!r} and cannot become {name!r}.",
            code="login_unavailable",
            hint="Run the agent as root to let it use other logins.",
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return _with_shell(
        Login(
            entry.pw_name, entry.pw_uid, entry.pw_gid, groups,
            entry.pw_dir or "/", entry.pw_shell or "/bin/sh", is_self=False,
        )
    )  # fmt: skip


def _forbidden(name: str) -> Forbidden:
    return Forbidden(
        f"This machine's policy does not allow the login {name!r}.", code="login_forbidden",
        hint="The machine's owner can allow it in the agent's policy file.",
    )  # fmt: skip


def _with_shell(login: Login) -> Login:
    if not os.access(login.shell, os.X_OK):
        raise Conflict(
            f"The shell {login.shell!r} of login {login.name!r} cannot be run.",
            code="shell_missing",
        )
    return login


def tty_group() -> int | None:
    """The group terminals belong to (``tty``), or None where there is none."""
    try:
        return grp.getgrnam("tty").gr_gid
    except KeyError:
        return None


def build_environment(
    login: Login,
    *,
    terminal: bool,
    session_id: str,
    requested: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a program started for *login*.

    Args:
        login: whom it runs as.
        terminal: whether it has a terminal (``TERM`` and ``COLORTERM`` are set then).
        session_id: shown to programs as ``UNDERPASS_SESSION``.
        requested: what the person's side asked for; names and values outside a short allow-list
            are left out silently, as ``sshd`` does with ``AcceptEnv``.
        environ: the agent's environment, for tests.
    """
    environ = os.environ if environ is None else environ
    result = {name: value for name, value in environ.items() if _INHERITED.fullmatch(name)}
    result.setdefault("LANG", "C.UTF-8")
    if terminal:
        result |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for name, value in (requested or {}).items():
        pattern = _REQUESTED.get(name)
        if pattern is None and _LOCALE_NAME.fullmatch(name):
            pattern = _REQUESTED["LANG"]
        if pattern is not None and pattern.fullmatch(value):
            result[name] = value
    path = environ.get("PATH") if login.is_self else None
    return result | {
        "PATH": path or DEFAULT_PATH,
        "HOME": login.home,
        "USER": login.name,
        "LOGNAME": login.name,
        "SHELL": login.shell,
        "UNDERPASS_SESSION": session_id,
    }
