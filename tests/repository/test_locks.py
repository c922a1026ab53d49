"""The lock files: exact versions, hashes for everything, no addresses, in step with pyproject."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .files import ROOT

LOCKS = ("bootstrap", "runtime", "dev")


def locked(name: str) -> dict[str, list[tuple[Version, int]]]:
    """Package name -> (version, number of hashes) for each pin (markers may give several)."""
    pins: dict[str, list[tuple[Version, int]]] = {}
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block):
            pin = (Version(match[2]), block.count("--hash=sha256:"))
            pins.setdefault(canonicalize_name(match[1]), []).append(pin)
    return pins


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash(name: str) -> None:
    pins = locked(name)
    assert pins
    bare = [package for package, versions in pins.items() if any(not n for _, n in versions)]
    assert not bare


@pytest.mark.parametrize("name", LOCKS)
def test_no_addresses_and_no_options(name: str) -> None:
    for line in (ROOT / "requirements" / f"{name}.lock").read_text().splitlines():
        assert "://" not in line
        assert not line.startswith("-"), f"an option, not a pin: {line}"


def test_locks_agree_with_each_other() -> None:
    dev = locked("dev")
    for name in ("bootstrap", "runtime"):
        for package, versions in locked(name).items():
            if package in dev:
                assert [v for v, _ in versions] == [v for v, _ in dev[package]], package


def test_locks_satisfy_pyproject() -> None:
    """A dependency added or raised in pyproject.toml needs `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "runtime": project["project"]["dependencies"],
        "dev": [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]],
    }
    for name, requirements in wanted.items():
        pins = locked(name)
        for requirement in map(Requirement, requirements):
            versions = pins.get(canonicalize_name(requirement.name))
            assert versions, f"{requirement} is not in {name}.lock; run `make lock`"
            assert all(requirement.specifier.contains(v) for v, _ in versions), str(requirement)
