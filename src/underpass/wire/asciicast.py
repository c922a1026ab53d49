"""Writes and reads asciicast recordings: version 2, or 3 where asked for.

Both are lines of JSON: a header, then one event a line. Times are integer microseconds here and
become decimal seconds only when written, so that no sum of floats ever drifts. Sources:
https://docs.asciinema.org/manual/asciicast/v2/ and …/v3/.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from underpass.core.errors import InvalidRequest

__all__ = [
    "MEDIA_TYPE",
    "CastError",
    "CastEvent",
    "CastHeader",
    "CastReader",
    "CastWriter",
    "Utf8Decoder",
]

MEDIA_TYPE = "application/x-asciicast"
MAX_LINE = 1 << 20
"""Longest line a reader keeps, in bytes; longer ones are not ours and are refused."""
_MAX_MICROS = 10**15  # thirty years; anything above is nonsense or an attack on the formatter

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class CastError(InvalidRequest):
    """The bytes are not an asciicast we can read."""

    code = "bad_asciicast"


@dataclass(frozen=True, slots=True)
class CastHeader:
    """What stands in the first line.

    Attributes:
        width, height: the terminal's size at the start, in characters.
        timestamp: Unix time of the start, whole seconds.
        command: what was run.
        title: shown by players; who, on which machine.
        env: only ``SHELL`` and ``TERM``, as the format asks of every recorder.
    """

    width: int
    height: int
    timestamp: int | None = None
    command: str | None = None
    title: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CastEvent:
    """One line after the header: *time_us* is absolute, whatever the version of the file."""

    time_us: int
    code: str
    data: str


class Utf8Decoder:
    """Turns output bytes into text across any split; what can't be UTF-8 becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> int:
        """Bytes taken of a character that is not complete yet (0 to 3)."""
        return len(self._decoder.getstate()[0])

    def feed(self, data: bytes, final: bool = False) -> str:
        """The text that *data* completes."""
        return self._decoder.decode(data, final)


class CastWriter:
    """Makes the lines of one recording; the caller puts them where they belong.

    Times never run backwards: an event with an earlier time gets the time of the one before it.

    Args:
        version: 2 (absolute times) or 3 (intervals, and an ``x`` event with the exit status).
        last_us: time of the last event already written, when a recording is continued.
    """

    def __init__(self, version: Literal[2, 3] = 2, *, last_us: int = 0) -> None:
        if version not in (2, 3):
            raise ValueError("asciicast versions are 2 and 3")
        self.version = version
        self.last_us = last_us
        self._text = Utf8Decoder()
        self.text = ""
        """The text of the newest :meth:`output` or :meth:`flush`, for a search index."""

    @property
    def pending(self) -> int:
        """Output bytes taken but not yet in any line, because their character is incomplete."""
        return self._text.pending

    def header(self, header: CastHeader) -> bytes:
        """The first line."""
        line: dict[str, Any]
        if self.version == 2:
            line = {"version": 2, "width": header.width, "height": header.height}
        else:
            term: dict[str, Any] = {"cols": header.width, "rows": header.height}
            if kind := header.env.get("TERM"):
                term["type"] = kind
            line = {"version": 3, "term": term}
        if header.timestamp is not None:
            line["timestamp"] = header.timestamp
        if header.command:
            line["command"] = header.command
        if header.title:
            line["title"] = header.title
        if header.env:
            line["env"] = dict(header.env)
        return _encoder.encode(line) + b"\n"

    def output(self, data: bytes, at_us: int) -> bytes:
        """An ``o`` line with the text *data* completes; empty when it completes none."""
        self.text = self._text.feed(data)
        return self._event("o", self.text, at_us) if self.text else b""

    def flush(self, at_us: int) -> bytes:
        """No more output: a character left incomplete is written as U+FFFD."""
        self.text = self._text.feed(b"", final=True)
        self._text = Utf8Decoder()
        return self._event("o", self.text, at_us) if self.text else b""

    def resize(self, cols: int, rows: int, at_us: int) -> bytes:
        """An ``r`` line."""
        return self._event("r", f"{cols}x{rows}", at_us)

    def marker(self, label: str, at_us: int) -> bytes:
        """An ``m`` line, shown on the player's time line."""
        return self._event("m", label, at_us)

    def exit(self, status: int | str, at_us: int) -> bytes:
        """An ``x`` line; version 2 has no such event, so nothing there."""
        return self._event("x", str(status), at_us) if self.version == 3 else b""

    def _event(self, code: str, data: str, at_us: int) -> bytes:
        at_us = min(max(at_us, self.last_us), _MAX_MICROS)
        shown = at_us if self.version == 2 else at_us - self.last_us
        self.last_us = max(at_us, self.last_us)
        seconds, micros = divmod(shown, 1_000_000)
        return b'[%d.%06d,"%s",%b]\n' % (seconds, micros, code.encode(), _encoder.encode(data))


