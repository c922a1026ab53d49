"""What is dialled first: by what worked, by what was slow, and by links that stalled."""

from __future__ import annotations

import pytest

from underpass.agent.link_choice import (
    LEAVE_QUIC,
    PREFER_QUIC,
    SLOW,
    LinkChoice,
    PathQuality,
)


def quality(*trips: float) -> PathQuality:
    made = PathQuality()
    for trip in trips:
        made.add(trip)
    return made


@pytest.mark.parametrize(
    ("trips", "poor"),
    [
        ([], False),
        ([0.02] * 30, False),
        ([0.02] * 4 + [0.5] * 2, True),  # a third stalls
        ([0.02] * 5 + [0.5] * 1, False),
        ([0.02, 0.5, 0.5, 0.5, 0.5], False),  # too few to say anything
        ([0.02] * 4 + [0.15] * 2, False),  # a busy path, not one that loses
        ([0.4] * 4 + [1.1] * 2, False),  # a long path: a stall is longer there
        ([0.4] * 4 + [1.3] * 2, True),
        ([0.5] * 30 + [0.02] * 30, False),  # what is long ago does not count
    ],
)
def test_a_path_is_poor_when_pings_stall(trips: list[float], poor: bool) -> None:
    assert quality(*trips).poor is poor


def ended(
    choice: LinkChoice,
    carrier: str,
    *,
    took: float = 0.1,
    poor: bool = False,
    now: float = 0.0,
) -> str:
    choice.ended(carrier, dialled_in=took, poor=poor, now=now)  # type: ignore[arg-type]
    return choice.first()


def test_nothing_known_means_all_ways() -> None:
    choice = LinkChoice()
    assert choice.first() == "auto"
    assert ended(choice, "tls") == "auto"


def test_a_websocket_that_worked_is_tried_first_once() -> None:
    choice = LinkChoice()
    assert ended(choice, "websocket") == "websocket"
    assert choice.first() == "auto"


def test_quic_that_came_quickly_does_not_displace_tcp() -> None:
    assert ended(LinkChoice(), "quic") == "auto"


def test_quic_that_came_after_long_waits_is_tried_first_for_an_hour() -> None:
    choice = LinkChoice()
    assert ended(choice, "quic", took=SLOW) == "quic"
    assert ended(choice, "quic", now=100) == "quic"
    assert ended(choice, "quic", now=PREFER_QUIC) == "auto"


def test_a_link_that_stalled_makes_quic_worth_a_try() -> None:
    for carrier in ("tcp", "tls", "websocket"):
        choice = LinkChoice()
        assert ended(choice, carrier, poor=True) == "quic"
        assert choice.first() == "auto"
        assert ended(choice, "quic", now=10) == "quic"  # it did not stall: stay


def test_quic_that_is_no_better_or_not_to_be_had_is_left_alone() -> None:
    choice = LinkChoice()
    assert ended(choice, "tls", poor=True) == "quic"
    assert ended(choice, "quic", poor=True, now=10) == "auto"
    assert ended(choice, "tls", poor=True, now=20) == "auto"
    assert ended(choice, "tls", poor=True, now=10 + LEAVE_QUIC) == "quic"
    choice.quic_failed(1000)
    assert ended(choice, "tls", poor=True, now=1001) == "auto"
    assert ended(choice, "websocket", poor=True, now=1001) == "websocket"


def test_quic_that_fell_silent_is_left_alone_and_the_usual_ways_come_first() -> None:
    choice = LinkChoice()
    assert ended(choice, "quic", took=SLOW) == "quic"
    choice.ended("quic", dialled_in=0.1, poor=False, now=10, silent=True)
    assert choice.first() == "auto"
    assert choice.why == "quic fell silent"
    assert ended(choice, "tls", poor=True, now=20) == "auto"
    assert ended(choice, "tls", poor=True, now=10 + LEAVE_QUIC) == "quic"
    assert choice.why == "tls stalled"


def test_what_may_be_better_than_the_link_there_is() -> None:
    choice = LinkChoice()
    assert choice.better("websocket", poor=False, now=0) == "tcp"
    assert choice.better("quic", poor=False, now=0) == "tcp"
    assert choice.better("tls", poor=False, now=0) is None
    for carrier in ("tcp", "tls", "websocket"):
        assert choice.better(carrier, poor=True, now=0) == "quic"  # type: ignore[arg-type]
    choice.quic_failed(0)
    assert choice.better("tcp", poor=True, now=1) is None
    assert choice.better("tcp", poor=True, now=LEAVE_QUIC) == "quic"


def test_the_better_way_is_dialled_next_whatever_ended() -> None:
    choice = LinkChoice()
    choice.prefer("tcp", 0)
    assert ended(choice, "websocket") == "tcp"
    assert "better" in choice.why
    choice.prefer("quic", 10)
    assert ended(choice, "tcp", poor=True, now=10) == "quic"
    assert choice.better("quic", poor=False, now=20) is None  # TCP stalled: stay
