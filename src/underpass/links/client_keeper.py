"""A client's link to a gateway, kept: dialled again when it is lost, under streams that stay.

The link may die, and so may the gateway; what was opened with ``resume`` gets a new path as soon as
there is a link again, and goes on where it was (``links/resumable.py``). What cannot is given up
after two minutes, or at once when the other side says that it is no use.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import Unavailable, UnderpassError
from underpass.core.jitter import Jitter, backoff, spread
from underpass.core.supervisor import Supervisor
from underpass.links.link import Link, LinkLost
from underpass.links.peer_errors import OpenRefused
from underpass.links.resumable import ResumableStream
from underpass.links.stream import Stream, StreamReset
from underpass.wire.handshake import Refused
from underpass.wire.resume_claim import ResumeClaim

__all__ = ["ClientKeeper"]

_log = structlog.get_logger(__name__)

FIRST_WAIT: Final = 0.2
LAST_WAIT: Final = 5.0
"""Seconds, bounds of the first and of any wait before the next try."""
PATIENCE: Final = 120.0
"""Seconds a stream waits for a new path; the agent keeps its end as long."""
OPEN_PATIENCE: Final = 15.0
"""Seconds a new stream waits for a link or an agent that is just coming back."""
OPEN_TIMEOUT: Final = 30.0
"""Seconds for gateway and machine to answer one opening."""
GREETING: Final = 10.0
"""Seconds for the agent to speak on a new path."""
_AT_A_TIME: Final = 64
"""Paths being opened at once; hundreds of streams come back together."""
_HOPELESS: Final = frozenset({400, 401, 403, 404, 410, 413, 501})
"""Statuses of a refusal after which asking again changes nothing."""
_PASSING: Final = frozenset(
    {"agent_unlinked", "going_away", "link_lost", "open_timeout", "resume_busy", "too_many_opens"}
)
"""Codes of a refusal that say nothing about the target: the way to it is being repaired."""


class ClientKeeper:
    """One client's link and the streams over it.

    Args:
        dial: makes a link.
        patience: seconds, see :data:`PATIENCE`.
        open_patience: seconds, see :data:`OPEN_PATIENCE`.
        jitter: spreads the waits.
        clock: tells how long a link lived.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Link]],
        *,
        patience: float = PATIENCE,
        open_patience: float = OPEN_PATIENCE,
        jitter: Jitter = spread,
        clock: Clock | None = None,
    ) -> None:
        self.patience = patience
        self.open_patience = open_patience
        self.jitter = jitter
        self.links = 0
        """How many links there have been."""
        self.opening = asyncio.Semaphore(_AT_A_TIME)
        self._dial = dial
        self._clock = clock or SystemClock()
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._supervisor = Supervisor("client link")
        self._streams: set[_Resumed] = set()
        self._failure: asyncio.Future[UnderpassError] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        """How many resumable streams there are (a gauge that must return to zero)."""
        return len(self._streams)

    async def start(self) -> None:
        """Make the first link; it is kept from now on.

        Raises:
            UnderpassError: there is none to be had.
        """
        self._linked(await self._dial())
        self.spawn(self._keep(), "keep")

    async def failed(self) -> UnderpassError:
        """Wait until the gateway has refused us for good; why."""
        return await asyncio.shield(self._failure)

    async def close(self) -> None:
        """Give all streams up, close the link, wait for both. Idempotent."""
        for stream in tuple(self._streams):
            stream.stream.give_up(StreamReset("The client is stopping.", code="cancelled"))
        self._up.clear()
        await asyncio.sleep(0)  # let the last words of the streams go
        await self._supervisor.close()
        if self._link is not None:
            await self._link.close()

    # -- the link ---------------------------------------------------------------------------------

    def _linked(self, link: Link) -> None:
        link.start()
        self._link = link
        self.links += 1
        self._up.set()

    async def _keep(self) -> None:
        waits = backoff(FIRST_WAIT, LAST_WAIT, self.jitter)
        while True:
            assert self._link is not None
            began = self._clock.monotonic()
            end = await self._link.wait_closed()
            self._up.clear()
            await self._link.close()
            _log.info("link_lost", code=end.code, reason=end.message)
            if self._clock.monotonic() - began > LAST_WAIT:
                waits = backoff(FIRST_WAIT, LAST_WAIT, self.jitter)
            while not self._up.is_set():
                await asyncio.sleep(next(waits))
                try:
                    self._linked(await self._dial())
                except Refused as error:
                    if error.final:
                        self._fail(error)
                        return
                    await asyncio.sleep(min(error.retry_after or 0.0, LAST_WAIT))
                except UnderpassError as error:
                    _log.info("link_failed", code=error.code, reason=str(error))

    def _fail(self, error: UnderpassError) -> None:
        if not self._failure.done():
            self._failure.set_result(error)
        for stream in tuple(self._streams):
            stream.stream.give_up(error)

    async def live(self) -> Link:
        """The link, once there is one that takes streams."""
        while True:
            await self._up.wait()
            link = self._link
            assert link is not None
            if not (link.closed or link.going_away):
                return link
            await link.wait_closed()
            await asyncio.sleep(0)  # until it is noticed above

    # -- streams ----------------------------------------------------------------------------------

    async def open(self, target: str, meta: Mapping[str, Any], *, resume: bool = True) -> Stream:
        """Open a stream to *target*; with *resume* it survives the link and the gateway.

        Without a link it waits for one. A machine that keeps no more resumable streams gives one
        that ends with its path.

        Raises:
            OpenRefused: gateway or machine said no.
            Unavailable: no way there; code ``open_timeout``.
            ResumptionError: code ``resume_unsupported``: the machine's agent is too old for it.
            StreamReset: it was over as soon as it was open.
        """
        if resume:
            kept = _Resumed(self, target, meta)
            self._streams.add(kept)
            try:
                await kept.begin()
            except OpenRefused as error:
                kept.stream.give_up(error)
                if error.code != "too_many_resumable":
                    raise
            except BaseException:
                kept.stream.abort()
                raise
            else:
                return kept.stream
        try:
            async with asyncio.timeout(self.open_patience):
                link = await self.live()
        except TimeoutError:
            raise _no_way(self.open_patience, None) from None
        return await link.open(target, meta, timeout=OPEN_TIMEOUT)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> object:
        """Run *coroutine* as a task of ours."""
        return self._supervisor.start(coroutine, name)

    def forget(self, stream: _Resumed) -> None:
        """*stream* is over."""
        self._streams.discard(stream)


