"""Logs go to the stderr of the moment and never carry a secret."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from underpass.core.logging import configure_logging, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/api/v1/tty/ws?token=abc&cols=80", "/api/v1/tty/ws?token=***&cols=80"),
        ("http://h/setup?code=xyz", "http://h/setup?code=***"),
        ("Authorization: Bearer ups_1234", "Authorization: Bearer ***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_secret_fields_and_texts_are_taken_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", json=True)
    structlog.get_logger("t").info(
        "happened", password="hunter2", where="/x?token=hunter2", header="Bearer hunter2", count=3
    )
    logging.getLogger("t").error("GET /x?access_token=%s", "hunter2")
    shown = capsys.readouterr().err
    assert "hunter2" not in shown
    record = json.loads(shown.splitlines()[0])
    assert (record["event"], record["password"], record["count"]) == ("happened", "***", 3)
    assert "access_token=***" in shown


def test_a_trace_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    hidden = "a-local-secret"
    try:
        raise ValueError("told")
    except ValueError:
        structlog.get_logger("t").exception("failed", size=len(hidden))
    shown = capsys.readouterr().err
    assert "ValueError: told" in shown
    assert "Traceback" in shown
    assert hidden not in shown


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    structlog.get_logger("t").info("quiet")
    structlog.get_logger("t").warning("loud")
    shown = capsys.readouterr().err
    assert "loud" in shown
    assert "quiet" not in shown
