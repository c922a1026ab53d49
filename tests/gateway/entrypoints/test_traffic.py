"""Counting what passes, while it passes."""

from __future__ import annotations

from underpass.gateway.entrypoints.traffic import Traffic, Usage


class End:
    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0


def test_what_is_open_counts_already() -> None:
    traffic, end = Traffic(), End()
    end.bytes_in, end.bytes_out = 50, 7  # a header came in, an answer of ours went out
    traffic.begin(end, 100.0, preamble=30)
    assert traffic.active == 1
    end.bytes_in += 10
    end.bytes_out += 100
    assert traffic.total() == Usage(1, 30, 100, 100.0)
    traffic.end(end, 101.0)
    traffic.end(end, 102.0)
    end.bytes_in = 10_000
    assert traffic.total() == Usage(1, 30, 100, 101.0)
    assert traffic.active == 0


def test_taking_and_giving_back() -> None:
    traffic, end = Traffic(), End()
    assert not traffic.take()
    traffic.begin(end, 1.0)
    end.bytes_in = 5
    usage = traffic.take()
    assert (usage.connections, usage.sent) == (1, 5)
    assert not traffic.take()  # nobody gets it twice,
    assert (traffic.pending().sent, traffic.settled) == (5, False)  # but it does not last yet
    end.bytes_in = 8
    traffic.give_back(usage)
    assert traffic.settled
    assert (traffic.pending().connections, traffic.take().sent) == (1, 8)


def test_what_lasts_is_pending_no_more() -> None:
    traffic, end = Traffic(), End()
    traffic.begin(end, 1.0)
    end.bytes_in = 5
    first = traffic.take()
    end.bytes_in = 8
    second = traffic.take()
    assert traffic.writes == 2
    traffic.keep(second)
    assert (traffic.pending(), traffic.settled) == (Usage(1, 5, 0, 1.0), False)
    traffic.keep(first)
    assert (traffic.pending(), traffic.settled) == (Usage(0, 0, 0, 1.0), True)


def test_rates() -> None:
    traffic, end = Traffic(), End()
    traffic.begin(end, 1.0)
    traffic.sample(1.0, 10.0)
    assert (traffic.sent_rate, traffic.received_rate) == (0.0, 0.0)
    end.bytes_in, end.bytes_out = 1000, 500
    traffic.sample(3.0, 12.0)
    assert (traffic.sent_rate, traffic.received_rate) == (500.0, 250.0)
    assert traffic.last_active_at == 3.0
    traffic.sample(3.0, 12.0)  # no time has passed: nothing to say
    assert traffic.sent_rate == 500.0
    traffic.sample(5.0, 14.0)
    assert (traffic.sent_rate, traffic.last_active_at) == (0.0, 3.0)
