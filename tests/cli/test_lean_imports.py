"""A module that is hidden for an import is hidden for that import only."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from underpass.cli.lean_imports import absent


def test_hidden_within_the_block_only() -> None:
    sys.modules.pop("colorsys", None)
    with absent("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys")


def test_what_is_loaded_already_stays() -> None:
    with absent("json"):
        assert importlib.import_module("json")


def test_short_commands_do_without_rich() -> None:
    code = (
        "import sys\nimport underpass.cli.api, underpass.cli.links\n"
        "sys.exit('rich' in sys.modules or 'pygments' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
