"""Live news inside a gateway: publish a change, and everybody who watches hears of it.

At-most-once, never blocking the publisher: a subscriber that does not keep up loses what is queued
and gets one ``resync`` message instead, after which it must read the current state again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["RESYNC", "LiveBus", "LiveMessage", "Subscription"]

RESYNC = "resync"
"""Topic of the message that says: you missed something, read the state again."""


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """One piece of news.

    Attributes:
        topic: ``agent``, ``enrolment``, ``session``, ``recording``, ``mapping``, ``event`` (served
            to people), ``user`` (inside the gateway only: somebody's rights or logins changed),
            ``resync``.
        data: JSON-able; names the thing by ``id`` and, where there is one, its machine by
            ``agent_id`` and its owner by ``user_id``, because visibility is decided on these.
    """

    topic: str
    data: dict[str, Any]


class Subscription:
    """A bounded queue of messages; iterate over it, and close it (or use ``with``)."""

    def __init__(
        self, bus: LiveBus, accepts: Callable[[LiveMessage], bool] | None, limit: int
    ) -> None:
        self._bus = bus
        self._accepts = accepts
        self._limit = limit
        self._queue: deque[LiveMessage] = deque()
        self._waiter: asyncio.Event = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def offer(self, message: LiveMessage) -> None:
        """Queue *message* if it is wanted; on overflow drop all and queue one ``resync``."""
        if self._closed or (self._accepts is not None and not self._accepts(message)):
            return
        if len(self._queue) >= self._limit:
            self._queue.clear()
            message = LiveMessage(RESYNC, {})
        self._queue.append(message)
        self._waiter.set()

    async def next(self, timeout: float | None = None) -> LiveMessage | None:
        """The next message; ``None`` when *timeout* seconds passed or the subscription closed."""
        while not self._queue:
            if self._closed:
                return None
            self._waiter.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._waiter.wait()
            except TimeoutError:
                return None
        return self._queue.popleft()

    def close(self) -> None:
        """Stop listening; whoever waits in :meth:`next` is let go. Safe to call twice."""
        self._closed = True
        self._queue.clear()
        self._waiter.set()
        self._bus.forget(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> LiveMessage:
        message = await self.next()
        if message is None:
            raise StopAsyncIteration
        return message


class LiveBus:
    """Hands every published message to all current subscriptions of this process."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[LiveMessage], None]] = []

    def __len__(self) -> int:
        return len(self._subscriptions)

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Tell everybody who watches; never waits, never raises."""
        message = LiveMessage(topic, data)
        for listener in self._listeners:
            listener(message)
        for subscription in tuple(self._subscriptions):
            subscription.offer(message)

    def subscribe(
        self, accepts: Callable[[LiveMessage], bool] | None = None, *, limit: int = 256
    ) -> Subscription:
        """Listen from now on.

        Args:
            accepts: keeps what is not wanted out of the queue; default: everything is wanted.
            limit: messages kept for a slow reader before it is told to resync.
        """
        subscription = Subscription(self, accepts, limit)
        self._subscriptions.add(subscription)
        return subscription

    def listen(self, listener: Callable[[LiveMessage], None]) -> None:
        """Call *listener* with every message, before ``publish`` returns; it must not raise.

        For what must never be missed or late, such as dropping a cached authentication.
        """
        self._listeners.append(listener)

    def forget(self, subscription: Subscription) -> None:
        """Drop a subscription (its ``close`` calls this)."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.close()
