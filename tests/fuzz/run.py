"""Feed every fuzz target seeded, mutated input: ``python -m tests.fuzz.run [--inputs N] [names…]``.

A target is a module ``fuzz_<noun>.py`` beside this one, with ``SEEDS: list[bytes]`` and
``one_input(data: bytes) -> None``, which raises nothing for any input (the codec's own errors it
swallows itself). The same seed, input count and worker count give the same inputs on any machine;
a failing input is written to a file, with the command that replays it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

__all__ = ["Failure", "Outcome", "fuzz", "main", "mutations", "target_names"]

HERE = Path(__file__).parent
MAX_INPUT = 8192
"""Inputs are cut to this many bytes: the codecs' own caps are within reach, and speed stays."""

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 9, 10, 13, 15, 16, 31, 32, 34, 63, 64, 92, 123, 127, 128,
               129, 192, 193, 196, 217, 220, 222, 223, 224, 240, 254, 255)  # fmt: skip
LENGTHS = (0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that made a target raise."""

    target: str
    data: bytes
    trace: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one worker did with one target."""

    target: str
    inputs: int
    seconds: float
    """Of processor time."""
    failure: Failure | None


def target_names() -> list[str]:
    """The nouns of all targets, sorted."""
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def load(name: str) -> ModuleType:
    """Import the target called *name* (``frames`` for ``fuzz_frames.py``)."""
    return importlib.import_module(f"tests.fuzz.fuzz_{name}")


def mutations(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """An endless, reproducible stream of inputs made from *seeds*.

    One in sixteen is pure noise; the rest are seeds with one to eight edits: flipped bits,
    telling bytes, lengths written over, pieces removed, doubled, swapped or taken from another
    seed. What an edit made stays in a small pool, so that inputs drift away from the seeds.
    """
    source = random.Random(seed)
    pool = [*seeds] or [b""]
    yield from pool
    choose, below = source.choice, source.randrange
    while True:
        if below(16) == 0:
            yield source.randbytes(below(1, 64) if below(8) else below(1, 2048))
            continue
        data = bytearray(choose(pool) if below(4) else choose(seeds or pool))
        for _ in range(1 + below(1 << below(1, 4))):
            mutate(data, source, pool)
        del data[MAX_INPUT:]
        made = bytes(data)
        if below(64) == 0:
            if len(pool) < 256 + len(seeds):
                pool.append(made)
            else:
                pool[below(len(seeds), len(pool))] = made
        yield made


def mutate(data: bytearray, source: random.Random, pool: list[bytes]) -> None:
    """One edit of *data*, in place."""
    below = source.randrange
    if not data:
        data += source.randbytes(below(1, 16))
        return
    at = below(len(data))
    end = min(len(data), at + 1 + below(1 << below(1, 7)))
    kind = below(10)
    if kind == 0:
        data[at] ^= 1 << below(8)
    elif kind == 1:
        data[at] = source.choice(INTERESTING)
    elif kind == 2:
        data[at] = below(256)
    elif kind == 3:
        width = source.choice((2, 3, 4, 8))
        value = min(source.choice(LENGTHS) + below(-1, 2), (1 << (8 * width)) - 1)
        data[at : at + width] = max(0, value).to_bytes(width, source.choice(("big", "little")))
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end]
    elif kind == 6:
        data[at:at] = source.randbytes(end - at)
    elif kind == 7:
        piece = data[at:end]
        del data[at:end]
        to = below(len(data) + 1)
        data[to:to] = piece
    elif kind == 8:
        other = source.choice(pool)
        if other:
            cut = below(len(other))
            data[at:end] = other[cut : cut + end - at + below(8)]
    else:
        del data[at:]


def fuzz(name: str, inputs: int, seed: int) -> Outcome:
    """Give the target called *name* that many *inputs*; stop at its first failure."""
    module = load(name)
    one_input: Callable[[bytes], None] = module.one_input
    started = time.process_time()
    done = 0
    for data in mutations(list(module.SEEDS), seed):
        if done >= inputs:
            break
        try:
            one_input(data)
        except Exception:  # the target's promise is that there is none, whatever its kind
            failure = Failure(name, data, traceback.format_exc())
            return Outcome(name, done + 1, time.process_time() - started, failure)
        done += 1
    return Outcome(name, done, time.process_time() - started, None)


def _job(job: tuple[str, int, int]) -> Outcome:
    return fuzz(*job)


def jobs_for(names: list[str], inputs: int, workers: int, seed: int) -> list[tuple[str, int, int]]:
    """Split each target's *inputs* over *workers*, every share with a seed of its own."""
    shares = [inputs // workers + (1 if i < inputs % workers else 0) for i in range(workers)]
    return [(name, count, seed * 1000 + i) for name in names for i, count in enumerate(shares)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(target_names())}; default all")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, help="give this file to the one target named")
    options = parser.parse_args(arguments)
    names = options.names or target_names()
    if unknown := sorted(set(names) - set(target_names())):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(target_names())}")
    if options.replay is not None:
        if len(options.names) != 1:
            parser.error("--replay needs exactly one target name")
        load(names[0]).one_input(options.replay.read_bytes())
        print(f"fuzz: {names[0]} took {options.replay} without an error")
        return 0
    jobs = jobs_for(names, options.inputs, options.workers, options.seed)
    totals: dict[str, tuple[int, float]] = dict.fromkeys(names, (0, 0.0))
    failures: list[Failure] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers) as pool:
        for outcome in pool.imap_unordered(_job, jobs):
            count, seconds = totals[outcome.target]
            totals[outcome.target] = (count + outcome.inputs, seconds + outcome.seconds)
            if outcome.failure is not None:
                failures.append(outcome.failure)
    for name, (count, seconds) in totals.items():
        rate = count / seconds if seconds else 0.0
        print(f"fuzz: {name}: {count:,} inputs, {seconds:.1f} s of processor, {rate:,.0f}/s")
    for failure in failures:
        path = Path(f"fuzz-{failure.target}-{hashlib.sha256(failure.data).hexdigest()[:8]}.bin")
        path.write_bytes(failure.data)
        print(f"\nfuzz: {failure.target} raised:\n{failure.trace}", file=sys.stderr)
        print(
            f"fuzz: replay with: python -m tests.fuzz.run {failure.target} --replay {path}",
            file=sys.stderr,
        )
    print(f"fuzz: {len(names)} targets, {len(failures)} failures")
    return 1 if failures or not names else 0


if __name__ == "__main__":
    sys.exit(main())
