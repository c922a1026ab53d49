"""What a machine is and how it is doing: facts for heartbeats, read in a thread."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import Any

import psutil

import underpass

__all__ = ["Facts", "container_engine", "dynamic_info", "static_info"]

MAX_DISKS = 32
MAX_INTERFACES = 64
MAX_ADDRESSES = 16
STATIC_FOR = 300.0
"""Seconds static facts are believed before they are read again."""
READ_TIMEOUT = 10.0
"""A dead network file system can hang any look at it; heartbeats go on with older facts."""

_PSEUDO = frozenset({"squashfs", "overlay", "tmpfs", "devtmpfs", "autofs", "ramfs", "nsfs"})


def static_info() -> dict[str, Any]:
    """What seldom changes: system, processor, memory, disks, network cards, versions.

    Blocks for a moment; sizes are bytes.
    """
    system, version = _system()
    return {
        "os": system,
        "os_version": version,
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_count": psutil.cpu_count() or 1,
        "memory_total": psutil.virtual_memory().total,
        "disks": [{"mount": mount, "total": usage.total} for mount, usage in _disks()],
        "interfaces": _interfaces(),
        "agent_version": underpass.__version__,
        "python_version": platform.python_version(),
        "container_engine": container_engine(),
    }


def dynamic_info() -> dict[str, Any]:
    """How it is doing now; percentages are 0 to 100, times seconds, sizes bytes.

    ``cpu_percent`` is the mean since the last call.
    """
    memory = psutil.virtual_memory()
    try:
        load = [round(value, 2) for value in os.getloadavg()]
    except OSError:
        load = [0.0, 0.0, 0.0]
    return {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "load": load,
        "memory_used": memory.total - memory.available,
        "memory_total": memory.total,
        "memory_percent": memory.percent,
        "disks": [
            {
                "mount": mount,
                "used": usage.used,
                "total": usage.total,
                "percent": usage.percent,
            }
            for mount, usage in _disks()
        ],
        "uptime": round(time.time() - psutil.boot_time()),
        "container_engine": container_engine() is not None,
    }


def container_engine() -> str | None:
    """``docker`` or ``podman`` when its engine can be talked to, else ``None``.

    Looks at ``DOCKER_HOST``, then at the usual sockets; being installed alone does not count.
    """
    host = os.environ.get("DOCKER_HOST", "")
    if host.startswith("unix://"):
        path = host.removeprefix("unix://")
        return _engine_name(path) if _is_socket(path) else None
    if host:
        return "docker"
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    for path in (
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        f"{runtime}/docker.sock",
        f"{runtime}/podman/podman.sock",
    ):
        if _is_socket(path):
            return _engine_name(path)
    return None


class Facts:
    """Reads facts without holding up the event loop, and remembers the last ones."""

    def __init__(self) -> None:
        self._static: dict[str, Any] = {}
        self._dynamic: dict[str, Any] = {}
        self._static_at = float("-inf")
        self._reading: asyncio.Future[None] | None = None
        psutil.cpu_percent(interval=None)  # the first call only starts the measurement

    async def read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Static and dynamic facts; older ones when reading takes longer than 10 s.

        At most one reading is under way, however long it hangs.
        """
        if self._reading is None or self._reading.done():
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(None, self._read)
        reading = self._reading
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                await asyncio.shield(reading)
        except (TimeoutError, OSError, psutil.Error):
            pass
        return self._static, self._dynamic

    async def dynamic(self) -> dict[str, Any]:
        """Fresh dynamic facts, as :meth:`read` gives them (the ``metrics`` request)."""
        return (await self.read())[1]

    def _read(self) -> None:
        now = time.monotonic()
        if now - self._static_at >= STATIC_FOR:
            self._static = static_info()
            self._static_at = now
        self._dynamic = dynamic_info()


def _system() -> tuple[str, str]:
    if platform.system() == "Linux":
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            return "Linux", ""
        return release.get("NAME", "Linux"), release.get("VERSION_ID", "")
    if platform.system() == "Darwin":
        return "macOS", platform.mac_ver()[0]
    return platform.system(), platform.version()


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in {"model name", "Model", "cpu model"}:
                    return value.strip()[:128]
    except OSError:
        pass
    return (platform.processor() or platform.machine())[:128]


def _disks() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    devices: set[str] = set()
    for part in psutil.disk_partitions(all=False):
        if part.fstype in _PSEUDO or part.device in devices or len(found) >= MAX_DISKS:
            continue
        try:
            if not Path(part.mountpoint).is_dir():
                continue  # a single file mounted into a container
            usage = shutil.disk_usage(part.mountpoint)
        except OSError:
            continue
        devices.add(part.device)
        mount = part.mountpoint[:256].encode(errors="replace").decode()
        found.append((mount, _Usage(usage.total, usage.used)))
    if not found:
        usage = shutil.disk_usage("/")
        found.append(("/", _Usage(usage.total, usage.used)))
    return found


class _Usage:
    def __init__(self, total: int, used: int) -> None:
        self.total = total
        self.used = used
        self.percent = round(100 * used / total, 1) if total else 0.0


def _interfaces() -> list[dict[str, Any]]:
    interfaces: list[dict[str, Any]] = []
    for name, addresses in sorted(psutil.net_if_addrs().items())[:MAX_INTERFACES]:
        ips = [
            entry.address.partition("%")[0]
            for entry in addresses
            if entry.family in {socket.AF_INET, socket.AF_INET6}
        ]
        interfaces.append({"name": name[:64], "addresses": ips[:MAX_ADDRESSES]})
    return interfaces


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False


def _engine_name(path: str) -> str:
    return "podman" if "podman" in path else "docker"
