"""Plays an asciicast in the terminal: when to show what, at which speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from underpass.wire.asciicast import CastEvent

__all__ = ["Frame", "Player", "schedule"]

SPEEDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """Show *text* after waiting *pause* seconds of recording time."""

    pause: float
    text: str
    time: float
    """Seconds since the recording began."""


def schedule(events: Iterable[CastEvent], idle_limit: float | None = None) -> Iterator[Frame]:
    """What is shown when, with pauses cut to *idle_limit* seconds; input and markers left out."""
    last_us = 0
    for event in events:
        if event.code != "o":
            continue
        pause = max(0, event.time_us - last_us) / 1_000_000
        last_us = event.time_us
        yield Frame(
            pause if idle_limit is None else min(pause, idle_limit),
            event.data,
            event.time_us / 1_000_000,
        )


class Player:
    """What the keys do: speed, pause, leave. Feed it keys and times; it says how long to wait.

    Args:
        speed: how many seconds of recording pass in one.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.paused = False
        self.left = False
        self._step = False

    def key(self, data: bytes) -> None:
        """Space pauses and goes on, ``.`` shows one frame while paused, ``+`` and ``-`` change the
        speed, ``q`` and Ctrl-C leave."""
        for byte in data:
            match chr(byte):
                case " ":
                    self.paused = not self.paused
                case ".":
                    self._step = self.paused
                case "+" | "=":
                    self.speed = next((s for s in SPEEDS if s > self.speed), self.speed)
                case "-":
                    self.speed = next((s for s in reversed(SPEEDS) if s < self.speed), self.speed)
                case "q" | "\x03":
                    self.left = True
                case _:
                    pass

    def passed(self, seconds: float) -> float:
        """Recording time that goes by in *seconds*; 0 while paused, all of it for a single step."""
        if self._step:
            self._step = False
            return float("inf")
        return 0.0 if self.paused else seconds * self.speed
