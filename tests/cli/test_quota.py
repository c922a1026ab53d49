"""``underpass quota`` against a real gateway."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from underpass.cli import exits
from underpass.cli.quota import limit_of

from .conftest import USER, Result

Call = Callable[..., Result]


def test_only_what_is_given_changes(signed_in: Call) -> None:
    result = signed_in("quota", "set", USER, "--monthly-traffic", "10GB", "--bandwidth", "1MB")
    assert result.status == 0, result.err
    assert "10 GB" in result.out
    assert "1 MB/s" in result.out
    assert "renews on" in result.out
    more = signed_in("--json", "quota", "set", USER, "--max-mappings", "5", "--bandwidth", "none")
    limits = {name: more.json[name] for name in ("monthly_traffic", "bandwidth", "max_mappings")}
    assert limits == {"monthly_traffic": 10**10, "bandwidth": None, "max_mappings": 5}
    own = signed_in("quota", "--json")
    assert own.json == signed_in("--json", "quota", USER).json == more.json
    assert signed_in("--json", "quota", "show", more.json["user_id"]).json == more.json
    cleared = ("--monthly-traffic", "none", "--max-mappings", "unlimited")
    assert signed_in("quota", "set", USER, *cleared).status == 0


def test_what_is_wrong(signed_in: Call) -> None:
    assert signed_in("quota", "nobody").status == exits.NOT_FOUND
    for arguments in (("--max-mappings", "-5"), ("--bandwidth", "fast"), ()):
        assert signed_in("quota", "set", USER, *arguments).status == exits.USAGE
    tiny = signed_in("quota", "set", USER, "--bandwidth", "5")
    assert tiny.status != 0
    assert "bandwidth: must be a whole number from 1024" in tiny.err


def test_limits_as_they_are_typed() -> None:
    assert [limit_of(text) for text in ("5", " 0 ", "none", "Unlimited")] == [5, 0, None, None]
    assert [limit_of(text, in_bytes=True) for text in ("10GB", "64ki", "none")] == [
        10**10, 65536, None,
    ]  # fmt: skip
    for text in ("", "5k", "1.5", "٣"):
        with pytest.raises(typer.BadParameter):
            limit_of(text)
