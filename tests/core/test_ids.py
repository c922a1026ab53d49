"""Ids that can be trusted in paths, secrets with enough entropy, comparison in constant time."""

from __future__ import annotations

import hashlib

import pytest

from underpass.core.ids import hash_secret, is_id, new_id, new_secret, secrets_equal


def test_ids_are_canonical_and_new_each_time() -> None:
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(is_id(one) for one in made)


@pytest.mark.parametrize(
    "text", ["", "x", "../..", "0E78BD56-D9FB-4F23-BF4F-A67F74327B23", "{}", "a" * 36]
)
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_id(text)
    assert not is_id(new_id() + text + "\n")


def test_secrets_carry_at_least_256_bits_after_their_prefix() -> None:
    secret = new_secret("upt_")
    assert secret.startswith("upt_")
    assert len(secret.removeprefix("upt_")) * 6 >= 256
    assert len({new_secret() for _ in range(100)}) == 100


def test_only_the_hash_is_kept() -> None:
    assert hash_secret("s") == hashlib.sha256(b"s").hexdigest()


def test_comparison() -> None:
    assert secrets_equal("å", "å")
    assert not secrets_equal("a", "b")
    assert not secrets_equal("a", "aa")
