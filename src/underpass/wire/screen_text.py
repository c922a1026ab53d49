"""Plain text from terminal output, for searching: escape sequences taken out, piece by piece.

The text file beside a recording is records of ``RS <microseconds> LF text``: the text printed
since the time that stands before it. Control characters other than line ends never get into the
text, so a record separator is unmistakable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["RECORD", "Hit", "TextStripper", "find_hits", "stamp"]

RECORD = b"\x1e"
_MAX_SEQUENCE = 4096
_MAX_LINE = 400  # bytes of a line shown with a hit

_SEQUENCE = re.compile(
    "\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]"  # CSI
    "|\\][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"  # OSC, ended by BEL or ST
    "|[PX^_][^\x1b\x9c]*(?:\x1b\\\\|\x9c)"  # DCS, SOS, PM, APC
    r"|[ -/]+[0-~]"  # character sets and the like
    r"|[0-OQ-WYZ\\`-~]"  # two-character sequences
    ")"
)
_PREFIX = re.compile(
    "\x1b(?:"
    r"\[[0-?]*[ -/]*"
    "|\\][^\x07\x1b\x9c]*\x1b?"
    "|[PX^_][^\x1b\x9c]*\x1b?"
    r"|[ -/]*"
    ")"
)
_BREAK = re.compile(r"\r\n?|\x0b|\x0c")
_RUBOUT = re.compile(r"[^\n\x08]\x08")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


class TextStripper:
    """Feed it decoded output in any pieces; take out what a reader would see, roughly in order.

    It does not follow the cursor: a full-screen program's text comes out in the order it was
    painted, which is what searching needs and all it promises.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The plain text *text* completes. Line ends are ``\\n``."""
        if self._held:
            text = self._held + text
            self._held = ""
        start = text.rfind("\x1b")
        # A string sequence holds its own ESC \ at the end: look from where the sequence begins.
        if start > 0 and start == len(text) - 1:
            start = text.rfind("\x1b", 0, start) if _is_string(text, start) else start
        if start >= 0 and _is_unfinished(text, start):
            if len(text) - start <= _MAX_SEQUENCE:
                self._held = text[start:]
            text = text[:start]
        elif text.endswith("\r"):
            self._held = "\r"
            text = text[:-1]
        if "\x1b" in text:
            text = _SEQUENCE.sub("", text)
        text = _BREAK.sub("\n", text)
        if "\x08" in text:
            before = None
            while before != text:
                before = text
                text = _RUBOUT.sub("", text)
        return _CONTROL.sub("", text)


def _is_string(text: str, escape: int) -> bool:
    earlier = text.rfind("\x1b", 0, escape)
    return earlier >= 0 and text[earlier + 1 : earlier + 2] in ("]", "P", "X", "^", "_")


def _is_unfinished(text: str, start: int) -> bool:
    if _SEQUENCE.match(text, start):
        return False
    match = _PREFIX.match(text, start)
    return match is not None and match.end() == len(text)


def stamp(time_us: int) -> bytes:
    """What stands before the text printed from *time_us* on."""
    return b"%b%d\n" % (RECORD, time_us)


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that holds what was searched for, and the microsecond it began."""

    time_us: int
    line: str


def find_hits(data: bytes, needle: str, *, limit: int, time_us: int = 0) -> tuple[list[Hit], int]:
    """Where *needle* stands in a text file (or a part of one), ignoring case.

    Args:
        data: the text; its first record may have begun before it, at *time_us*.
        needle: not empty.
        limit: most hits to give.

    Returns:
        The hits, one a line at most, and the time of the last record (for the next part).
    """
    hits: list[Hit] = []
    folded = data.decode(errors="replace").lower().encode()
    if len(folded) != len(data):
        # A few characters change length in lower case; offsets must stay those of the text.
        folded = data.lower()
        target = needle.encode().lower()
    else:
        target = needle.lower().encode()
    position = folded.find(target)
    while position >= 0 and len(hits) < limit:
        begin = max(data.rfind(b"\n", 0, position), -1) + 1
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        if not data.startswith(RECORD, begin):
            record = data.rfind(RECORD, 0, position)
            at = _time(data, record) if record >= 0 else time_us
            first = max(begin, position - _MAX_LINE // 2)
            line = data[first : min(end, first + _MAX_LINE)]
            hits.append(Hit(at, line.decode(errors="ignore").strip()))
        position = folded.find(target, end)
    last = data.rfind(RECORD)
    return hits, _time(data, last) if last >= 0 else time_us


def _time(data: bytes, record: int) -> int:
    end = data.find(b"\n", record)
    digits = data[record + 1 : end if end >= 0 else len(data)]
    return int(digits) if digits.isdigit() and len(digits) < 20 else 0
