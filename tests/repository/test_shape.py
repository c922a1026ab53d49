"""Names, sizes and mirrors: a stranger finds any line by its noun, and its test beside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from underpass.cli.main import COMMANDS
from underpass.gateway.app import ROUTERS

from .files import ROOT, repository_files, text_of

PACKAGE = ROOT / "src" / "underpass"
VAGUE = {"util", "utils", "common", "helper", "helpers", "manager", "misc"}
MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
    and "migrations" not in path.parts
    and "console" not in path.relative_to(PACKAGE).parts
)


def imports(path: Path) -> set[str]:
    """Dotted names of the package that the file at *path* imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.startswith("underpass.")}


def file_of(dotted: str) -> Path | None:
    """The file of a module or package."""
    base = PACKAGE.joinpath(*dotted.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def reached_by_tests() -> set[Path]:
    """Modules that a test imports, and modules of the same folder that those are made of."""
    start = {name for path in (ROOT / "tests").rglob("*.py") for name in imports(path)}
    # Imported by name: tests/cli and tests/gateway call each command and each route.
    start |= {f"underpass.cli.{module}" for module, _ in COMMANDS.values()}
    start |= {module.__name__ for module in ROUTERS}
    waiting = [path for name in start if (path := file_of(name)) is not None]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        near = (file_of(name) for name in imports(path))
        waiting += [n for n in near if n is not None and n.parent == path.parent]
    return found


def test_every_module_is_tested_beside_its_place() -> None:
    """``tests/wire/test_frames.py`` for ``wire/frames.py``; or a test imports it, or a module of
    its folder that a test imports is made of it."""
    reached = reached_by_tests()
    without = [
        str(module)
        for module in MODULES
        if not (ROOT / "tests" / module.parent / f"test_{module.name}").exists()
        and PACKAGE / module not in reached
    ]
    assert not without, f"no test for {without}"


def test_every_folder_has_its_tests() -> None:
    """``tests/wire/handshake/`` or ``tests/wire/test_handshake.py`` for ``wire/handshake/``."""
    without = []
    for folder in sorted({module.parent for module in MODULES}):
        own = ROOT / "tests" / folder
        beside = own.parent / f"test_{folder.name}.py"
        if not beside.exists() and not list(own.glob("test_*.py")):
            without.append(str(folder))
    assert not without


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_says_what_it_is_for(module: Path) -> None:
    tree = ast.parse((PACKAGE / module).read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, f"{module} has no docstring"
    assert len(docstring.splitlines()[0]) > 15, f"{module}: the first line says nothing"


def test_no_vague_names() -> None:
    vague = [p for p in repository_files() if p.suffix in {".py", ".ts", ".tsx"}]
    vague = [p for p in vague if {part.lower() for part in (*p.parts[:-1], p.stem)} & VAGUE]
    assert not vague


def test_no_file_is_a_pile() -> None:
    """Files hold one noun each; past 500 lines they hold two."""
    long = {
        str(path): text.count("\n")
        for path in repository_files()
        if path.parts[0] == "src" and path.suffix == ".py"
        and (text := text_of(path)) is not None and text.count("\n") > 500
    }  # fmt: skip
    assert not long


def test_no_machine_paths_or_registry_hosts() -> None:
    """Nothing of the machine it was written on, no package index addresses (locks included)."""
    hosts = ("pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org",
             "crates" + ".io", "deb.debian" + ".org", "proxy.golang" + ".org")  # fmt: skip
    places = re.compile("(?<![\\w.])/" + "(?:work/(?:main|notes|shared)|root/\\.)")
    found = []
    for path in repository_files():
        text = text_of(path)
        if text is None:
            continue
        found += [f"{path}: {host}" for host in hosts if host in text]
        found += [f"{path}: {match[0]}" for match in places.finditer(text)]
    assert not found


def test_console_packages_are_locked_without_addresses() -> None:
    lock = ROOT / "web" / "package-lock.json"
    assert '"integrity"' in lock.read_text()
    assert '"resolved"' not in lock.read_text()
