"""Passwords: rules that say why, hashes that are argon2id, never more than two at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from underpass.control import passwords as module
from underpass.control.passwords import Passwords, check_password_rules
from underpass.core.errors import InvalidRequest, TooManyRequests


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "it has 5 characters, at least 10 are needed"),
        ("", "it has 0 characters"),
        ("x" * 257, "longer than 256"),
        ("Grace.Hopper", "it is the user name"),
        ("aaaaaaaaaaaa", "fewer than 4 different"),
        ("Password123", "first an attacker tries"),
    ],
)
def test_a_weak_password_is_refused_with_the_reason(password: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        check_password_rules(password, "grace.hopper")
    assert caught.value.code == "weak_password"


@pytest.mark.parametrize("password", ["abcdefghij", "длинный пароль", "x1y2" * 64])
def test_ten_characters_of_any_kind_will_do(password: str) -> None:
    check_password_rules(password, "grace")


async def test_hashes_are_salted_argon2id_and_verify() -> None:
    passwords = Passwords(memory_kib=64, time_cost=1)
    one, two = await passwords.hash("a good password"), await passwords.hash("a good password")
    assert one.startswith("$argon2id$")
    assert one != two
    assert await passwords.verify(one, "a good password")
    assert not await passwords.verify(one, "a bad password")
    assert not await passwords.verify(None, "the password of nobody"), "nobody has no password"
    assert not await passwords.verify("not a hash", "x")
    passwords.close()


async def test_old_parameters_are_noticed() -> None:
    old, new = Passwords(memory_kib=64, time_cost=1), Passwords(memory_kib=128, time_cost=1)
    stored = await old.hash("a good password")
    assert not old.needs_rehash(stored)
    assert new.needs_rehash(stored)
    assert new.needs_rehash("garbage")
    assert await new.verify(stored, "a good password")


async def test_never_more_than_two_hashes_at_a_time() -> None:
    passwords = Passwords(memory_kib=64, time_cost=1)
    running, most, lock = 0, 0, threading.Lock()
    verify = passwords._verify

    def watched(stored: str | None, password: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return verify(stored, password)
        finally:
            with lock:
                running -= 1

    passwords._verify = watched  # type: ignore[method-assign]
    answers = await asyncio.gather(*[passwords.verify(None, "x") for _ in range(100)])
    assert not any(answers)
    assert most <= module.CONCURRENT


async def test_too_many_waiting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    passwords = Passwords(memory_kib=64, time_cost=1)
    results = await asyncio.gather(
        *[passwords.hash("a good password") for _ in range(6)], return_exceptions=True
    )
    assert sum(isinstance(one, TooManyRequests) for one in results) == 3
    assert await passwords.hash("again, later on")
