"""The machines that this agent sends encrypted connections to, and the keys they have proved.

Trust on first use, as the commands do it (``cli/agent_keys.py``): the first key has to be the one
the gateway has on record, and is kept in ``known_machines.json`` in the state directory; later no
other is taken, whatever the gateway says.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import structlog

from underpass.core.errors import Forbidden, Unavailable, UnderpassError
from underpass.core.whole_file import replace_file
from underpass.links.encryption import seal_as_client
from underpass.links.stream import Stream
from underpass.wire.sealing import WrongKey

__all__ = ["FILE", "FarMachines"]

_log = structlog.get_logger(__name__)

FILE: Final = "known_machines.json"
_MAX_FILE: Final = 4 << 20

Ask = Callable[[], Awaitable[str | None]]
"""Gives the fingerprint the gateway has on record; None when it has none."""


class FarMachines:
    """See the module.

    Args:
        directory: where the keys are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    async def seal(self, stream: Stream, *, target: str, machine: str, ask: Ask) -> Stream:
        """Encrypt *stream*, which leads to *target* at *machine*; aborts it on every failure.

        Args:
            target: exactly as the machine gets it.
            machine: its id.
            ask: called when no key of it is known yet.

        Raises:
            Forbidden: code ``agent_key_changed``: it proved another key than it has to.
            UnderpassError: there is no key to expect, it can't be read or kept, or as
                ``seal_as_client``.
        """
        try:
            kept = self._load().get(machine)
            expected = kept or await ask()
            if expected is None:
                raise Unavailable(
                    "The gateway has no key of that machine on record.", code="no_key_on_record"
                )
        except BaseException as error:
            stream.abort(error.code if isinstance(error, UnderpassError) else "cancelled")
            raise
        try:
            sealed = await seal_as_client(
                stream, target=target, agent_fingerprint=expected, on_new=_nobody
            )
        except WrongKey as error:
            where = f"kept in {self._path}" if kept else "the gateway has on record"
            raise Forbidden(
                f"The machine {machine} proves the key {error.found}, not {error.expected}, which "
                f"is {where}.",
                code="agent_key_changed",
                hint="Either it was enrolled anew, or somebody is in between. Compare the key on "
                f"the machine itself; if it is its own, remove the line from {self._path}.",
            ) from None
        if kept is None:
            try:
                self._keep(machine, expected)
            except BaseException:
                sealed.abort("cancelled")
                raise
            _log.info("machine_key_kept", machine=machine, fingerprint=expected)
        return sealed

    def _keep(self, machine: str, fingerprint: str) -> None:
        known = self._load()
        if known.setdefault(machine, fingerprint) != fingerprint:
            # Another connection was the first meanwhile: the first key is the one that counts.
            raise Forbidden(
                f"The machine {machine} proved two keys at once.", code="agent_key_changed"
            )
        try:
            replace_file(self._path, json.dumps(known, indent=2, sort_keys=True).encode())
        except OSError as error:
            raise Unavailable(
                f"{self._path} can't be written: {error.strerror}.", code="keys_unwritable"
            ) from None

    def _load(self) -> dict[str, str]:
        """The keys that are kept.

        Raises:
            Unavailable: code ``keys_unreadable``: then nothing is trusted.
        """
        try:
            with self._path.open("rb") as file:
                found: object = json.loads(file.read(_MAX_FILE))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{self._path} can't be read: {error}.", code="keys_unreadable"
            ) from None
        entries = cast("dict[str, Any]", found)
        if not isinstance(found, dict) or not all(isinstance(k, str) for k in entries.values()):
            # Not what is kept there: a machine that is missing would be trusted anew.
            raise Unavailable(f"{self._path} holds no keys of machines.", code="keys_unreadable")
        return entries


def _nobody(fingerprint: str) -> None:
    raise AssertionError("a key is always expected")
