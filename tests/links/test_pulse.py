"""Whether the peer is alive: round trips, half-open links, and a process that did not run."""

from __future__ import annotations

from tests.links.muxes import pair, settle
from underpass.core.clock import ManualClock
from underpass.links.pulse import Pulse


def test_round_trips_are_measured_and_the_shortest_remembered() -> None:
    clock = ManualClock()
    pings: list[bytes] = []
    pulse = Pulse(clock.monotonic, pings.append, 10, 30)
    for trip in (0.3, 0.1, 0.2):
        pulse.ping()
        clock.advance(trip)
        pulse.pong(pings[-1])
        assert pulse.rtt is not None
        assert abs(pulse.rtt - trip) < 1e-6
    assert pulse.rtt_low is not None
    assert abs(pulse.rtt_low - 0.1) < 1e-6
    for _ in range(60):  # a new route: the old minimum is forgotten in time
        pulse.ping()
        clock.advance(0.5)
        pulse.pong(pings[-1])
    assert abs(pulse.rtt_low - 0.5) < 1e-6


def test_pongs_nobody_asked_for_say_nothing() -> None:
    clock = ManualClock()
    pings: list[bytes] = []
    pulse = Pulse(clock.monotonic, pings.append, 10, 30)
    pulse.pong(b"12345678")
    pulse.pong(b"")
    assert pulse.rtt is None
    for _ in range(100):
        pulse.ping()
    clock.advance(1)
    pulse.pong(pings[0])
    assert pulse.rtt is None
    pulse.pong(pings[-1])
    pulse.pong(pings[-1])
    assert pulse.rtt is not None


def test_two_ends_ping_each_other_every_ten_seconds() -> None:
    a, b = pair()
    for _ in range(60):
        a.clock.advance(1)
        a.mux.tick()
        b.mux.tick()
        settle(a, b)
    assert a.end is b.end is None
    assert a.mux.pulse.rtt == 0


def test_a_half_open_link_is_noticed_within_forty_seconds() -> None:
    a, b = pair()
    settle(a, b)
    seconds = 0
    while a.end is None:  # b has vanished: nothing comes back
        a.clock.advance(1)
        a.mux.tick()
        a.wire.clear()
        seconds += 1
        assert seconds <= 40
    assert a.end.code == "peer_silent"
    assert 29 <= seconds <= 32


def test_any_byte_keeps_the_link_alive() -> None:
    a, b = pair()
    near = a.open()
    settle(a, b)
    for _ in range(100):
        a.clock.advance(1)
        b.sinks[0].stream.send(b".")
        b.deliver()
        a.mux.tick()
        a.wire.clear()
    assert a.end is None
    assert len(near.received) == 100


def test_time_in_which_this_process_did_not_run_is_not_held_against_the_peer() -> None:
    a, b = pair()
    settle(a, b)
    a.mux.tick()
    a.clock.advance(300)
    a.mux.tick()
    assert a.end is None
    settle(a, b)
    for _ in range(10):
        a.clock.advance(1)
        a.mux.tick()
        settle(a, b)
    assert a.end is None
