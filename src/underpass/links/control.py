"""Control messages over a link: requests with answers both ways, and notices."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from underpass.core.errors import Internal, NotFound, TooManyRequests, Unavailable, UnderpassError
from underpass.links.mux import Mux
from underpass.links.peer_errors import error_frame, peer_error
from underpass.wire.frames import (
    AnswerMessage,
    FailureMessage,
    FrameType,
    NotifyMessage,
    RequestMessage,
)

if TYPE_CHECKING:
    from underpass.links.link import Link

__all__ = ["ControlDesk", "ControlHandler"]

_log = structlog.get_logger(__name__)

MAX_REQUESTS: Final = 256
"""Requests that wait for an answer, each way."""
MAX_NOTICES: Final = 1024
"""Notices that wait to be handled; when more come, the link is ended."""

ControlHandler = Callable[["Link", dict[str, Any]], Awaitable[dict[str, Any] | None]]
Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class ControlDesk:
    """Asks, answers and takes notices for one link.

    Notices are handled one after another, in the order they came; requests each as a task.

    Args:
        link: given to the handlers.
        spawn: starts a coroutine as a task the link owns.
    """

    def __init__(self, link: Link, spawn: Spawn) -> None:
        self._link = link
        self._mux: Mux
        self._spawn = spawn
        self._handlers: dict[str, ControlHandler] = {}
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._answering = 0
        self._notices: deque[NotifyMessage] = deque()
        self._noticing = False

    def bind(self, mux: Mux) -> None:
        """Say which mux carries the messages."""
        self._mux = mux

    def handle(self, kind: str, handler: ControlHandler) -> None:
        """Let *handler* deal with *kind*."""
        self._handlers[kind] = handler

    async def ask(self, kind: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """See :meth:`Link.request`."""
        if len(self._waiting) >= MAX_REQUESTS:
            raise TooManyRequests("Too many requests are waiting on this link.")
        loop = asyncio.get_running_loop()
        self._last_id = number = self._last_id + 1
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting[number] = answer
        try:
            self._mux.send_message(FrameType.REQUEST, RequestMessage(number, kind, dict(body)))
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Unavailable(
                f"The peer did not answer {kind!r} within {timeout:g} seconds.",
                code="request_timeout",
            ) from None
        finally:
            del self._waiting[number]

    def tell(self, kind: str, body: Mapping[str, Any]) -> None:
        """See :meth:`Link.notify`."""
        self._mux.send_message(FrameType.NOTIFY, NotifyMessage(kind, dict(body)))

    # -- from the peer ----------------------------------------------------------------------------

    def requested(self, message: RequestMessage) -> None:
        """The peer asks."""
        handler = self._handlers.get(message.kind)
        if handler is None:
            self._fail(
                message.id,
                NotFound(f"Nobody answers {message.kind[:64]!r} here.", code="unknown_request"),
            )
        elif self._answering >= MAX_REQUESTS:
            self._fail(message.id, TooManyRequests("Too many requests at a time on this link."))
        else:
            self._answering += 1
            self._spawn(self._answer(handler, message), f"answer {message.kind}")

    async def _answer(self, handler: ControlHandler, message: RequestMessage) -> None:
        try:
            body = await handler(self._link, message.body)
            self._mux.send_message(FrameType.ANSWER, AnswerMessage(message.id, body or {}))
        except UnderpassError as error:
            self._fail(message.id, error)
        except Exception:  # noqa: BLE001 - whatever a handler does wrong, the peer gets an answer
            _log.exception("control_handler_failed", kind=message.kind)
            self._fail(message.id, Internal("The request failed; the log over there says why."))
        finally:
            self._answering -= 1

    def _fail(self, number: int, error: UnderpassError) -> None:
        self._mux.send_message(FrameType.FAILURE, FailureMessage(number, error_frame(error)))

    def answered(self, message: AnswerMessage) -> None:
        """The peer answered."""
        answer = self._waiting.get(message.id)
        if answer is not None and not answer.done():
            answer.set_result(message.body)

    def failed(self, message: FailureMessage) -> None:
        """The peer said no."""
        answer = self._waiting.get(message.id)
        if answer is not None and not answer.done():
            answer.set_exception(peer_error(message.error))

    def notified(self, message: NotifyMessage) -> None:
        """The peer said something nobody needs to answer."""
        if message.kind not in self._handlers:
            _log.debug("notice_ignored", kind=message.kind)
            return
        if len(self._notices) >= MAX_NOTICES:
            self._mux.close("too_many_notices", "Notices come faster than they can be handled.")
            return
        self._notices.append(message)
        if not self._noticing:
            self._noticing = True
            self._spawn(self._take_notice(), "notices")

    async def _take_notice(self) -> None:
        try:
            while self._notices:
                message = self._notices.popleft()
                try:
                    await self._handlers[message.kind](self._link, message.body)
                except UnderpassError as error:
                    _log.info("notice_refused", kind=message.kind, error=str(error))
                except Exception:  # noqa: BLE001 - one bad notice must not stop those after it
                    _log.exception("control_handler_failed", kind=message.kind)
        finally:
            self._noticing = False

    def lost(self, error: UnderpassError) -> None:
        """The link is over: nobody will answer any more."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
