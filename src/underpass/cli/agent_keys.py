"""Whose end an encrypted stream has: the key known for a machine, the gateway's word, the proof.

Trust on first use: the first key a machine proves is kept, if it is the one the gateway has on
record; from then on nothing else is accepted unless the person says so with ``--agent-key``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from underpass.cli.lean_imports import absent
from underpass.core.errors import Forbidden, InvalidRequest

with absent("rich"):
    from underpass.links.encryption import seal_as_client
    from underpass.links.stream import Stream
    from underpass.links.trust import parse_fingerprint
    from underpass.wire.sealing import WrongKey

__all__ = ["KeyRefused", "KnownKeys", "PinnedMachine", "sealed"]


class KeyRefused(Forbidden):
    """The machine's key is not the one it has to be.

    Codes: ``agent_key_changed`` (another than the one kept here), ``agent_key_mismatch`` (first
    seen, and another than the gateway's record says).
    """

    code = "agent_key_changed"


class KnownKeys(Protocol):
    """Where proved keys are kept (``KnownMachines``)."""

    def fingerprint(self, machine_id: str) -> str | None: ...
    def keep(self, machine_id: str, fingerprint: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PinnedMachine:
    """A machine whose key matters.

    Its key is kept under its id and under the name the person typed: which machine has a name is
    the gateway's word, and another machine's key under the name they know is a changed key, too.

    Args:
        machine: as the gateway's API describes it (``id``, ``name``, ``key_fingerprint``).
        known: the keys kept on this computer.
        called: the name that was typed; None when it was the id, or nothing.
        accept: ``--agent-key``: the only key to accept, whatever is kept; it is kept then.
    """

    machine: Mapping[str, Any]
    known: KnownKeys
    called: str | None = None
    accept: str | None = None

    @property
    def name(self) -> str:
        """What to call it."""
        machine = self.machine
        return self.called or str(machine.get("name") or machine.get("hostname") or machine["id"])

    @property
    def _places(self) -> list[str]:
        named = [] if self.called is None else [f"name:{self.called.lower()}"]
        return [*named, str(self.machine["id"])]

    @property
    def _reported(self) -> str | None:
        return self.machine.get("key_fingerprint")

    @property
    def kept(self) -> str | None:
        """The key it is known by here; under its name, if there is one, before its id."""
        found = (self.known.fingerprint(place) for place in self._places)
        return next(filter(None, found), None)

    def expected(self) -> str | None:
        """The only key to accept; None when it is seen for the first time.

        Raises:
            KeyRefused: the gateway itself says that it has another key now.
            InvalidRequest: *accept* is no fingerprint.
        """
        if self.accept:
            return parse_fingerprint(self.accept)
        kept, reported = self.kept, self._reported
        if kept and reported and kept != reported:
            raise _changed(self.name, kept, reported, "the gateway says it is")
        return kept

    def keep(self, fingerprint: str) -> None:
        """Remember what it proved."""
        for place in self._places:
            if self.known.fingerprint(place) != fingerprint:
                self.known.keep(place, fingerprint)

    def check_first(self, fingerprint: str) -> None:
        """Compare the first key seen with the gateway's record.

        Raises:
            KeyRefused: it is another.
        """
        if self._reported and fingerprint != self._reported:
            raise KeyRefused(
                f"{self.name} proves the key {fingerprint}, but the gateway has {self._reported} on"
                " record: somebody is in between, or the machine is just being enrolled anew.",
                code="agent_key_mismatch",
                hint="Try again in a minute; then compare the key on the machine.",
            )


async def sealed(
    stream: Stream, *, target: str, machine: PinnedMachine, note: Callable[[str], None]
) -> Stream:
    """Encrypt *stream*, which was opened to *target* with ``Layers(e2e=True)``.

    Args:
        note: told, in one line, when a key was kept.

    Raises:
        KeyRefused: see there; nothing of the application was sent.
        InvalidRequest: what was to be accepted is no fingerprint.
        UnderpassError: as ``seal_as_client``; *stream* is aborted on every failure.
    """
    kept = machine.kept
    try:
        expected = machine.expected()
    except (KeyRefused, InvalidRequest) as error:
        stream.abort(error.code, error.message)
        raise

    def new(fingerprint: str) -> None:
        machine.check_first(fingerprint)
        machine.keep(fingerprint)
        note(f"Keeping the key of {machine.name}, seen for the first time: {fingerprint}")

    try:
        made = await seal_as_client(stream, target=target, agent_fingerprint=expected, on_new=new)
    except WrongKey as error:
        raise _changed(machine.name, error.expected, error.found, "it now proves") from None
    if expected is not None:
        machine.keep(expected)
        if expected != kept:
            note(f"Keeping the key of {machine.name}: {expected}")
    return made


def _changed(name: str, expected: str, found: str, how: str) -> KeyRefused:
    return KeyRefused(
        f"The key of {name} is not the one known here: it was {expected}, {how} {found}.",
        hint="Either the machine was enrolled anew, or somebody is in between. Compare the key on"
        f" the machine itself; if it is its own, accept it with --agent-key {found}",
        details={"expected": expected, "found": found},
    )
