"""The keys that machines have proved to this user: first seen, then kept (``--e2e``).

Beside ``credentials.json``; a machine whose key is another than the one kept here is refused.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast

from underpass.cli.credentials import config_directory
from underpass.core.errors import InvalidRequest

__all__ = ["KnownMachines"]

FILE = "known_machines.json"


class KnownMachines:
    """The keys of one gateway's machines.

    Args:
        server: the gateway's URL.
        path: the file; the user's own when omitted.
    """

    def __init__(self, server: str, path: Path | None = None) -> None:
        self._server = server
        self._path = path or config_directory() / FILE

    def fingerprint(self, machine_id: str) -> str | None:
        """``sha256:…`` of the machine's key; None when it has not been seen."""
        found = self._load().get(self._server, {}).get(machine_id)
        return found if isinstance(found, str) else None

    def keep(self, machine_id: str, fingerprint: str) -> None:
        """Remember the machine's key.

        Raises:
            InvalidRequest: code ``unwritable``.
        """
        known = self._load()
        known.setdefault(self._server, {})[machine_id] = fingerprint
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{FILE}-")
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=2, sort_keys=True)
            Path(name).replace(self._path)
        except OSError as error:
            raise InvalidRequest(
                f"Can't write {self._path}: {error.strerror}.", code="unwritable"
            ) from None

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            found: object = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{self._path} can't be read: {error}.",
                code="unreadable",
                hint="Without it every machine's key is taken as new; remove it only then.",
            ) from None
        if not isinstance(found, dict):
            return {}
        entries = cast("dict[str, object]", found)
        return {
            server: cast("dict[str, Any]", keys)
            for server, keys in entries.items()
            if isinstance(keys, dict)
        }
