"""The agent's service: what is written, who may read it, what the service manager is told."""

from __future__ import annotations

import plistlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from underpass.agent.service import Service, ServicePlan, detect_manager, plist, run, unit
from underpass.core.errors import InvalidRequest, Unavailable


class Manager:
    """Notes what it is told; fails for the words given."""

    def __init__(self, *failing: str) -> None:
        self.told: list[str] = []
        self._failing = failing

    def __call__(self, command: list[str]) -> str:
        self.told.append(" ".join(command))
        if any(word in command for word in self._failing):
            raise Unavailable("no", code="service_failed")
        return ""


@pytest.fixture
def plan(tmp_path: Path) -> ServicePlan:
    return ServicePlan(
        ["/opt/my programs/underpass", "agent", "--name", 'a "b" $c %d'],
        {"UNDERPASS_JOIN": "upj_secret"},
        system=False,
        home=tmp_path,
    )


def test_installing_for_a_user_with_systemd(plan: ServicePlan) -> None:
    manager = Manager()
    service = Service(plan, "systemd", manager)
    service.install()
    text = service.path.read_text()
    assert text == unit(plan)
    assert "upj_secret" not in text
    assert 'ExecStart="/opt/my programs/underpass" agent --name "a \\"b\\" $$c %%d"' in text
    assert plan.secrets_path.read_text() == "UNDERPASS_JOIN=upj_secret\n"
    assert stat.S_IMODE(plan.secrets_path.stat().st_mode) == 0o600
    assert manager.told == [
        "systemctl --user daemon-reload",
        "systemctl --user enable underpass-agent.service",
        "systemctl --user restart underpass-agent.service",
    ]


def test_a_final_refusal_is_not_restarted(plan: ServicePlan) -> None:
    assert "RestartPreventExitStatus=2 3" in unit(plan)


def test_only_writing(plan: ServicePlan) -> None:
    manager = Manager()
    Service(plan, "systemd", manager).install(start=False)
    assert plan.unit_path.exists()
    assert manager.told == []


def test_uninstalling_removes_both_files_even_when_it_never_ran(plan: ServicePlan) -> None:
    service = Service(plan, "systemd", Manager("disable"))
    service.install()
    assert service.uninstall()
    assert not service.path.exists()
    assert not plan.secrets_path.exists()
    assert not service.uninstall()


def test_launchd(plan: ServicePlan) -> None:
    manager = Manager("bootout")  # there was none before
    service = Service(plan, "launchd", manager)
    service.install()
    job = plistlib.loads(service.path.read_bytes())
    assert job["ProgramArguments"] == plan.command
    assert job["EnvironmentVariables"] == {"UNDERPASS_JOIN": "upj_secret"}
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o600
    assert manager.told[1].startswith("launchctl bootstrap gui/")
    assert service.uninstall()
    assert plistlib.loads(plist(plan))["Label"] == "io.underpass.agent"


def test_places_for_the_machine() -> None:
    plan = ServicePlan(["/x"], system=True)
    assert str(plan.unit_path) == "/etc/systemd/system/underpass-agent.service"
    assert str(plan.plist_path).startswith("/Library/LaunchDaemons/")
    assert str(plan.secrets_path) == "/etc/underpass/agent.env"
    assert "multi-user.target" in unit(plan)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("in the way")
    plan = ServicePlan(["/x"], system=False, home=tmp_path)
    with pytest.raises(InvalidRequest, match="Can't write"):
        Service(plan, "systemd", Manager()).install()


def test_commands_that_fail_say_why() -> None:
    assert run(["true"]) == ""
    with pytest.raises(Unavailable, match="says no"):
        run(["sh", "-c", "echo says no >&2; exit 1"])
    with pytest.raises(Unavailable, match="does not run"):
        run(["/nonexistent/program"])


def test_detecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert detect_manager() == "launchd"
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="Neither systemd nor launchd"):
        detect_manager()


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_unit(plan: ServicePlan, tmp_path: Path) -> None:
    sound = ServicePlan(["/bin/true", "agent"], system=True, home=tmp_path)
    path = tmp_path / "underpass-agent.service"
    path.write_text(unit(sound))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "underpass-agent.service" not in done.stderr, done.stderr
