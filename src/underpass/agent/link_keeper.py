"""Keeps one link to the gateway: dials, notices when it is lost, dials again, for ever.

What waits between attempts is jittered, so that a restarted gateway is not met by all its agents
at once, and capped low enough that all of them are back within 15 seconds (spec: "Bad days").
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal, Protocol

import structlog

from underpass.agent.link_choice import LinkChoice, PathQuality
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import UnderpassError
from underpass.core.jitter import Jitter, backoff, spread
from underpass.core.supervisor import Supervisor
from underpass.links.dial import DialTransport, dial
from underpass.links.link import Link, LinkEnd
from underpass.links.probe import probe_way
from underpass.wire.handshake import AgentIdentity, Established, Refused

__all__ = ["Dial", "LinkKeeper"]

_log = structlog.get_logger(__name__)

FIRST_WAIT: Final = 0.2
"""Upper bound in seconds of the first wait after a link was lost."""
KNOWN_CAP: Final = 10.0
"""Upper bound of any wait for a gateway that has taken us before."""
UNKNOWN_CAP: Final = 30.0
"""Upper bound of any wait for one that never has."""
STABLE: Final = 30.0
"""A link that lived for so many seconds starts the waits anew when it ends."""
DISPLACED_WAIT: Final = (20.0, 60.0)
"""Somebody else uses our secret; two agents must not throw each other out in a loop."""
MAX_RETRY_AFTER: Final = 60.0
MEASURE_EVERY: Final = 10.0
"""Seconds between two looks at the link's round trip; as often as the link pings."""
BETTER_EVERY: Final = 300.0
"""Seconds from one look for a better way to the next, while the link carries nothing."""
BETTER_CAP: Final = 3600.0
"""The same after many that found nothing."""


class Dial(Protocol):
    """Makes links (``links.dial.dial``)."""

    async def __call__(
        self,
        server: str,
        identity: AgentIdentity,
        *,
        transport: DialTransport,
        fingerprint: str | None,
        pinned_key: bytes | None,
        features: frozenset[str],
        on_established: Callable[[Established], None],
    ) -> Link: ...


class ProbeWay(Protocol):
    """Tries a way (``links.probe.probe_way``)."""

    async def __call__(
        self,
        server: str,
        identity: AgentIdentity,
        way: Literal["tcp", "quic"],
        *,
        fingerprint: str | None,
        pinned_key: bytes | None,
    ) -> float: ...


