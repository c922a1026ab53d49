"""Every fuzz target takes a few thousand inputs in each test run; `make fuzz` gives a million."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from tests.fuzz import run as runner

INPUTS = 3000


@pytest.mark.parametrize("name", runner.target_names())
def test_target_raises_nothing(name: str) -> None:
    outcome = runner.fuzz(name, INPUTS, seed=7)
    assert outcome.failure is None, f"{outcome.failure.data!r}\n{outcome.failure.trace}"
    assert outcome.inputs == INPUTS


@pytest.mark.parametrize("name", runner.target_names())
def test_target_has_seeds(name: str) -> None:
    seeds = runner.load(name).SEEDS
    assert seeds
    assert all(isinstance(seed, bytes) for seed in seeds)


def test_mutations_are_reproducible_and_differ() -> None:
    seeds = [b"hello world", bytes(range(64))]
    first = list(itertools.islice(runner.mutations(seeds, 3), 2000))
    assert first == list(itertools.islice(runner.mutations(seeds, 3), 2000))
    assert first[:2] == seeds
    assert len(set(first)) > 1500
    assert max(map(len, first)) <= runner.MAX_INPUT


def test_no_seeds_still_gives_inputs() -> None:
    assert any(itertools.islice(runner.mutations([], 1), 50))


def test_jobs_share_the_inputs_out() -> None:
    jobs = runner.jobs_for(["a", "b"], 11, 2, seed=1)
    assert sum(count for name, count, _ in jobs if name == "a") == 11
    assert len({seed for name, _, seed in jobs if name == "b"}) == 2


def test_a_failing_target_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_input(data: bytes) -> None:
        if data != b"fine":
            raise ValueError("seen")

    target = SimpleNamespace(SEEDS=[b"fine"], one_input=one_input)
    monkeypatch.setattr(runner, "load", lambda name: target)
    outcome = runner.fuzz("made-up", 100, seed=1)
    assert outcome.failure is not None
    assert "ValueError: seen" in outcome.failure.trace
