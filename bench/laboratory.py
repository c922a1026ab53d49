"""Two network namespaces with a cable between them that delays and loses packets.

The cable is two TAP devices and a process that carries packets from one to the other, since not
every kernel brings netem. Its packets are large (``MTU``), so that one process carries gigabits.
Needs root and ``ip``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.services import Children

__all__ = ["FAR", "FAR_ADDRESS", "NEAR", "NEAR_ADDRESS", "Laboratory", "available", "inside"]

NEAR: Final = "underpass-bench-near"
FAR: Final = "underpass-bench-far"
NEAR_ADDRESS: Final = "10.213.0.1"
FAR_ADDRESS: Final = "10.213.0.2"
MTU: Final = 16_000
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TAP_WITHOUT_HEADER: Final = 0x1002
_QUEUE: Final = 64 << 20
"""Bytes under way in one direction; more are dropped, as a router would."""


class Laboratory:
    """The namespaces and the cable; gone with the ``with`` block.

    Args:
        delay: seconds one way.
        loss: share of packets lost, each way.
    """

    def __init__(self, children: Children, delay: float, loss: float) -> None:
        self._children = children
        self._delay = delay
        self._loss = loss

    def __enter__(self) -> Laboratory:
        self._remove()
        for name in (NEAR, FAR):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            with inside(name):  # as a host on such paths would be set up
                for which in ("rmem", "wmem"):
                    Path(f"/proc/sys/net/ipv4/tcp_{which}").write_text("4096 131072 67108864")
        cable = self._children.start(
            sys.executable, "-m", "bench.laboratory", str(self._delay), str(self._loss),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert cable.stdout is not None
        if cable.stdout.readline().strip() != b"ready":
            raise RuntimeError("The cable of the laboratory did not start.")
        for name, address in ((NEAR, NEAR_ADDRESS), (FAR, FAR_ADDRESS)):
            _ip("-n", name, "link", "set", "cable", "mtu", str(MTU))
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @staticmethod
    def _remove() -> None:
        for name in (NEAR, FAR):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """What this thread does, and every process it starts, happens in the namespace *name*."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter the namespace {name}")
        yield
    finally:
        libc.setns(before, _CLONE_NEWNET)
        os.close(there)
        os.close(before)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def carry(delay: float, loss: float) -> None:
    """Be the cable until somebody ends us."""
    ends = [_tap(NEAR), _tap(FAR)]
    print("ready", flush=True)
    under_way: list[collections.deque[tuple[float, bytes]]] = [collections.deque() for _ in ends]
    sizes = [0, 0]
    source = random.Random(1)
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    while True:
        first = min((queue[0][0] for queue in under_way if queue), default=None)
        wait = None if first is None else max(0.0, first - time.monotonic()) * 1000
        for ready, _ in poll.poll(wait):
            _take(ready, ends.index(ready), under_way, sizes, source, delay, loss)
        now = time.monotonic()
        for index, queue in enumerate(under_way):
            while queue and queue[0][0] <= now:
                packet = queue.popleft()[1]
                sizes[index] -= len(packet)
                try:
                    os.write(ends[1 - index], packet)
                except OSError:
                    continue  # the other end is down; a cable loses what it can't deliver


def _take(
    ready: int,
    index: int,
    under_way: list[collections.deque[tuple[float, bytes]]],
    sizes: list[int],
    source: random.Random,
    delay: float,
    loss: float,
) -> None:
    for _ in range(64):
        try:
            packet = os.read(ready, 65_536)
        except BlockingIOError:
            return
        except OSError:
            sys.exit(0)  # the namespace is gone, and the device with it
        if (loss and source.random() < loss) or sizes[index] > _QUEUE:
            continue
        sizes[index] += len(packet)
        under_way[index].append((time.monotonic() + delay, packet))


def _tap(namespace: str) -> int:
    """A TAP device called ``cable``, moved into *namespace*."""
    name = f"ub{os.getpid() % 10_000}{'n' if namespace == NEAR else 'f'}"
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _TAP_WITHOUT_HEADER))
    _ip("link", "set", name, "netns", namespace)
    _ip("-n", namespace, "link", "set", name, "name", "cable")
    return device


def available() -> bool:
    """Whether a laboratory can be built here."""
    return os.geteuid() == 0 and Path("/dev/net/tun").exists()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("delay", type=float)
    parser.add_argument("loss", type=float)
    asked = parser.parse_args()
    carry(asked.delay, asked.loss)
