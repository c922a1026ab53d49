"""An agent's state directory: who it is, its key, the secret it shares with the gateway."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.core.errors import UnderpassError
from underpass.core.ids import is_id, new_id

__all__ = ["KEY_BITS", "AgentState", "StateError"]

_log = structlog.get_logger(__name__)

KEY_BITS = 3072
_MAX_FILE = 64 * 1024


class StateError(UnderpassError):
    """The state directory cannot be used; one line, exit 2."""

    code, status, close_code = "bad_state", 500, 4500


class AgentState:
    """The files of spec 1's enrolment: ``client_id``, ``private_key.pem``, ``agent_secret_key``,
    ``gateway_key``, ``server``.

    Directory 0700, files 0600, whole or not there at all (written beside, synced, renamed).

    Args:
        directory: made if it is missing.

    Raises:
        StateError: it belongs to somebody else, is no directory, or cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"The state directory {directory} cannot be made: {error.strerror}."
            ) from error
        self._guard(directory, 0o700)

    # -- one agent at a time ------------------------------------------------------------------

    def lock(self) -> None:
        """Make sure that no other agent uses this directory; held until :meth:`close`.

        Raises:
            StateError: another agent is running with it (``state_in_use``).
        """
        if self._lock is not None:
            return
        try:
            descriptor = os.open(
                self.directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StateError(
                f"Another agent is running with the state directory {self.directory}.",
                code="state_in_use",
                hint="Give this one its own with --state.",
            ) from None
        self._lock = descriptor

    def close(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- who we are ---------------------------------------------------------------------------

    def client_id(self) -> str:
        """Our id, made on the first call.

        Raises:
            StateError: the file is damaged.
        """
        text = self._read("client_id")
        if text is None:
            text = new_id()
            self._write("client_id", text)
        text = text.strip()
        if not is_id(text):
            raise self._damaged("client_id")
        return text

    def private_key(self) -> rsa.RSAPrivateKey:
        """Our RSA key, made on the first call; that takes a moment, so call it in a thread.

        Raises:
            StateError: the file is damaged.
        """
        pem = self._read("private_key.pem")
        if pem is None:
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode()
            self._write("private_key.pem", pem)
            return key
        try:
            key = serialization.load_pem_private_key(pem.encode(), None)
        except (ValueError, TypeError):
            raise self._damaged("private_key.pem") from None
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < 2048:
            raise self._damaged("private_key.pem")
        return key

    # -- what the gateway gave us -------------------------------------------------------------

    @property
    def enrolled(self) -> bool:
        """Whether there is a secret."""
        return self.secret() is not None

    def secret(self) -> bytes | None:
        """The raw 32-byte secret, or ``None`` before enrolment.

        Raises:
            StateError: the file is damaged.
        """
        return self._read_base64("agent_secret_key")

    def gateway_key(self) -> bytes | None:
        """The gateway's pinned Ed25519 key (raw), if the enrolment brought one.

        Raises:
            StateError: the file is damaged.
        """
        return self._read_base64("gateway_key")

    def server(self) -> str | None:
        """The gateway's URL this agent enrolled at."""
        text = self._read("server")
        return text.strip() if text else None

    def keep_enrolment(self, secret: bytes, *, gateway_key: bytes | None, server: str) -> None:
        """Write what an approval brought; the secret last, because it is what says *enrolled*."""
        self._write("server", server)
        if gateway_key is not None:
            self.keep_gateway_key(gateway_key)
        self._write("agent_secret_key", base64.b64encode(secret).decode())

    def keep_gateway_key(self, key: bytes) -> None:
        """Pin the gateway's key."""
        self._write("gateway_key", base64.b64encode(key).decode())

    def forget_enrolment(self) -> None:
        """Drop secret and pin: the gateway does not know us any more. Id and key stay."""
        for name in ("agent_secret_key", "gateway_key"):
            with contextlib.suppress(FileNotFoundError):
                (self.directory / name).unlink()
        self._sync_directory()

    # -- files --------------------------------------------------------------------------------

    def _read_base64(self, name: str) -> bytes | None:
        text = self._read(name)
        if text is None:
            return None
        try:
            value = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            value = b""
        if len(value) != 32:
            raise self._damaged(name)
        return value

    def _read(self, name: str) -> str | None:
        path = self.directory / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error, name) from error
        with os.fdopen(descriptor, "rb") as file:
            self._guard(path, 0o600)
            try:
                return file.read(_MAX_FILE).decode()
            except (OSError, UnicodeDecodeError):
                raise self._damaged(name) from None

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        beside = self.directory / f".{name}.{secrets.token_hex(8)}"
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            self._sync_directory()
        except OSError as error:
            raise self._unusable(error, name) from error

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _guard(self, path: Path, mode: int) -> None:
        """Refuse what is somebody else's; close what others could read."""
        try:
            found = path.stat()
            if found.st_uid != os.geteuid():
                raise StateError(
                    f"{path} belongs to another user (uid {found.st_uid}).",
                    hint="Give a state directory of your own with --state.",
                )
            if path == self.directory and not stat.S_ISDIR(found.st_mode):
                raise StateError(f"{path} is not a directory.")
            if stat.S_IMODE(found.st_mode) & 0o077:
                path.chmod(mode)
                _log.warning("state_was_readable_by_others", path=str(path), now=oct(mode))
        except OSError as error:
            raise self._unusable(error) from error

    def _damaged(self, name: str) -> StateError:
        return StateError(
            f"{self.directory / name} is damaged.",
            hint="Delete it and let the agent enrol again, or restore it from a backup.",
        )

    def _unusable(self, error: OSError, name: str = "") -> StateError:
        return StateError(f"{self.directory / name} cannot be used: {error.strerror or error}.")
