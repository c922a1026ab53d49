"""A real gateway in a thread, a home of its own, and the commands run in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from underpass.cli.main import run
from underpass.core.logging import configure_logging
from underpass.core.settings import GatewaySettings
from underpass.gateway.serve import Gateway

USER = "ana"
PASSWORD = "correct horse battery"


class RunningGateway:
    """A gateway on a loop of its own, so that commands may run loops, too."""

    def __init__(self, state: Path) -> None:
        settings = GatewaySettings.load(
            listen="127.0.0.1:0", state=state, local_agent=False,
            admin_user=USER, admin_password=PASSWORD,
        )  # fmt: skip
        self._gateway = Gateway(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._gateway.start())
        self.url = f"http://127.0.0.1:{self._gateway.services.port}"

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self._call(self._gateway.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """The gateway's log is not part of what commands print."""
    configure_logging("critical")


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    running = RunningGateway(tmp_path_factory.mktemp("gateway") / "state")
    yield running
    running.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own; nothing of the developer's leaks in."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    for name in (
        "UNDERPASS_SERVER", "UNDERPASS_TOKEN", "UNDERPASS_FINGERPRINT", "UNDERPASS_CONFIG_DIR",
        "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return directory


class Result:
    """What a command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def underpass(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command line in this process."""

    def call(*arguments: str) -> Result:
        capfd.readouterr()
        status = run(list(arguments))
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def signed_in(
    gateway: RunningGateway, underpass: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The same, after ``underpass login``."""
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    result = underpass("login", gateway.url, "-u", USER, "--password-stdin")
    assert result.status == 0, result.err
    return underpass
