"""The routes as a document, for generated clients."""

from __future__ import annotations

import json

import pytest

from underpass.gateway.openapi import description, main


def test_it_describes_the_contract_without_a_running_gateway() -> None:
    document = description()
    assert document["openapi"].startswith("3.")
    for path in (
        "/api/v1/register",
        "/api/v1/approve",
        "/api/v1/heartbeat",
        "/api/v1/assets/{agent_id}/tty/authorize",
        "/api/v1/sessions",
        "/api/v1/recordings",
        "/api/v1/auth/login",
    ):
        assert any(
            known.split("{")[0] == path.split("{")[0] and known.endswith(path.split("}")[-1])
            for known in document["paths"]
        ), path


def test_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for methods in description()["paths"].values()
        for operation in methods.values()
    ]
    assert len(names) == len(set(names))


def test_printing_is_stable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    first = capsys.readouterr().out
    main()
    assert capsys.readouterr().out == first
    assert json.loads(first)["paths"]
