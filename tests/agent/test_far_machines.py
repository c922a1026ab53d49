"""Keys of other machines: as on record at first, kept, and no other from then on."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from underpass.agent.far_machines import FILE, FarMachines
from underpass.core.errors import UnderpassError
from underpass.links.encryption import seal_as_agent
from underpass.links.memory import memory_pair
from underpass.links.stream import StreamReset
from underpass.wire.applications import key_fingerprint

TARGET = "tcp:db:5432"


@functools.cache
def key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def fingerprint(number: int) -> str:
    return key_fingerprint(key(number).public_key())


class Case:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked = 0

    async def before(self) -> None:
        """What happens while the gateway is asked for the key."""

    async def open(self, *, proves: int, recorded: int | None = None) -> str:
        """What arrives; whatever is refused, nothing of it did."""

        async def ask() -> str | None:
            self.asked += 1
            await self.before()
            return None if recorded is None else fingerprint(recorded)

        ours, theirs = memory_pair()
        arrived: list[bytes] = []

        async def machine() -> None:
            try:
                stream = await seal_as_agent(theirs, key(proves), target=TARGET)
                arrived.append(await stream.read())
            except UnderpassError:
                return

        async with asyncio.TaskGroup() as group:
            group.create_task(machine())
            try:
                sealed = await FarMachines(self.directory).seal(
                    ours, target=TARGET, machine="m-1", ask=ask
                )
            except UnderpassError as error:
                with pytest.raises(StreamReset):
                    await ours.read()
                return error.code
            sealed.write(b"secret")
            await sealed.write_eof()
        assert arrived == [b"secret"]
        sealed.abort()
        return "opened"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


async def test_the_key_on_record_is_kept_and_holds_whatever_the_record_says(case: Case) -> None:
    assert await case.open(proves=1, recorded=1) == "opened"
    kept = json.loads((case.directory / FILE).read_text())
    assert kept == {"m-1": fingerprint(1)}
    assert await case.open(proves=1, recorded=2) == "opened"
    assert await case.open(proves=2, recorded=2) == "agent_key_changed"
    assert case.asked == 1
    assert json.loads((case.directory / FILE).read_text()) == kept


async def test_at_first_it_has_to_be_the_one_on_record(case: Case) -> None:
    assert await case.open(proves=2, recorded=1) == "agent_key_changed"
    assert await case.open(proves=1) == "no_key_on_record"
    assert not (case.directory / FILE).exists()


@pytest.mark.parametrize("text", ["{", "\udcff", "[]", "null", '{"m-1": 3}', '{"m-2": {}}'])
async def test_keys_that_can_not_be_read_are_no_reason_to_trust_anybody(
    case: Case, text: str
) -> None:
    (case.directory / FILE).write_bytes(text.encode(errors="surrogateescape"))
    assert await case.open(proves=1, recorded=1) == "keys_unreadable"
    assert case.asked == 0


async def test_of_two_first_connections_at_once_the_first_key_counts(case: Case) -> None:
    class Overtaken(Case):
        async def before(self) -> None:
            assert await case.open(proves=1, recorded=1) == "opened"

    late = Overtaken(case.directory)
    assert await late.open(proves=2, recorded=2) == "agent_key_changed"
    assert json.loads((case.directory / FILE).read_text()) == {"m-1": fingerprint(1)}


async def test_a_key_that_can_not_be_kept_is_not_used(case: Case) -> None:
    case.directory = case.directory / "absent"
    assert await case.open(proves=1, recorded=1) == "keys_unwritable"
