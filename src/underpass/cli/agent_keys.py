"""Whose end an encrypted stream has: the key known for a machine, the gateway's word, the proof.

Trust on first use: the first key a machine proves is kept, if it is the one the gateway has on
record; from then on nothing else is accepted unless the person says so with ``--agent-key``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from underpass.cli.lean_imports import absent
from underpass.core.errors import Forbidden, InvalidRequest

with absent("rich"):
    from underpass.links.encryption import seal_as_client
    from underpass.links.stream import Stream
    from underpass.links.trust import parse_fingerprint
    from underpass.wire.sealing import WrongKey

__all__ = ["KeyRefused", "KnownKeys", "sealed"]


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


async def sealed(
    stream: Stream,
    *,
    target: str,
    machine: dict[str, Any],
    known: KnownKeys,
    accept: str | None = None,
    note: Callable[[str], None],
) -> Stream:
    """Encrypt *stream*, which was opened to *target* with ``Layers(e2e=True)``.

    Args:
        machine: as the gateway's API describes it (``id``, ``name``, ``key_fingerprint``).
        known: the keys kept on this computer.
        accept: ``--agent-key``: the only key to accept, whatever is kept; it is kept then.
        note: told, in one line, when a key was kept.

    Raises:
        KeyRefused: see there; nothing of the application was sent.
        InvalidRequest: *accept* is no fingerprint.
        UnderpassError: as ``seal_as_client``; *stream* is aborted on every failure.
    """
    identifier, name = str(machine["id"]), str(machine.get("name") or machine.get("hostname") or "")
    kept = known.fingerprint(identifier)
    reported: str | None = machine.get("key_fingerprint")
    try:
        expected = parse_fingerprint(accept) if accept else kept
        if not accept and kept and reported and kept != reported:
            raise _changed(name, kept, reported, "the gateway says it is")
    except (KeyRefused, InvalidRequest) as error:
        stream.abort(error.code, error.message)
        raise

    def new(fingerprint: str) -> None:
        if reported and fingerprint != reported:
            raise KeyRefused(
                f"{name} proves the key {fingerprint}, but the gateway has {reported} on record:"
                " somebody is in between, or the machine is just being enrolled anew.",
                code="agent_key_mismatch",
                hint="Try again in a minute; then compare the key on the machine.",
            )
        known.keep(identifier, fingerprint)
        note(f"Keeping the key of {name}, seen for the first time: {fingerprint}")

    try:
        made = await seal_as_client(stream, target=target, agent_fingerprint=expected, on_new=new)
    except WrongKey as error:
        raise _changed(name, error.expected, error.found, "it now proves") from None
    if accept and expected and expected != kept:
        known.keep(identifier, expected)
        note(f"Keeping the key of {name}: {expected}")
    return made


def _changed(name: str, expected: str, found: str, how: str) -> KeyRefused:
    return KeyRefused(
        f"The key of {name} is not the one known here: it was {expected}, {how} {found}.",
        hint="Either the machine was enrolled anew, or somebody is in between. Compare the key on"
        f" the machine itself; if it is its own, accept it with --agent-key {found}",
        details={"expected": expected, "found": found},
    )
