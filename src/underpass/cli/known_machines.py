"""The keys that machines have proved to this user: first seen, then kept (``--e2e``).

Beside ``credentials.json``; a machine whose key is another than the one kept here is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from underpass.cli.credentials import config_directory
from underpass.core.errors import InvalidRequest
from underpass.core.whole_file import replace_file

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
        return self._load().get(self._server, {}).get(machine_id)

    def keep(self, machine_id: str, fingerprint: str) -> None:
        """Remember the machine's key.

        Raises:
            InvalidRequest: code ``unwritable``.
        """
        known = self._load()
        known.setdefault(self._server, {})[machine_id] = fingerprint
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(known, indent=2, sort_keys=True).encode())
        except OSError as error:
            raise InvalidRequest(
                f"Can't write {self._path}: {error.strerror}.", code="unwritable"
            ) from None

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            found: object = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from None
        if not isinstance(found, dict):
            raise self._unreadable("it holds no keys of machines")
        for keys in cast("dict[str, object]", found).values():
            if not isinstance(keys, dict):
                raise self._unreadable("it holds no keys of machines")
            if not all(isinstance(key, str) for key in cast("dict[str, object]", keys).values()):
                raise self._unreadable("what is kept of a machine is no key")
        return cast("dict[str, dict[str, str]]", found)

    def _unreadable(self, why: str) -> InvalidRequest:
        # Never taken as empty: every machine that is missing would be trusted anew.
        return InvalidRequest(
            f"{self._path} can't be read: {why}.",
            code="unreadable",
            hint="Without it every machine's key is taken as new; remove it only then.",
        )
