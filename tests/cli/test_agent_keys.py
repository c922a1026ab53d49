"""First use, second use, a changed key, and how a person accepts it."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.cli.agent_keys import KeyRefused, PinnedMachine, sealed
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.links.encryption import seal_as_agent
from underpass.links.memory import memory_pair
from underpass.links.stream import Stream, StreamReset
from underpass.wire.applications import key_fingerprint

TARGET = "tcp:db:5432"


@functools.cache
def key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def fingerprint(number: int) -> str:
    return key_fingerprint(key(number).public_key())


class Kept(dict[str, str]):
    """Keys kept in memory."""

    def fingerprint(self, machine_id: str) -> str | None:
        return self.get(machine_id)

    def keep(self, machine_id: str, fingerprint: str) -> None:
        self[machine_id] = fingerprint


class Case:
    """One machine, seen again and again."""

    def __init__(self) -> None:
        self.known = Kept()
        self.notes: list[str] = []

    async def open(
        self,
        *,
        proves: int,
        reported: int | None,
        accept: str | None = None,
        called: str | None = None,
        identifier: str = "m-1",
    ) -> Stream:
        machine: dict[str, Any] = {"id": identifier, "name": "web-1"}
        if reported is not None:
            machine["key_fingerprint"] = fingerprint(reported)
        ours, theirs = memory_pair()

        async def agent() -> None:
            try:
                stream = await seal_as_agent(theirs, key(proves), target=TARGET)
                stream.write(b"hello")
            except StreamReset:
                pass  # refused before the handshake

        async with asyncio.TaskGroup() as group:
            group.create_task(agent())
            try:
                stream = await sealed(
                    ours, target=TARGET, note=self.notes.append,
                    machine=PinnedMachine(machine, self.known, called, accept),
                )  # fmt: skip
            except UnderpassError as error:
                assert ours.closed
                self.refusal = error
                return ours
            assert await stream.read() == b"hello"
        return stream


async def test_the_first_key_is_kept_and_then_expected() -> None:
    case = Case()
    await case.open(proves=1, reported=1)
    assert case.known == {"m-1": fingerprint(1)}
    assert len(case.notes) == 1
    assert fingerprint(1) in case.notes[0]
    assert not (await case.open(proves=1, reported=1)).closed
    assert len(case.notes) == 1


async def test_a_gateway_that_has_no_record_is_no_reason() -> None:
    case = Case()
    await case.open(proves=1, reported=None)
    assert case.known == {"m-1": fingerprint(1)}


async def test_the_first_key_has_to_be_the_one_on_record() -> None:
    case = Case()
    await case.open(proves=2, reported=1)
    assert case.refusal.code == "agent_key_mismatch"
    assert case.known == {}


@pytest.mark.parametrize(("proves", "reported"), [(1, 2), (2, 1), (2, 2), (2, None)])
async def test_a_changed_key_is_refused(proves: int, reported: int | None) -> None:
    case = Case()
    case.known["m-1"] = fingerprint(1)
    await case.open(proves=proves, reported=reported)
    error = case.refusal
    assert isinstance(error, KeyRefused)
    assert (error.code, error.status) == ("agent_key_changed", 403)
    assert "web-1" in error.message
    assert fingerprint(1) in error.message
    assert f"--agent-key {fingerprint(2)}" in str(error)
    assert case.known == {"m-1": fingerprint(1)}


async def test_a_changed_key_is_accepted_by_naming_it() -> None:
    case = Case()
    case.known["m-1"] = fingerprint(1)
    wanted = fingerprint(2).removeprefix("sha256:").upper()
    assert not (await case.open(proves=2, reported=2, accept=wanted)).closed
    assert case.known == {"m-1": fingerprint(2)}
    assert len(case.notes) == 1
    assert not (await case.open(proves=2, reported=2, accept=wanted)).closed
    assert len(case.notes) == 1
    assert not (await case.open(proves=2, reported=2)).closed


async def test_naming_another_key_accepts_nothing() -> None:
    case = Case()
    case.known["m-1"] = fingerprint(1)
    await case.open(proves=2, reported=2, accept=fingerprint(3))
    assert isinstance(case.refusal, KeyRefused)
    assert case.known == {"m-1": fingerprint(1)}
    await case.open(proves=1, reported=1, accept="no fingerprint")
    assert isinstance(case.refusal, InvalidRequest)


@pytest.mark.parametrize("reported", [2, None])
async def test_another_machine_under_the_name_is_a_changed_key(reported: int | None) -> None:
    """Which machine has a name is the gateway's word."""
    case = Case()
    await case.open(proves=1, reported=1, called="Web-1")
    assert case.known == {"name:web-1": fingerprint(1), "m-1": fingerprint(1)}
    await case.open(proves=2, reported=reported, called="web-1", identifier="m-2")
    assert isinstance(case.refusal, KeyRefused)
    assert "m-2" not in case.known


async def test_a_known_machine_does_not_pass_for_another() -> None:
    case = Case()
    await case.open(proves=1, reported=1, called="web-1")
    await case.open(proves=2, reported=2, called="db-1", identifier="m-2")
    await case.open(proves=2, reported=2, called="web-1", identifier="m-2")
    assert isinstance(case.refusal, KeyRefused)
    assert not (
        await case.open(proves=2, reported=2, called="web-1", identifier="m-2",
                        accept=fingerprint(2))
    ).closed  # fmt: skip
    assert case.known["name:web-1"] == fingerprint(2)


async def test_a_machine_that_was_renamed_is_known_by_its_id() -> None:
    case = Case()
    await case.open(proves=1, reported=1)
    await case.open(proves=2, reported=2, called="new-name")
    assert isinstance(case.refusal, KeyRefused)
    assert not (await case.open(proves=1, reported=1, called="new-name")).closed
    assert case.known["name:new-name"] == fingerprint(1)
    assert len(case.notes) == 1