class CastReader:
    """Reads a recording in any pieces; an unfinished last line simply has not arrived yet.

    Attributes:
        header: known after the first line.
        version: 2 or 3; 0 before the header.
        consumed: bytes up to the end of the last complete line (where a crashed file is cut).
    """

    def __init__(self) -> None:
        self.header: CastHeader | None = None
        self.version = 0
        self.consumed = 0
        self._rest = bytearray()
        self._time_us = 0

    def feed(self, data: bytes) -> list[CastEvent]:
        """The events of the lines *data* completes.

        Raises:
            CastError: a line is not what the format allows, or longer than 1 MiB.
        """
        self._rest += data
        events: list[CastEvent] = []
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            line = bytes(self._rest[start:end])
            start = end + 1
            self.consumed += len(line) + 1
            if self.header is None:
                self.header = self._parse_header(line)
            elif line.strip() and not (self.version == 3 and line.startswith(b"#")):
                events.append(self._parse_event(line))
        del self._rest[:start]
        if len(self._rest) > MAX_LINE:
            raise CastError("A line of the recording is longer than 1 MiB.")
        return events

    def _parse_header(self, line: bytes) -> CastHeader:
        raw = _json(line)
        if not isinstance(raw, dict):
            raise CastError("The recording does not begin with a header.")
        fields: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        version = fields.get("version")
        if version == 2:
            width, height = fields.get("width"), fields.get("height")
        elif version == 3:
            term: Any = fields.get("term")
            if not isinstance(term, dict):
                raise CastError("The header has no terminal size.")
            width, height = term.get("cols"), term.get("rows")  # pyright: ignore
        else:
            raise CastError("This version of asciicast is not known (only 2 and 3 are).")
        if not _is_size(width) or not _is_size(height):
            raise CastError("The header has no terminal size.")
        self.version = int(version)
        timestamp: Any = fields.get("timestamp")
        env: Any = fields.get("env")
        texts: dict[str, str] = {}
        if isinstance(env, dict):
            for key, value in env.items():  # pyright: ignore
                if isinstance(value, str):
                    texts[str(key)] = value  # pyright: ignore
        return CastHeader(
            width,  # pyright: ignore
            height,  # pyright: ignore
            int(timestamp) if isinstance(timestamp, int | float) else None,
            _text_or_none(fields.get("command")),
            _text_or_none(fields.get("title")),
            texts,
        )

    def _parse_event(self, line: bytes) -> CastEvent:
        raw: Any = _json(line)
        if not isinstance(raw, list) or len(raw) != 3:  # pyright: ignore[reportUnknownArgumentType]
            raise CastError("An event of the recording is not [time, code, data].")
        fields: list[Any] = raw  # pyright: ignore[reportUnknownVariableType]
        when, code, data = fields[0], fields[1], fields[2]
        if isinstance(when, bool) or not isinstance(when, int | float):
            raise CastError("An event of the recording has no time.")
        if not isinstance(code, str) or not isinstance(data, str):
            raise CastError("An event of the recording has no code or no text.")
        if not 0 <= when <= _MAX_MICROS / 1e6:
            raise CastError("An event of the recording lies outside time.")
        micros = round(when * 1_000_000)
        # A reader that leaves out an event must still add its interval (version 3).
        self._time_us = micros if self.version == 2 else self._time_us + micros
        return CastEvent(self._time_us, code, data)


def _json(line: bytes) -> Any:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CastError("A line of the recording is not JSON.") from None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
