"""The gateway's own keys: made once in the state directory, or derived from SECRET_KEY.

Both keys come from one 32-byte master by HKDF, so that there is one thing to back up. Nodes that
share a database share SECRET_KEY, and thereby the key agents have pinned.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from underpass.core.ids import is_id, new_id
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.store.db.models import KeyValue

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["GatewaySecrets", "check_database_key", "prepare_state"]

_MASTER: Final = "secret_key"
_NODE_ID: Final = "node_id"
_SALT: Final = b"underpass gateway secrets v1"
_CHECK: Final = "database_key_check"


@dataclass(frozen=True, slots=True)
class GatewaySecrets:
    """What only this gateway (or its cluster) knows.

    Attributes:
        database_key: 32 bytes that encrypt agents' secrets in the database.
        node_key: signs link handshakes; agents and clients pin its public half.
        node_id: names this node; the same after a restart.
    """

    database_key: bytes
    node_key: Ed25519PrivateKey
    node_id: str

    @classmethod
    def load(cls, settings: GatewaySettings) -> GatewaySecrets:
        """Read the keys, making those that are missing.

        Raises:
            SettingsError: the state directory can't be read or written.
        """
        prepare_state(settings.state)
        given = settings.secret_key
        if given is not None:
            master = given.get_secret_value().encode()
        else:
            text = _read_or_make(settings.state / _MASTER, lambda: secrets.token_hex(32))
            try:
                master = bytes.fromhex(text)
            except ValueError:
                master = b""
            if len(master) < 32:
                raise SettingsError(
                    f"{settings.state / _MASTER} is damaged; restore it from a backup."
                )
        node_id = _read_or_make(settings.state / _NODE_ID, new_id)
        if not is_id(node_id):
            raise SettingsError(f"{settings.state / _NODE_ID} is damaged; delete it.")
        return cls(
            database_key=_derive(master, b"database key"),
            node_key=Ed25519PrivateKey.from_private_bytes(_derive(master, b"node key")),
            node_id=node_id,
        )

    @property
    def public_key(self) -> bytes:
        """The raw 32 bytes of the node's Ed25519 public key."""
        return self.node_key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    @property
    def gateway_key(self) -> str:
        """:attr:`public_key` in base64, as agents and clients pin it."""
        return base64.b64encode(self.public_key).decode()

    @property
    def key_fingerprint(self) -> str:
        """``sha256:`` and the hex SHA-256 of :attr:`public_key`, for people to compare."""
        return "sha256:" + hashlib.sha256(self.public_key).hexdigest()


def prepare_state(state: Path) -> None:
    """Make the state directory, 0700, and see that it can be written.

    Raises:
        SettingsError: it can't, in one line that says why.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(state.stat().st_mode)
        if mode & 0o077:
            state.chmod(0o700)
        probe = state / f".write-test-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"The state directory {state} can't be written: {error.strerror}."
        ) from None


async def check_database_key(database: Database, database_key: bytes, now: float) -> None:
    """See that the database was encrypted with this key, and note it there the first time.

    Raises:
        SettingsError: it was another key, so no agent could sign in any more.
    """
    check = hmac.new(database_key, _CHECK.encode(), "sha256").hexdigest()
    async with database.session() as db:
        row = await db.get(KeyValue, _CHECK)
        if row is None:
            db.add(KeyValue(key=_CHECK, value=check, updated_at=now))
            return
        known = row.value
    if not hmac.compare_digest(known, check):
        raise SettingsError(
            "The database was written with another SECRET_KEY or state directory; "
            "give the one it was made with."
        )


def _derive(master: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) of *master* for one purpose: 32 bytes."""
    return HKDF(hashes.SHA256(), 32, salt=_SALT, info=purpose).derive(master)


def _read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The text in *path*; the first time it is made, by whoever of two starters comes first."""
    try:
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)  # unlike rename, it never replaces
            fresh.unlink()
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise SettingsError(f"Can't use {path}: {reason}.") from None
