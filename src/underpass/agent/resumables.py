"""The agent's end of resumable streams: kept while their paths come and go.

A client that opens a path says with ``meta["resume"]`` which stream it is for. For a new one the
target's opener runs as ever, but what it accepts is a ``ResumableStream``, and it runs here, not in
the link's task, since it outlives the link. For a known one nobody opens anything: the path is
plugged in. What has no path is given up after 120 seconds.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine
from typing import Any, Final, cast

import structlog

from underpass.agent.openers import Opener
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import (
    Conflict,
    Forbidden,
    Gone,
    Internal,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    UnderpassError,
)
from underpass.core.supervisor import Supervisor
from underpass.links.link import Opening
from underpass.links.resumable import ResumableStream
from underpass.links.stream import Stream
from underpass.wire.resume_claim import ResumeClaim

__all__ = ["Resumables"]

_log = structlog.get_logger(__name__)

GRACE: Final = 120.0
"""Seconds a stream waits for a new path; as long the end of one is remembered."""
MAX_STREAMS: Final = 1024
MAX_PER_USER: Final = 256
MAX_HELD: Final = 256 << 20
"""Bytes in all replay rings above which no more streams are kept."""
_SWEEP: Final = 1.0


class Resumables:
    """All resumable streams of an agent.

    Args:
        clock: tells how long a stream has been without a path.
        grace: seconds, see :data:`GRACE`.
        max_streams: kept at a time at most.
        max_per_user: of one person at most.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        grace: float = GRACE,
        max_streams: int = MAX_STREAMS,
        max_per_user: int = MAX_PER_USER,
    ) -> None:
        self._clock = clock or SystemClock()
        self._grace = grace
        self._max_streams = max_streams
        self._max_per_user = max_per_user
        self._supervisor = Supervisor("resumable streams")
        self._kept: dict[str, _Kept] = {}
        self._past: dict[str, _Kept] = {}  # over, and remembered for a client that missed it
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many streams are kept (a gauge that must return to zero)."""
        return len(self._kept)

    def wrap(self, opener: Opener) -> Opener:
        """*opener*, for streams that may be resumable; those that are not pass through."""

        async def open_or_resume(opening: Opening) -> None:
            claim = ResumeClaim.from_meta(opening.meta)
            if claim is None:
                await opener(opening)
                return
            kept = self._find(claim, opening)
            if kept is not None:
                kept.take_path(opening, claim.received)
            elif claim.new:
                await self._begin(opener, opening, claim)
            else:
                raise NotFound("The machine does not know this stream.", code="resume_unknown")

        return open_or_resume

    def end_all(self, code: str, message: str) -> None:
        """Give every stream up."""
        for kept in tuple(self._kept.values()):
            kept.end(Gone(message, code=code))

    async def close(self) -> None:
        """End everything and wait for it. Idempotent."""
        self.end_all("going_away", "The agent is stopping.")
        await self._supervisor.close()
        if self._timer is not None:
            self._timer.cancel()
        self._kept.clear()
        self._past.clear()

    # -- one stream -------------------------------------------------------------------------------

    def _find(self, claim: ResumeClaim, opening: Opening) -> _Kept | None:
        kept = self._kept.get(claim.id) or self._past.get(claim.id)
        if kept is None:
            return None
        # The target, too: the gateway has authorised the one that was named now.
        if not (
            hmac.compare_digest(kept.secret, claim.secret)
            and kept.user_id == _user_id(opening)
            and kept.target == opening.target
        ):
            _log.warning(
                "resume_denied", stream=claim.id, target=opening.target, user=_user_id(opening)
            )
            raise Forbidden("This stream is not yours.", code="resume_denied")
        return kept

    async def _begin(self, opener: Opener, opening: Opening, claim: ResumeClaim) -> None:
        user_id = _user_id(opening)
        mine = sum(kept.user_id == user_id for kept in self._kept.values())
        held = sum(kept.stream.held for kept in self._kept.values() if kept.stream is not None)
        if len(self._kept) >= self._max_streams or mine >= self._max_per_user or held > MAX_HELD:
            raise TooManyRequests(
                "The machine keeps as many resumable streams as it may.",
                code="too_many_resumable",
                retry_after=5,
            )
        kept = _Kept(self, claim, user_id, opening.target)
        self._kept[claim.id] = kept
        task = self.spawn(self._run(opener, _ResumableOpening(opening, kept), kept), "open")
        try:
            await asyncio.shield(kept.answer)
        except asyncio.CancelledError:
            if kept.stream is None:
                task.cancel()  # the link was lost before the target was reached
            raise

    async def _run(self, opener: Opener, opening: _ResumableOpening, kept: _Kept) -> None:
        failure: UnderpassError = Internal("The opener gave no answer.")
        try:
            await opener(opening)
        except UnderpassError as error:
            failure = error
            if opening.answered:
                _log.info("stream_failed", target=kept.target, code=error.code, error=str(error))
        except Exception:  # noqa: BLE001 - whatever an opener does wrong, the peer gets an answer
            _log.exception("opener_failed", target=kept.target)
            failure = Internal("The opener failed; the log over there says why.")
        finally:
            if kept.stream is None:
                self._kept.pop(kept.id, None)
                if not kept.answer.done():
                    kept.answer.set_exception(failure)
                    kept.answer.exception()  # who asked may have gone
            else:
                kept.stream.abort(failure.code, failure.message)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[Any]:
        """Run *coroutine* as a task of ours."""
        return self._supervisor.start(coroutine, name)

    def retire(self, kept: _Kept) -> None:
        """*kept* is over; its end is remembered for a while."""
        if self._kept.pop(kept.id, None) is None:
            return
        while len(self._past) >= self._max_streams:
            del self._past[next(iter(self._past))]
        self._past[kept.id] = kept
        self.expect(kept)

    # -- time -------------------------------------------------------------------------------------

    def expect(self, kept: _Kept) -> None:
        """Look after *kept* when its time is up."""
        kept.deadline = self._clock.monotonic() + self._grace
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep()
        if self._past or any(kept.deadline is not None for kept in self._kept.values()):
            self._timer = asyncio.get_running_loop().call_later(_SWEEP, self._tick)

    def sweep(self) -> None:
        """Give up what waited too long for a path, forget what has long been over."""
        now = self._clock.monotonic()
        for kept in tuple(self._past.values()):
            if kept.deadline is not None and kept.deadline <= now:
                del self._past[kept.id]
        for kept in tuple(self._kept.values()):
            if kept.deadline is not None and kept.deadline <= now:
                _log.info("stream_expired", stream=kept.id, target=kept.target)
                text = f"Nobody came back for the stream within {self._grace:g} seconds."
                kept.end(Gone(text, code="resume_expired"))


class _Kept:
    """One stream and whose it is."""

    def __init__(
        self, resumables: Resumables, claim: ResumeClaim, user_id: str, target: str
    ) -> None:
        self.id = claim.id
        self.secret = claim.secret
        self.user_id = user_id
        self.target = target
        self.stream: ResumableStream | None = None
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deadline: float | None = None
        self.error: UnderpassError | None = None
        self._resumables = resumables

    def accept(self, opening: Opening) -> ResumableStream:
        """The opener takes the stream."""
        self.stream = stream = ResumableStream(self)
        stream.accepted(opening.accept, 0)
        if not self.answer.done():
            self.answer.set_result(None)
        return stream

    def take_path(self, opening: Opening, received: int) -> None:
        """Go on over the path *opening* offers."""
        if self.stream is None:
            raise Conflict("The stream is still being opened.", code="resume_busy", retry_after=1)
        if self.error is not None:
            raise Gone(self.error.message, code=self.error.code)
        if not self.stream.is_over:
            self.deadline = None
            _log.info("stream_resumed", stream=self.id, target=self.target)
        self.stream.accepted(opening.accept, received)

    def end(self, error: UnderpassError) -> None:
        """Give it up."""
        if self.stream is not None:
            self.stream.give_up(error)

    # -- ResumableOwner ---------------------------------------------------------------------------

    def detached(self, stream: ResumableStream, error: UnderpassError) -> None:
        _log.info("stream_parked", stream=self.id, target=self.target, code=error.code)
        self._resumables.expect(self)

    def over(self, stream: ResumableStream, error: UnderpassError | None) -> None:
        self.error = error
        self._resumables.retire(self)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> object:
        return self._resumables.spawn(coroutine, name)


class _ResumableOpening(Opening):
    """What an opener gets for a stream that is to outlive its path."""

    __slots__ = ("_kept", "_opening")

    def __init__(self, opening: Opening, kept: _Kept) -> None:
        self.link = opening.link
        self.target = opening.target
        self.meta = opening.meta
        self.interactive = opening.interactive
        self.answered = False
        self._opening = opening
        self._kept = kept

    def accept(self) -> Stream:
        if self.answered:
            raise RuntimeError("this opening was answered already")
        self.answered = True
        return self._kept.accept(self._opening)

    def refuse(self, error: UnderpassError) -> None:
        if not self.answered:
            self.answered = True
            if not self._kept.answer.done():
                self._kept.answer.set_exception(error)


def _user_id(opening: Opening) -> str:
    """For whom the gateway says that it opens.

    Raises:
        InvalidRequest: it does not say.
    """
    user: Any = opening.meta.get("user")
    found = cast("dict[str, Any]", user).get("id") if isinstance(user, dict) else None
    if not isinstance(found, str) or not found:
        raise InvalidRequest("A resumable stream must be somebody's.", code="invalid_resume")
    return found
