"""What ``underpass login`` remembers: which gateway, which token, which keys to believe.

One file, ``credentials.json`` (0600), in ``UNDERPASS_CONFIG_DIR``, ``$XDG_CONFIG_HOME/underpass``
or ``~/.config/underpass``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from underpass.core.errors import InvalidRequest
from underpass.core.whole_file import replace_file

__all__ = ["Credentials", "Login", "config_directory"]


def config_directory() -> Path:
    """Where the client keeps its configuration; not made yet."""
    if given := os.environ.get("UNDERPASS_CONFIG_DIR"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "underpass"


@dataclass(slots=True)
class Login:
    """One gateway we signed in to.

    Attributes:
        token: an API key made for this machine.
        token_id: its id, so that it can be revoked.
        fingerprint: ``sha256:…`` of the certificate to believe, when it is self-made.
        gateway_key: base64 of the gateway's Ed25519 key, pinned at the first link.
    """

    token: str = field(repr=False)
    token_id: str = ""
    username: str = ""
    fingerprint: str | None = None
    gateway_key: str | None = None


class Credentials:
    """The logins of this user, by gateway address."""

    def __init__(self, directory: Path | None = None) -> None:
        self.path = (directory or config_directory()) / "credentials.json"
        self.current: str | None = None
        """The gateway that is meant when none is named."""
        self.logins: dict[str, Login] = {}

    @classmethod
    def load(cls, directory: Path | None = None) -> Credentials:
        """Read the file; a missing one is empty.

        Raises:
            InvalidRequest: the file is there and can't be read.
        """
        credentials = cls(directory)
        try:
            text = credentials.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return credentials
        except OSError as error:
            raise credentials._bad(error.strerror or str(error)) from None
        try:
            stored: dict[str, Any] = json.loads(text)
            credentials.current = stored.get("current")
            known = Login.__dataclass_fields__
            for server, login in stored.get("logins", {}).items():
                values = {name: value for name, value in login.items() if name in known}
                credentials.logins[server] = Login(**values)
        except (ValueError, TypeError, AttributeError):
            raise credentials._bad("it is not what `underpass login` writes") from None
        return credentials

    def save(self) -> None:
        """Write the file, all of it or nothing, readable by this user only.

        Raises:
            InvalidRequest: it can't be written.
        """
        stored = {
            "current": self.current,
            "logins": {server: asdict(login) for server, login in self.logins.items()},
        }
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, (json.dumps(stored, indent=2) + "\n").encode())
        except OSError as error:
            raise self._bad(error.strerror or str(error)) from None

    def remember(self, server: str, login: Login) -> None:
        """Make *login* the one for *server*, and *server* the current gateway."""
        self.logins[server] = login
        self.current = server

    def forget(self, server: str) -> Login | None:
        """Drop the login for *server*; gives what was dropped."""
        login = self.logins.pop(server, None)
        if self.current == server:
            self.current = next(iter(self.logins), None)
        return login

    def _bad(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"Can't use {self.path}: {why}.",
            code="bad_credentials",
            hint="Put it right or remove it, then run: underpass login",
        )
