"""Half-open connections: a few as they come, then only with a proof, and never too many."""

from __future__ import annotations

from underpass.links.quic.half_open import HalfOpen


def made() -> HalfOpen:
    return HalfOpen(most=20, most_per_address=5, unproved=6, unproved_per_address=2)


def test_a_few_are_taken_as_they_come_then_a_proof_is_asked_for() -> None:
    counts = made()
    for number in range(6):
        assert counts.verdict(f"a{number}", proved=False) == "take"
        counts.add(f"a{number}", proved=False)
    assert counts.verdict("b", proved=False) == "retry"
    assert counts.verdict("b", proved=True) == "take"
    assert counts.count == 6


def test_one_address_has_fewer() -> None:
    counts = made()
    for _ in range(2):
        counts.add("a", proved=False)
    assert counts.verdict("a", proved=False) == "retry"
    assert counts.verdict("b", proved=False) == "take"
    for _ in range(5):
        assert counts.verdict("a", proved=True) == "take"  # forged ones do not take its places
        counts.add("a", proved=True)
    assert counts.verdict("a", proved=True) == "drop"
    assert counts.verdict("a", proved=False) == "drop"


def test_forged_addresses_leave_places_for_others() -> None:
    counts = made()
    for number in range(6):
        counts.add(f"forged{number}", proved=False)
    for number in range(14):
        assert counts.verdict(f"real{number}", proved=True) == "take"
        counts.add(f"real{number}", proved=True)
    assert counts.verdict("one more", proved=True) == "drop"
    assert counts.verdict("one more", proved=False) == "drop"  # a token would be worth nothing


def test_places_are_given_back() -> None:
    counts = made()
    counts.add("a", proved=False)
    counts.add("a", proved=False)
    counts.prove("a")
    assert counts.count == 2
    assert counts.verdict("a", proved=False) == "take"
    counts.remove("a", proved=True)
    counts.remove("a", proved=False)
    assert counts.count == 0


def test_none_at_all() -> None:
    counts = HalfOpen(most=0, most_per_address=5)
    assert counts.verdict("a", proved=False) == counts.verdict("a", proved=True) == "drop"
