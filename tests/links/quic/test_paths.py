"""Where a peer is: addresses are tried, taken when they answer, and never believed before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from underpass.links.quic.paths import QUESTION, PeerPath, answer_to, question_in

HOME = ("192.0.2.1", 1000)
AWAY = ("198.51.100.7", 2000)
OTHER = ("203.0.113.9", 3000)


def path() -> PeerPath:
    count = iter(range(1, 2000))
    return PeerPath(HOME, secret=lambda: next(count).to_bytes(16, "big"))


def asked(made: PeerPath, now: float) -> bytes:
    question = made.question(now)
    assert question is not None
    datagram, where = question
    assert where == made.trial
    assert not datagram[0] & 0x40  # no QUIC packet
    secret = question_in(datagram)
    assert secret is not None
    return answer_to(secret)


def test_at_home_nothing_is_asked() -> None:
    made = path()
    made.heard(HOME, 1200, 0.0)
    assert made.to(1200, 0.0) == HOME
    assert made.question(0.0) is None
    assert made.asks_at is None


def test_an_address_that_answers_is_taken_any_number_of_times_and_back() -> None:
    made = path()
    for number in range(1, 51):
        there = (AWAY, OTHER, HOME)[number % 3]
        if there == made.current:
            continue
        made.heard(there, 100, float(number))
        word = asked(made, float(number))
        before = made.current
        assert not made.answered(before, word)  # from where it is not
        assert made.current == before
        assert made.answered(there, word)
        assert made.current == there
        assert made.trial is None
        assert made.to(10**6, float(number)) == there
    assert made.moves == 50


def test_what_goes_there_before_it_answers_is_bounded() -> None:
    made = path()
    made.heard(AWAY, 400, 0.0)
    there = sum(made.to(300, 0.0) == AWAY for _ in range(1000))
    assert there == 3  # three times what came, less what is left to ask with
    assert made.question(0.0) is not None
    made.heard(AWAY, 4000, 0.1)
    assert made.to(1200, 0.1) == AWAY
    assert made.to(1200, 60.0) == HOME  # silent: over
    assert made.trial is None


def test_a_packet_from_the_address_in_use_ends_the_trial() -> None:
    made = path()
    made.heard(AWAY, 400, 0.0)
    word = asked(made, 0.0)
    made.heard(HOME, 40, 0.1)
    assert made.trial is None
    assert made.to(1200, 0.1) == HOME
    assert not made.answered(AWAY, word)
    made.heard(AWAY, 400, 0.2)  # the answer's own packet: the same question still holds
    assert made.answered(AWAY, word)


def test_only_the_right_word_counts() -> None:
    made = path()
    made.heard(AWAY, 4000, 0.0)
    word = asked(made, 0.0)
    for wrong in (b"", b"!", word[:-1], word + b"x", b"?" + word[1:], b"!" + bytes(16)):
        assert not made.answered(AWAY, wrong)
    made.heard(OTHER, 4000, 0.1)  # another one now: the first one's word is worth nothing
    assert not made.answered(OTHER, word)
    assert not made.answered(AWAY, word)
    assert made.current == HOME


def test_it_asks_again_with_pauses_and_while_something_comes() -> None:
    made = path()
    made.heard(AWAY, 100_000, 0.0)
    times: list[float] = []
    now = 0.0
    while made.asks_at is not None and now < 30:
        now = max(now, made.asks_at)
        if made.question(now) is not None:
            times.append(round(now, 2))
        else:
            break
    assert times == [0.0, 0.1, 0.35, 0.85, 1.85, 3.85]
    made.heard(AWAY, 100, 9.0)
    assert made.question(9.0) is not None


def test_many_addresses_get_little() -> None:
    """A peer that names address after address can't have much sent there."""
    made = path()
    sent = 0
    for number in range(1000):
        made.heard(("192.0.2.77", number), 40, number * 0.01)
        if made.question(number * 0.01) is not None:
            sent += QUESTION
        sent += 1200 * (made.to(1200, number * 0.01) != HOME)
    assert sent <= 3 * 40 * 1000


def test_questions() -> None:
    made = path()
    made.heard(AWAY, 400, 0.0)
    question = made.question(0.0)
    assert question is not None
    datagram, _ = question
    assert question_in(datagram) == (1).to_bytes(16, "big")
    for other in (b"", datagram[:-1], datagram + b"x", b"\x40" + datagram[1:]):
        assert question_in(other) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([HOME, AWAY, OTHER]),
            st.sampled_from(["heard", "to", "ask", "answer", "guess"]),
            st.integers(1, 1500),
            st.floats(0, 3),
        ),
        max_size=60,
    )
)
def test_whatever_happens_only_an_answer_moves_it(
    steps: list[tuple[tuple[str, int], str, int, float]],
) -> None:
    made = path()
    now = 0.0
    words: dict[tuple[str, int], set[bytes]] = {HOME: set(), AWAY: set(), OTHER: set()}
    received = dict.fromkeys(words, 0)
    sent = dict.fromkeys(words, 0)
    for where, step, size, passed in steps:
        now += passed
        before = made.current
        if step == "heard":
            made.heard(where, size, now)
            received[where] += size
        elif step == "to":
            to = made.to(size, now)
            assert to in (made.current, made.trial)
            if to != made.current:
                sent[to] += size  # type: ignore[index]
        elif step == "ask":
            if (question := made.question(now)) is not None:
                words[question[1]].add(b"!" + question[0][-16:])  # type: ignore[index]
                sent[question[1]] += QUESTION  # type: ignore[index]
        elif step == "guess":
            assert not made.answered(where, b"!" + bytes(16))
        else:
            for word in words[where]:
                if made.answered(where, word):
                    received[where] = sent[where] = 0
                    break
        if step != "answer":
            assert made.current == before
        elif made.current != before:
            assert made.current == where
    for where in words:
        if where != made.current:
            assert sent[where] <= 3 * received[where]
