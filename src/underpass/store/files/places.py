"""Where a recording's files lie: names come from the recording's id and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from underpass.core.errors import NotFound
from underpass.core.ids import is_id

__all__ = ["Places", "places"]


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one recording.

    Attributes:
        cast: the asciicast, the only one that matters; the others can be lost.
        index: checkpoints and keyframes (``wire.cast_index``).
        text: plain text with times, for searching (``wire.screen_text``).
    """

    cast: Path
    index: Path
    text: Path

    def __iter__(self):
        return iter((self.cast, self.index, self.text))


def places(root: Path, recording_id: str) -> Places:
    """The files of *recording_id* under *root* (an absolute, resolved directory).

    Raises:
        NotFound: the id is not a canonical UUID, or the path would leave *root* (a symbolic link).
    """
    if not is_id(recording_id):
        raise NotFound("There is no such recording.", hint="Check the id.")
    directory = root / recording_id[:2]
    if not directory.resolve().is_relative_to(root):
        raise NotFound("There is no such recording.", hint="Check the id.")
    return Places(
        directory / f"{recording_id}.cast",
        directory / f"{recording_id}.index",
        directory / f"{recording_id}.text",
    )
