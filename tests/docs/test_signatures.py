"""The worked example of docs/reference/signatures.md runs as written and is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from underpass.control.heartbeats import HEARTBEAT_PATH, check_heartbeat
from underpass.wire.applications import (
    encrypt_secret,
    key_fingerprint,
    parse_application,
    register_text,
    verify_application,
)
from underpass.wire.signatures import (
    parse_signed_body,
    parse_signed_headers,
    sign_body,
    verify_headers,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "signatures.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """Every Python block of the page, run in order in one namespace; its asserts hold."""
    names: dict[str, Any] = {}
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_gateway_takes_the_application(example: dict[str, Any]) -> None:
    application = parse_application(example["register_body"].encode())
    key = verify_application(application)
    assert key_fingerprint(key) == example["fingerprint"]
    assert application.timestamp == 1767225600
    assert register_text(
        application.client_id,
        application.hostname,
        application.nonce,
        application.timestamp,
        application.public_key,
    ).startswith(application.client_id.encode())


def test_the_applicant_reads_the_secret(example: dict[str, Any]) -> None:
    encrypted = encrypt_secret(example["key"].public_key(), example["secret"])
    assert example["take_secret"](encrypted) == example["secret"]


def test_the_gateway_takes_the_heartbeat(example: dict[str, Any]) -> None:
    body = parse_signed_body(example["heartbeat_body"].encode())
    heartbeat = check_heartbeat(body, secret=example["secret"], last=None, now=1767225631.0)
    assert heartbeat.dynamic_info["cpu_percent"] == 12.5
    assert sign_body(example["secret"], "POST", HEARTBEAT_PATH, body.fields) == example["heartbeat"]


def test_the_gateway_takes_the_headers(example: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in example["headers"].items()}
    verify_headers(example["secret"], "GET", example["path_query"], parse_signed_headers(headers))
