"""What the links benchmark measures; each function gives one number or a few for one port."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time

BULK_GRACE = 20.0


def bulk(port: int, streams: int, seconds: float, host: str = "127.0.0.1") -> float:
    """Gbit/s that *streams* parallel iperf3 streams carry to *port*."""
    for attempt in range(3):
        # The server answers "busy" for a moment after the test before.
        output = subprocess.run(
            ["iperf3", "-c", host, "-p", str(port), "-J", "-t", f"{seconds:g}",
             "-P", str(streams)],
            capture_output=True, timeout=seconds + BULK_GRACE, check=False,
        ).stdout  # fmt: skip
        result = json.loads(output)
        if "error" not in result:
            return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9
        time.sleep(0.3 * (attempt + 1))
    raise RuntimeError(f"iperf3 failed: {result['error']}")


def bulk_beside(port: int, streams: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start iperf3 to *port* to run beside another measurement."""
    return subprocess.Popen(
        ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-J", "-t", f"{seconds:g}",
         "-P", str(streams)],
        stdout=subprocess.PIPE,
    )  # fmt: skip


def requests(port: int, seconds: float, *, new_connections: bool = False) -> float:
    """Requests per second by wrk over 100 kept connections, or one connection per request."""
    command = ["wrk", "-t1", "-c100", f"-d{max(1, round(seconds))}s", "--timeout", "5s"]
    if new_connections:
        command += ["-H", "Connection: close"]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/small"],
        capture_output=True, text=True, timeout=seconds + 30, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(f"wrk says:\n{output}")
    return float(found.group(1))


def round_trips(
    port: int,
    seconds: float,
    *,
    size: int = 64,
    pause: float = 0.0,
    host: str = "127.0.0.1",
) -> tuple[float, float]:
    """The median and the 99th percentile, in microseconds, of sending *size* bytes to an echo.

    Args:
        pause: seconds between one answer and the next question; a person types with pauses.
    """
    message = b"k" * size
    times: list[float] = []
    with socket.create_connection((host, port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10)
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            connection.sendall(message)
            got = 0
            while got < size:
                data = connection.recv(size - got)
                if not data:
                    raise RuntimeError("The echo ended.")
                got += len(data)
            times.append(time.perf_counter() - now)
            if pause:
                time.sleep(pause)
    times = sorted(times[min(50, len(times) // 10) :])
    return times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e6
