"""``underpass.yaml`` files: refused with a line for every mistake, or what the gateway takes."""

from __future__ import annotations

from underpass.agent.declared import DeclaredError, parse_declared
from underpass.agent.declared_example import EXAMPLE
from underpass.control.declared_plan import wanted_of

SEEDS: list[bytes] = [
    EXAMPLE[-700:].encode(),
    b"mappings:\n- name: ssh\n  protocol: tcp\n  target: 22\n  source: 20022\n",
    b"mappings: [{name: d, protocol: udp, target: '[::1]:53', limits: {bandwidth: 5, burst: 2}}]",
    b"mappings: [{name: s, protocol: unix, target: /s, options: {allow_ips: [10.0.0.0/8]}}]",
    b"mappings: [{name: p, protocol: socks5, options: {username: a, password: b}}]",
    b"mappings: [&a {name: x, protocol: tcp, target: 1, source: {port_range: 1-2, bind: ::}}, *a]",
]

_AGENT = "00000000-0000-4000-8000-000000000001"


def one_input(data: bytes) -> None:
    """Whatever comes is refused, or the gateway understands it."""
    try:
        found = parse_declared(data)
    except DeclaredError as error:
        assert error.problems
        assert all(line.isprintable() for line in error.lines)
        return
    assert len(wanted_of([each.body for each in found], _AGENT)) == len(found)
