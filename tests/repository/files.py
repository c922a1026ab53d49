"""The files of the repository, as git sees them (tracked, or new and not ignored)."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "repository_files", "text_of"]

ROOT = Path(__file__).resolve().parents[2]


@cache
def repository_files() -> tuple[Path, ...]:
    """Paths relative to the root, sorted; without git (a source archive), everything of ours."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT, capture_output=True, check=True, text=True,
        ).stdout.split("\0")  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        roots = ("src", "tests", "docs", "scripts", "requirements", "deploy", "bench")
        listed = [
            str(path.relative_to(ROOT)) for root in roots for path in (ROOT / root).rglob("*.*")
        ]
    return tuple(sorted(Path(name) for name in listed if name and (ROOT / name).is_file()))


def text_of(path: Path) -> str | None:
    """The text of *path*, or None when it is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
