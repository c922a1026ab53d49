"""The memory store: atomic operations, expiry on time, a cap that refuses rather than forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.core.clock import ManualClock
from underpass.core.errors import InvalidRequest, Unavailable
from underpass.store.kv import MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock, max_entries=4)


async def test_what_is_set_is_got_until_it_expires(store: MemoryStore, clock: ManualClock) -> None:
    await store.set("a", b"1", ttl=10)
    await store.set("b", b"2")
    assert await store.get("a") == b"1"
    clock.advance(9.9)
    assert await store.get("a") == b"1"
    clock.advance(0.1)
    assert await store.get("a") is None
    assert await store.get("b") == b"2"
    assert len(store) == 1


async def test_setting_anew_replaces_the_time_to_live(
    store: MemoryStore, clock: ManualClock
) -> None:
    await store.set("a", b"1", ttl=1)
    await store.set("a", b"2", ttl=100)
    clock.advance(50)
    assert await store.get("a") == b"2"
    await store.set("a", b"3")
    clock.advance(1000)
    assert await store.get("a") == b"3"


async def test_add_is_for_the_first_only(store: MemoryStore, clock: ManualClock) -> None:
    assert await store.add("nonce", b"1", ttl=5)
    assert not await store.add("nonce", b"2", ttl=5)
    clock.advance(5)
    assert await store.add("nonce", b"3", ttl=5)


async def test_take_gives_the_value_to_one(store: MemoryStore, clock: ManualClock) -> None:
    await store.set("ticket", b"x", ttl=5)
    assert await store.take("ticket") == b"x"
    assert await store.take("ticket") is None
    await store.set("ticket", b"y", ttl=5)
    clock.advance(5)
    assert await store.take("ticket") is None


async def test_counting_keeps_the_window_of_the_first(
    store: MemoryStore, clock: ManualClock
) -> None:
    assert [await store.incr("n", ttl=10) for _ in range(3)] == [1, 2, 3]
    clock.advance(9)
    assert await store.incr("n", ttl=10) == 4
    clock.advance(1)
    assert await store.incr("n", ttl=10) == 1
    assert await store.incr("for ever") == 1


async def test_delete_says_whether_it_was_there(store: MemoryStore, clock: ManualClock) -> None:
    await store.set("a", b"1", ttl=1)
    assert await store.delete("a")
    assert not await store.delete("a")
    await store.set("a", b"1", ttl=1)
    clock.advance(1)
    assert not await store.delete("a")


async def test_compare_and_set(store: MemoryStore) -> None:
    assert not await store.compare_and_set("route", b"0", b"1")
    assert await store.compare_and_set("route", None, b"1")
    assert not await store.compare_and_set("route", None, b"2")
    assert await store.compare_and_set("route", b"1", b"2", ttl=5)
    assert not await store.compare_and_set("route", b"1", None)
    assert await store.compare_and_set("route", b"2", None)
    assert await store.get("route") is None


async def test_a_full_store_refuses_and_forgets_nothing(
    store: MemoryStore, clock: ManualClock
) -> None:
    for n in range(4):
        assert await store.add(f"nonce{n}", b"1", ttl=n + 1)
    with pytest.raises(Unavailable) as caught:
        await store.add("nonce4", b"1", ttl=1)
    assert caught.value.code == "kv_full"
    await store.set("nonce0", b"2", ttl=1)  # rewriting takes no room
    assert not await store.add("nonce3", b"1")
    clock.advance(1)
    assert await store.add("nonce4", b"1", ttl=1)


async def test_a_key_has_a_cap(store: MemoryStore) -> None:
    await store.set("k" * 512, b"")
    with pytest.raises(InvalidRequest):
        await store.set("k" * 513, b"")


async def test_rewriting_one_key_for_ever_takes_no_memory(clock: ManualClock) -> None:
    store = MemoryStore(clock, max_entries=10)
    for _ in range(10_000):
        await store.set("a", b"1", ttl=1000)
    assert len(store._expiries) <= 2 * 10 + 65
    clock.advance(1000)
    assert len(store) == 0


async def test_closing_empties_it(store: MemoryStore) -> None:
    await store.set("a", b"1", ttl=5)
    await store.close()
    assert await store.get("a") is None


_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["set", "add", "take", "delete", "advance"]),
        st.sampled_from("abc"),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(_OPERATIONS)
async def test_it_behaves_like_a_dict_with_deadlines(
    operations: list[tuple[str, str, int]],
) -> None:
    clock = ManualClock()
    store, model, now = MemoryStore(clock), dict[str, tuple[bytes, int]](), 0

    def live(key: str) -> bytes | None:
        value, deadline = model.get(key, (None, 0))
        return value if deadline > now else None

    for step, (operation, key, number) in enumerate(operations):
        value = b"%d" % step
        if operation == "set":
            await store.set(key, value, ttl=number)
            model[key] = (value, now + number)
        elif operation == "add":
            absent = live(key) is None
            assert await store.add(key, value, ttl=number) is absent
            if absent:
                model[key] = (value, now + number)
        elif operation == "take":
            assert await store.take(key) == live(key)
            model.pop(key, None)
        elif operation == "delete":
            assert await store.delete(key) is (live(key) is not None)
            model.pop(key, None)
        else:
            clock.advance(number)
            now += number
        for one in "abc":
            assert await store.get(one) == live(one)
