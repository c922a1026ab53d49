"""The agent as a system service: writes, starts and removes a systemd unit or a launchd job.

Root installs for the machine, anybody else for themselves. A join token is kept apart, in a file
only its owner reads; every other flag stands in the unit, so that ``systemctl cat`` tells all.
"""

from __future__ import annotations

import os
import platform
import plistlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from underpass.core.errors import InvalidRequest, Unavailable
from underpass.core.whole_file import replace_file

__all__ = ["Manager", "Service", "ServicePlan", "detect_manager", "plist", "unit"]

UNIT_NAME = "underpass-agent.service"
LABEL = "io.underpass.agent"
Manager = Literal["systemd", "launchd"]
Runner = Callable[[list[str]], str]
"""Runs a command and gives its output; raises :class:`Unavailable` when it fails."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What is to run.

    Attributes:
        command: the program and its arguments, absolute.
        secrets: environment variables that must not stand in the unit (``UNDERPASS_JOIN``).
        system: for the machine (root) or for this user.
        home: the user's home directory.
    """

    command: list[str]
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    system: bool = True
    home: Path = Path("/root")

    @property
    def unit_path(self) -> Path:
        base = Path("/etc/systemd/system") if self.system else self.home / ".config/systemd/user"
        return base / UNIT_NAME

    @property
    def plist_path(self) -> Path:
        base = Path("/Library/LaunchDaemons") if self.system else self.home / "Library/LaunchAgents"
        return base / f"{LABEL}.plist"

    @property
    def secrets_path(self) -> Path:
        base = Path("/etc/underpass") if self.system else self.home / ".config/underpass"
        return base / "agent.env"


def unit(plan: ServicePlan) -> str:
    """The systemd unit."""
    target = "multi-user.target" if plan.system else "default.target"
    return "\n".join(
        [
            "# Written by `underpass agent install`; `underpass agent uninstall` removes it.",
            "[Unit]",
            "Description=Underpass agent",
            "Wants=network-online.target",
            "After=network-online.target",
            # It retries for ever by itself; systemd need not count its restarts.
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=simple",
            f"EnvironmentFile=-{_quoted(str(plan.secrets_path))}",
            f"ExecStart={' '.join(_quoted(word) for word in plan.command)}",
            "Restart=always",
            "RestartSec=5",
            # 3: refused for good; trying again would change nothing.
            "RestartPreventExitStatus=2 3",
            # The shells are children: on a restart of the agent they are meant to end with it.
            "KillMode=control-group",
            "TimeoutStopSec=20",
            "",
            "[Install]",
            f"WantedBy={target}",
            "",
        ]
    )


def _quoted(word: str) -> str:
    """*word* for a systemd command line: quotes, and ``%`` and ``$`` doubled (systemd.service)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped and all(c.isalnum() or c in "/._-=:@,+%$" for c in escaped)
    return escaped if plain else f'"{escaped}"'


def plist(plan: ServicePlan) -> bytes:
    """The launchd job."""
    logs = Path("/var/log") if plan.system else plan.home / "Library/Logs"
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(plan.command),
            "EnvironmentVariables": dict(plan.secrets),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "StandardErrorPath": str(logs / "underpass-agent.log"),
        }
    )


def detect_manager() -> Manager:
    """The service manager of this machine.

    Raises:
        Unavailable: neither systemd nor launchd runs here.
    """
    if platform.system() == "Darwin":
        return "launchd"
    if Path("/run/systemd/system").is_dir() and shutil.which("systemctl"):
        return "systemd"
    raise Unavailable(
        "Neither systemd nor launchd runs on this machine.",
        code="no_service_manager",
        hint="Have your own service manager run: underpass agent",
    )


def run(command: list[str]) -> str:
    """Run *command*; gives what it printed.

    Raises:
        Unavailable: it is missing, hangs or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} does not run: {error}.", code="service_failed") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(
            f"`{' '.join(command)}` failed: {said[-1] if said else done.returncode}.",
            code="service_failed",
        )
    return done.stdout


class Service:
    """One installed (or to be installed) agent service.

    Args:
        plan: what runs.
        manager: which service manager.
        runner: what runs its commands; replaced in tests.
    """

    def __init__(self, plan: ServicePlan, manager: Manager, runner: Runner = run) -> None:
        self.plan = plan
        self.manager = manager
        self._run = runner

    @property
    def path(self) -> Path:
        """The unit or job file."""
        return self.plan.unit_path if self.manager == "systemd" else self.plan.plist_path

    def install(self, *, start: bool = True) -> None:
        """Write the files and, unless told otherwise, start the service now and at every boot.

        Raises:
            InvalidRequest: a file can't be written. Unavailable: the service manager refused.
        """
        if self.manager == "systemd":
            secrets = "".join(f"{key}={value}\n" for key, value in self.plan.secrets.items())
            if secrets:
                _write(self.plan.secrets_path, secrets.encode(), 0o600)
            _write(self.path, unit(self.plan).encode(), 0o644)
            if start:
                self._systemctl("daemon-reload")
                self._systemctl("enable", UNIT_NAME)
                self._systemctl("restart", UNIT_NAME)
            return
        _write(self.path, plist(self.plan), 0o600)
        if start:
            # An earlier one has to go first; that there is none is no failure.
            self._tolerant("launchctl", "bootout", f"{self._domain}/{LABEL}")
            self._run(["launchctl", "bootstrap", self._domain, str(self.path)])

    def uninstall(self) -> bool:
        """Stop the service and remove its files; the agent's state directory stays.

        Returns:
            whether there was one.
        """
        existed = self.path.exists()
        if self.manager == "systemd":
            if existed:
                self._tolerant(*self._systemctl_command("disable", "--now", UNIT_NAME))
        else:
            self._tolerant("launchctl", "bootout", f"{self._domain}/{LABEL}")
        self.path.unlink(missing_ok=True)
        self.plan.secrets_path.unlink(missing_ok=True)
        if existed and self.manager == "systemd":
            self._tolerant(*self._systemctl_command("daemon-reload"))
        return existed

    @property
    def _domain(self) -> str:
        return "system" if self.plan.system else f"gui/{os.getuid()}"

    def _systemctl_command(self, *words: str) -> list[str]:
        return ["systemctl", *([] if self.plan.system else ["--user"]), *words]

    def _systemctl(self, *words: str) -> None:
        self._run(self._systemctl_command(*words))

    def _tolerant(self, *command: str) -> None:
        try:
            self._run(list(command))
        except Unavailable:
            pass  # already stopped, or never started; the files go either way


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, mode)
    except OSError as error:
        raise InvalidRequest(
            f"Can't write {path}: {error.strerror}.",
            code="unwritable",
            hint="Run it as root to install for the machine.",
        ) from None
