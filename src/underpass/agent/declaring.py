"""Watches ``underpass.yaml`` and has the gateway do what it says.

The file is looked at every second (and on SIGHUP) and read once it has stopped changing. A file
with mistakes changes nothing: they are logged, and what was applied stays. A good one goes to the
gateway as a whole, again with every new link, which applies all of it or refuses
(``gateway/declaration_desk.py``); what was refused is tried again after a while, since the reason
may be gone. No file, or none of ``mappings`` in it, takes everything back.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import structlog

from underpass.agent.declared import Declared, DeclaredError, parse_declared
from underpass.agent.yaml_text import MAX_FILE
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import UnderpassError
from underpass.links.link import Link, LinkLost

__all__ = ["DeclaredFile", "Declaring"]

_log = structlog.get_logger(__name__)

TICK: Final = 1.0
"""Seconds between two looks at the file."""
TIMEOUT: Final = 60.0
"""Seconds the gateway has to apply a list: every entry point may take some."""
RETRIES: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds before a refused list is sent again; the last one from then on."""

Stamp = tuple[int, ...] | None


class DeclaredFile:
    """The file, and whether it has changed.

    Attributes:
        mappings: what it says; ``None`` before it could be read for the first time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mappings: tuple[Declared, ...] | None = None
        self._seen: Stamp = None
        self._read: Stamp | bool = False  # False: never, and never equal to a stamp

    def look(self, *, now: bool = False) -> bool:
        """Read the file if it has changed and is as it was at the last look: an editor that
        replaces it or writes slowly is done by then. Whether there was something to read.

        Args:
            now: read it in any case.

        Raises:
            DeclaredError: it can't be read or is wrong; :attr:`mappings` are what they were.
        """
        stamp = self._stamp()
        settled = stamp == self._seen or self._read is False
        self._seen = stamp
        if not now and (stamp == self._read or not settled):
            return False
        self._read = stamp
        self.mappings = () if stamp is None else parse_declared(self._bytes(), str(self.path))
        return True

    def _stamp(self) -> Stamp:
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return ()  # there, but out of reach: reading it says why
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)

    def _bytes(self) -> bytes:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # opening a pipe could wait for ever
                raise DeclaredError(f"{self.path} is not a file.")
            with self.path.open("rb") as file:
                return file.read(MAX_FILE + 1)
        except OSError as error:
            raise DeclaredError(f"Can't read {self.path}: {error.strerror}.") from None


class Declaring:
    """See the module. :meth:`run` as long as the agent works.

    Args:
        path: the file, there or not.
        host: the gateway's host, for the addresses in the log.
        clock: for the waits after refusals.
    """

    def __init__(self, path: Path, *, host: str, clock: Clock | None = None) -> None:
        self._file = DeclaredFile(path)
        self._host = host
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._reread = False
        self._link: Link | None = None
        self._applied: list[dict[str, Any]] | None = None
        self._public: dict[str, tuple[str, Any]] = {}
        self._refusals = 0
        self._refused = ""
        self._not_before = 0.0

    def reread(self) -> None:
        """Read the file now, changed or not, and send it (SIGHUP)."""
        self._reread = True
        self._again()

    def prepare(self, link: Link) -> None:
        """Set the handlers on a new link, before it reads anything."""
        link.on_control("mappings.declare_again", self._asked)

    def linked(self, link: Link) -> None:
        """Send the list over this link, too."""
        self._link = link
        self._again()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.to_thread(self.look)  # a large file takes seconds to understand
            await self.send()
            try:
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def look(self) -> None:
        """Look at the file once; mistakes are logged."""
        now, self._reread = self._reread, False
        try:
            changed = self._file.look(now=now)
        except DeclaredError as error:
            _log.error(
                "declared_mappings_wrong",
                file=str(self._file.path),
                reason=error.message,
                problems=len(error.problems),
                hint=f"What was applied stays. See all: underpass check {self._file.path}",
            )
            return
        if changed:
            self._refused, self._refusals, self._not_before = "", 0, 0.0

    async def send(self) -> None:
        """Send the list, if the gateway has not taken it over this link yet and it is time."""
        link, mappings = self._link, self._file.mappings
        if mappings is None or link is None or link.closed:
            return
        bodies = [each.body for each in mappings]
        if bodies == self._applied or self._clock.monotonic() < self._not_before:
            return
        try:
            answer = await link.request("mappings.declare", {"mappings": bodies}, TIMEOUT)
        except LinkLost:
            return  # the next link brings it
        except UnderpassError as error:
            self._take_refusal(error, bool(bodies))
            return
        if link is not self._link:
            return
        self._applied = bodies
        self._refused, self._refusals = "", 0
        self._tell(answer)

    def _take_refusal(self, error: UnderpassError, wanted: bool) -> None:
        if error.code == "unknown_request":  # a gateway of an earlier version
            self._not_before = float("inf")
            if wanted:
                _log.warning("declared_mappings_unknown", reason="The gateway is too old for them.")
            return
        wait = RETRIES[min(self._refusals, len(RETRIES) - 1)]
        self._refusals += 1
        self._not_before = self._clock.monotonic() + wait
        text = f"{error.code} {error.message}"
        if text != self._refused:
            self._refused = text
            _log.error(
                "declared_mappings_refused",
                file=str(self._file.path),
                code=error.code,
                reason=error.message,
                hint=" ".join(["Nothing was changed.", *([error.hint] if error.hint else [])]),
            )

    def _tell(self, answer: dict[str, Any]) -> None:
        found = answer.get("mappings")
        told = [
            cast("dict[str, Any]", each)
            for each in (cast("list[Any]", found) if isinstance(found, list) else [])
            if isinstance(each, dict)
        ]
        before, self._public = self._public, {}
        for each in told:
            public = public_address(each, self._host)
            state = each.get("status")
            self._public[str(each.get("name"))] = (public, state)
            if before.get(str(each.get("name"))) == (public, state):
                continue  # that has been said
            say: Callable[..., Any] = _log.warning if state == "error" else _log.info
            say("declared_mapping", name=each.get("name"), public=public, status=state,
                **({"error": each.get("error")} if state == "error" else {}))  # fmt: skip
        if told or self._applied:
            _log.info("declared_mappings_applied", file=str(self._file.path), mappings=len(told))

    async def _asked(self, _link: Link, _body: dict[str, Any]) -> None:
        self._again()

    def _again(self) -> None:
        self._applied, self._not_before = None, 0.0
        self._wake.set()


def public_address(told: dict[str, Any], host: str) -> str:
    """Where a mapping is reached, as an address people can use.

    Args:
        told: what the gateway says of it.
        host: the gateway's.
    """
    source = cast("dict[str, Any]", told.get("source") or {})
    bind = source.get("bind")
    if source.get("client_id") is not None:
        port = source.get("port") or source.get("port_range")
        return f"port {port} of the machine {source['client_id']}"
    reached = str(host if bind in {None, "0.0.0.0", "::"} else bind)
    shown = f"[{reached}]" if ":" in reached else reached
    protocol = {"udp": "udp", "socks5": "socks5"}.get(str(told.get("protocol")), "tcp")
    return f"{protocol}://{shown}:{source.get('port') or source.get('port_range')}"