class _Resumed:
    """One resumable stream: brings it paths."""

    def __init__(self, keeper: ClientKeeper, target: str, meta: Mapping[str, Any]) -> None:
        self.stream = ResumableStream(self)
        self._keeper = keeper
        self._target = target
        self._meta = meta
        self._id = secrets.token_hex(16)
        self._secret = secrets.token_bytes(32)
        self._bringing = True
        self._error: UnderpassError | None = None

    async def begin(self) -> None:
        """Open it."""
        await self._bring(self._keeper.open_patience)

    async def _go_on(self) -> None:
        try:
            await self._bring(self._keeper.patience)
        except UnderpassError as error:
            self.stream.give_up(error)

    async def _bring(self, patience: float) -> None:
        """Bring a path that works.

        Raises:
            UnderpassError: there is none; the stream can't go on.
        """
        waits = backoff(FIRST_WAIT, LAST_WAIT, self._keeper.jitter)
        last: UnderpassError | None = None
        self._bringing = True
        try:
            async with asyncio.timeout(patience):
                while not self.stream.is_over:
                    try:
                        if await self._try():
                            return
                    except UnderpassError as error:
                        if self._is_final(error):
                            raise
                        last = error
                        _log.info("path_failed", target=self._target, code=error.code)
                    await asyncio.sleep(next(waits))
        except TimeoutError:
            raise _no_way(patience, last) from None
        finally:
            self._bringing = False
        raise self._error or StreamReset("The stream was closed on this side.", code="closed")

    async def _try(self) -> bool:
        keeper, stream = self._keeper, self.stream
        link = await keeper.live()
        async with keeper.opening:
            claim = ResumeClaim(self._id, self._secret, stream.received, not stream.greeted)
            path = await link.open(
                self._target, {**self._meta, **claim.to_meta()}, timeout=OPEN_TIMEOUT
            )
        stream.dialled(path)
        try:
            async with asyncio.timeout(GREETING):
                return await stream.settled()
        except TimeoutError:
            path.abort("no_greeting")
            if stream.greeted:
                return False
            raise OpenRefused(
                "The machine's agent does not resume streams.",
                code="resume_unsupported",
                hint="Update it, or use --no-resume.",
            ) from None

    def _is_final(self, error: UnderpassError) -> bool:
        if isinstance(error, LinkLost) or not isinstance(error, OpenRefused):
            return False
        if error.status in _HOPELESS or error.code == "resume_unsupported":
            return True
        return not self.stream.greeted and error.code not in _PASSING

    # -- ResumableOwner ---------------------------------------------------------------------------

    def detached(self, stream: ResumableStream, error: UnderpassError) -> None:
        if not self._bringing:
            _log.info("path_lost", target=self._target, code=error.code)
            self._keeper.spawn(self._go_on(), "resume")

    def over(self, stream: ResumableStream, error: UnderpassError | None) -> None:
        self._error = error
        self._keeper.forget(self)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> object:
        return self._keeper.spawn(coroutine, name)


def _no_way(patience: float, last: UnderpassError | None) -> Unavailable:
    why = f" {last.message}" if last is not None else " There is no link to the gateway."
    return Unavailable(
        f"No way to the machine was found within {patience:g} seconds.{why}", code="open_timeout"
    )
