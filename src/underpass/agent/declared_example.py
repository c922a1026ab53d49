"""The example that ``underpass check --example`` prints: every key there is, with its default."""

from __future__ import annotations

from typing import Final

__all__ = ["EXAMPLE"]

EXAMPLE: Final = """\
# Underpass: what this machine publishes. Put it into the agent's state directory
# (~/.underpass/underpass.yaml, as a service of the system /var/lib/underpass/underpass.yaml), or
# name it with `underpass agent --config FILE`. Check it with `underpass check FILE`.
#
# The agent looks at it every second. A change is applied as a whole or not at all; mappings that
# did not change are not touched, nor are their connections. An admin has to allow it once:
# `underpass machines set NAME --may-declare`.

mappings:
  # All a mapping needs.
  - name: ssh                   # no default; unique in this file
    protocol: tcp               # no default; tcp, udp, socks5, unix
    target: 22                  # PORT or HOST:PORT as this machine sees it; unix: a socket's path;
                                # socks5 has none. The machine's policy decides, too

  # Every key, with its default.
  - name: everything
    protocol: tcp
    target: 127.0.0.1:80
    source:                     # where it comes in at the gateway; `source: 20080` is the same as
      port: 0                   #   its port alone. 0: any free one, which it then keeps
      port_range: null          #   instead of port: 7000-7010, each leads to one as far on
      client_id: null           #   the id of another machine, where it comes in instead
      bind: null                #   an IP address to listen on; null: the gateway's own, or of a
                                #   machine its loopback
    limits:
      bandwidth: null           # bytes a second, each way; null: no limit
      connections: null         # open at a time; null: no limit
      burst: null               # bytes that may pass at once; null: half a second's worth
    options:
      proxy_protocol: null      # v1 or v2: tell the target the client's address
      accept_proxy_protocol: false  # believe such a header from the gateway's trusted proxies
      allow_ips: []             # networks that may connect, such as 192.0.2.0/24; none: all
      deny_ips: []              # networks that may not; wins
      compression: none         # none, zstd, lz4, gzip, adaptive: between gateway and machine
      e2e: false                # with client_id: encrypt from that machine to this one
      carrier: auto             # auto, mux, dedicated: a connection of its own beside the link
      username: null            # socks5: what clients must give
      password: null            #   keep this file to yourself (chmod 600) if it has one
      idle_timeout: null        # seconds without a byte after which a connection ends
    group: null                 # your mappings of one group, on any machine, share a port
    balance: round_robin        # or least_connections, in a group
    health: null                # whether the target is tried; tcp and unix

  # How a target is tried, with the defaults.
  - name: tried
    protocol: tcp
    target: 8080
    health:
      type: tcp                 # the connection is taken; http: a GET is answered 2xx or 3xx
      path: /                   #   of what, with http
      interval: 10.0            # seconds between two tries
      fall: 3                   # failures in a row that take it out
      rise: 2                   # successes in a row that bring it back
"""
