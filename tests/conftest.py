"""What every test shares: asyncio as the only backend, and ``needs`` as the only way to skip.

``UNDERPASS_NO_SKIPS=1`` (set by ``.ci/run``) turns any skip into a failed run.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import os
import re
import shutil
import sys
from collections import Counter
from typing import Any

import pytest
import structlog

pytest_plugins = ["tests.services"]

_NEEDS = re.compile(r"needs ([\w.+-]+)'")
_PACKAGES = {
    "dig": "bind9-dnsutils",
    "mariadbd": "mariadb-server",
    "initdb": "postgresql",
    "nc": "netcat-openbsd",
    "nginx": "nginx-light",
    "psql": "postgresql-client",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "scp": "openssh-client",
    "systemd-analyze": "systemd",
}


_configure = structlog.configure


class _Stderr(io.StringIO):
    """What is ``sys.stderr`` at the moment, as for the real programs."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def pytest_configure() -> None:
    """Loggers do as the last ``configure`` said: those that keep to the first one they met, as in
    the real programs, would make one test's settings those of others."""

    def configure(**settings: Any) -> None:
        _configure(**{**settings, "cache_logger_on_first_use": False})

    structlog.configure = configure


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Plain tracebacks in what is logged, as the real programs have them.

    structlog's own draw every local variable: four seconds for one under load, in which nothing
    else runs in the event loop, and every deadline of the test passes.
    """
    _configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.WriteLoggerFactory(file=_Stderr()),
        cache_logger_on_first_use=False,
    )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """End an async test that hangs from inside its loop, with a traceback that says where; what
    hangs elsewhere pytest-timeout ends together with its process."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return
    mark = pyfuncitem.get_closest_marker("timeout")
    seconds = float(mark.args[0] if mark and mark.args else pyfuncitem.config.getini("timeout"))

    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(seconds * 0.9):
            return await test(*args, **kwargs)

    pyfuncitem.obj = limited


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip a test marked ``needs("program")`` when the program is missing; CI fails on any skip.

    Test processes take files in this order (``--no-loadscope-reorder``): first those of tests/e2e,
    so that what is left at the end is short.
    """
    if hasattr(config, "workerinput"):
        sizes = Counter(item.path for item in items)
        items.sort(key=lambda item: ("e2e" not in item.path.parts, -sizes[item.path]))
    for item in items:
        for mark in item.iter_markers("needs"):
            for program in mark.args:
                if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
                    item.add_marker(pytest.mark.skip(reason=f"needs {program}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each missing program, with the command that gets it."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for program in sorted({match[1] for text in skipped if (match := _NEEDS.search(text))}):
        count = sum(f"needs {program}'" in text for text in skipped)
        package = _PACKAGES.get(program, program)
        terminalreporter.write_line(
            f"skipped: needs {program} ({count} tests; Debian, Ubuntu: apt-get install {package})"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("UNDERPASS_NO_SKIPS") or hasattr(session.config, "workerinput"):
        return
    if exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
