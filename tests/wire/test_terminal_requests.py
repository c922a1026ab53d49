"""Opening requests: defaults, clamps, caps."""

from __future__ import annotations

from typing import Any

import pytest

from underpass.core.errors import InvalidRequest
from underpass.wire.terminal_requests import parse_exec_request, parse_pty_request


def test_sizes_are_clamped_not_refused() -> None:
    request = parse_pty_request({"session_id": "s", "cols": 0, "rows": 10**12})
    assert (request.cols, request.rows) == (1, 1000)


def test_pty_request_defaults() -> None:
    request = parse_pty_request({"session_id": "abc", "later": 1})
    assert (request.cols, request.rows, request.offset, request.grace) == (80, 24, None, 600.0)
    assert request.command is None
    assert request.login is None
    assert request.env == {}


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"session_id": ""},
        {"session_id": "x" * 65},
        {"session_id": "s", "command": "x" * 4097},
        {"session_id": "s", "command": "a\0b"},
        {"session_id": "s", "cols": "80"},
        {"session_id": "s", "offset": -1},
        {"session_id": "s", "grace": -1},
        {"session_id": "s", "grace": float("nan")},
        {"session_id": "s", "login": "x" * 65},
        {"session_id": "s", "env": {"lower": "x"}},
        {"session_id": "s", "env": {"A": "x" * 1025}},
        {"session_id": "s", "env": {f"A{n}": "" for n in range(33)}},
        {"session_id": "s", "user": 5},
    ],
)
def test_bad_pty_requests_are_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_pty_request(meta)
    assert caught.value.code == "bad_terminal_request"


def test_exec_requests_take_text_or_words() -> None:
    assert parse_exec_request({"session_id": "s", "command": "ls | wc"}).command == "ls | wc"
    assert parse_exec_request({"session_id": "s", "command": ["ls", ""]}).command == ["ls", ""]


@pytest.mark.parametrize(
    "command",
    [None, "", [], [""], ["a", 1], "a\0", ["a", "\0"], "x" * 40_000, ["x" * 30_000] * 5],
)
def test_bad_exec_requests_are_refused(command: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_exec_request({"session_id": "s", "command": command})
    assert caught.value.code == "bad_command_request"