class LinkKeeper:
    """One agent's link.

    Args:
        server: the gateway's URL.
        identity: who we are.
        transport: ``auto``, ``tcp``, ``websocket`` or ``quic``.
        fingerprint: the pinned certificate.
        pinned_key: the gateway's pinned Ed25519 key; None on the first link after an enrolment
            that did not bring one (then *on_established* should keep it).
        features: what this agent can do.
        prepare: sets handlers on each new link before it reads anything.
        linked: runs on each new link once it reads (announce sessions, first heartbeat); cancelled
            when the link ends.
        on_established: told what each handshake found.
        dial: makes links (for tests).
        probe: tries a way without making a link (for tests).
        jitter: spreads the waits.
        clock: tells how long links lived.
    """

    def __init__(
        self,
        server: str,
        identity: AgentIdentity,
        *,
        transport: DialTransport = "auto",
        fingerprint: str | None = None,
        pinned_key: bytes | None = None,
        features: frozenset[str] = frozenset(),
        prepare: Callable[[Link], None] = lambda _link: None,
        linked: Callable[[Link], Awaitable[None]] | None = None,
        on_established: Callable[[Established], None] = lambda _established: None,
        dial: Dial = dial,
        probe: ProbeWay = probe_way,
        jitter: Jitter = spread,
        clock: Clock | None = None,
    ) -> None:
        self._server = server
        self._identity = identity
        self._transport: DialTransport = transport
        self._fingerprint = fingerprint
        self._pinned_key = pinned_key
        self._features = features
        self._prepare = prepare
        self._linked = linked
        self._on_established = on_established
        self._dial = dial
        self._probe = probe
        self._jitter = jitter
        self._clock = clock or SystemClock()
        self._choice = LinkChoice()
        self._dialled_in = 0.0
        self._known = False
        self._link: Link | None = None
        self.attempts = 0
        """How often it has dialled since the last link."""

    @property
    def link(self) -> Link | None:
        """The live link, if there is one."""
        return self._link if self._link is not None and not self._link.closed else None

    async def run(self) -> None:
        """Keep the link until cancelled; the link is closed then.

        Raises:
            Refused: the gateway said, provably, that trying again is pointless.
        """
        waits = self._waits()
        while True:
            wait = next(waits)
            known = self._known
            try:
                link = await self._connect()
            except Refused as error:
                if error.final:
                    raise
                wait = max(wait, min(error.retry_after or 0.0, MAX_RETRY_AFTER))
                self._tell(error, wait)
            except UnderpassError as error:
                self._tell(error, wait)
            else:
                began = self._clock.monotonic()
                end = await self._live(link)
                if not known or self._clock.monotonic() - began >= STABLE:
                    # The waits made before the first link go up to a stranger's cap.
                    waits = self._waits()
                    wait = next(waits)
                if end.code == "displaced":
                    wait = self._jitter(*DISPLACED_WAIT)
                    _log.warning(
                        "link_displaced",
                        hint="Another agent uses this machine's identity; was its disk copied?",
                    )
                _log.info("link_lost", code=end.code, reason=end.message, again_in=round(wait, 1))
            await asyncio.sleep(wait)

    def _waits(self) -> Iterator[float]:
        cap = KNOWN_CAP if self._known else UNKNOWN_CAP
        return backoff(FIRST_WAIT, cap, self._jitter)

    async def _connect(self) -> Link:
        self.attempts += 1
        began = self._clock.monotonic()
        transport = self._transport
        if transport == "auto":
            transport = self._choice.first()
        try:
            link = await self._dial_by(transport)
        except Refused:
            raise
        except UnderpassError as error:
            if transport == self._transport or transport not in ("quic", "tcp"):
                raise
            # A guess that failed is nobody's trouble: the usual ways follow at once.
            _log.debug("guess_failed", way=transport, code=error.code, reason=str(error))
            if transport == "quic":
                self._choice.quic_failed(self._clock.monotonic())
            link = await self._dial_by("auto")
        self._dialled_in = self._clock.monotonic() - began
        self._known = True
        return link

    async def _dial_by(self, transport: DialTransport) -> Link:
        return await self._dial(
            self._server,
            self._identity,
            transport=transport,
            fingerprint=self._fingerprint,
            pinned_key=self._pinned_key,
            features=self._features,
            on_established=self._established,
        )

    def _established(self, established: Established) -> None:
        self._pinned_key = established.node_key
        self._on_established(established)

    async def _live(self, link: Link) -> LinkEnd:
        why = "asked for" if self._transport != "auto" else self._choice.why
        _log.info("link_up", server=self._server, carrier=link.carrier, link=link.id, why=why)
        self.attempts = 0
        self._link = link
        quality = PathQuality()
        end: LinkEnd | None = None
        try:
            async with Supervisor("agent link", on_failure=_failed) as supervisor:
                self._prepare(link)
                link.start()
                supervisor.start(_measure(link, quality), "measure")
                if self._transport == "auto":
                    supervisor.start(self._seek(link, quality), "seek")
                if self._linked is not None:
                    supervisor.start(_run(self._linked, link), "linked")
                end = await link.wait_closed()
                return end
        finally:
            self._link = None
            self._choice.ended(
                link.carrier,
                dialled_in=self._dialled_in,
                poor=quality.poor,
                now=self._clock.monotonic(),
                silent=end is not None and end.code == "peer_silent",
            )
            await link.close("going_away", "The agent is stopping.")

    async def _seek(self, link: Link, quality: PathQuality) -> None:
        """Look for a better way while the link carries nothing, and give the link up for it."""
        wait = BETTER_EVERY
        while True:
            await asyncio.sleep(wait)
            now = self._clock.monotonic()
            way = self._choice.better(link.carrier, poor=quality.poor, now=now)
            if way is None or link.streams:
                continue
            try:
                took = await self._probe(
                    self._server,
                    self._identity,
                    way,
                    fingerprint=self._fingerprint,
                    pinned_key=self._pinned_key,
                )
            except UnderpassError as error:
                _log.debug("no_better_way", way=way, code=error.code)
                if way == "quic":
                    self._choice.quic_failed(now)
                wait = min(2 * wait, BETTER_CAP)
                continue
            if link.streams:
                continue  # somebody came in the meantime
            self._choice.prefer(way, now)
            _log.info("better_way", before=link.carrier, now=way, answered_in=round(took, 3))
            await link.close("better_way", f"Coming back over {way}.")
            return

    def _tell(self, error: UnderpassError, wait: float) -> None:
        # The first failures of a restart are no news; a gateway that stays away is.
        log = _log.warning if self.attempts in (1, 4) or self.attempts % 20 == 0 else _log.debug
        log("link_failed", code=error.code, reason=str(error), again_in=round(wait, 1))


async def _measure(link: Link, quality: PathQuality) -> None:
    while True:
        await asyncio.sleep(MEASURE_EVERY)
        if link.rtt is not None:
            quality.add(link.rtt)


async def _run(linked: Callable[[Link], Awaitable[None]], link: Link) -> None:
    await linked(link)


def _failed(task: str, error: BaseException) -> None:
    if isinstance(error, UnderpassError):
        _log.warning("link_duty_failed", task=task, code=error.code, reason=str(error))
    else:
        _log.error("link_duty_failed", task=task, exc_info=error)
