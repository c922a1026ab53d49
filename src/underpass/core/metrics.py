"""The Prometheus metrics of a process: one registry, each declared once, ``underpass_*``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from underpass.core.tallies import CounterTallies, GaugeTallies

__all__ = [
    "CONTENT_TYPE",
    "DATAGRAMS",
    "DATAGRAMS_DROPPED",
    "DECLARATIONS",
    "HEARTBEATS",
    "HTTP_REQUESTS",
    "HTTP_SECONDS",
    "LINKS",
    "LINKS_MADE",
    "LINK_HANDSHAKES",
    "MAPPINGS",
    "MAPPING_CONNECTIONS",
    "MAPPING_HEALTH",
    "MAPPING_OPENED",
    "MAPPING_PROBES",
    "MAPPING_REFUSALS",
    "QUIC_FIRST_PACKETS",
    "QUOTA_CUTS",
    "QUOTA_REFUSALS",
    "RECORDING_BYTES",
    "REGISTRY",
    "SESSIONS",
    "SESSIONS_STARTED",
    "STREAMS",
    "STREAM_BYTES",
    "STREAM_OPENS",
    "STREAM_RESUMES",
    "TASK_FAILURES",
    "render",
]

CONTENT_TYPE = CONTENT_TYPE_LATEST
REGISTRY = CollectorRegistry(auto_describe=True)

LINKS = Gauge("underpass_links", "Established links.", ["role"], registry=REGISTRY)
LINK_HANDSHAKES = Counter(
    "underpass_link_handshakes_total", "Link handshakes by outcome.", ["role", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
LINKS_MADE = Counter(
    "underpass_links_made_total", "Links made, by who dialled and what carries them.",
    ["role", "carrier"], registry=REGISTRY,
)  # fmt: skip
QUIC_FIRST_PACKETS = Counter(
    "underpass_quic_first_packets_total", "First packets of QUIC connections, by what was done.",
    ["verdict"], registry=REGISTRY,
)  # fmt: skip
STREAMS = GaugeTallies("underpass_streams", "Open streams.", ["kind"], registry=REGISTRY)
STREAM_OPENS = CounterTallies(
    "underpass_stream_opens_total", "Stream openings by outcome.", ["kind", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
STREAM_RESUMES = Counter(
    "underpass_stream_resumes_total", "Streams that went on over another path.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
STREAM_BYTES = Counter(
    "underpass_stream_bytes_total", "Bytes relayed.", ["kind", "direction"], registry=REGISTRY
)
MAPPINGS = Gauge(
    "underpass_mappings", "Mappings with an open entry point.", ["protocol"], registry=REGISTRY
)
DECLARATIONS = Counter(
    "underpass_declarations_total", "Lists of mappings that machines declared, by outcome.",
    ["outcome"], registry=REGISTRY,
)  # fmt: skip
MAPPING_CONNECTIONS = GaugeTallies(
    "underpass_mapping_connections", "Open connections and flows of mappings.", ["protocol"],
    registry=REGISTRY,
)  # fmt: skip
MAPPING_OPENED = CounterTallies(
    "underpass_mapping_opened_total", "Connections and flows that reached their target.",
    ["protocol"], registry=REGISTRY,
)  # fmt: skip
MAPPING_HEALTH = Gauge(
    "underpass_mapping_health", "Mappings whose targets are tried, by what is known of them.",
    ["state"], registry=REGISTRY,
)  # fmt: skip
MAPPING_PROBES = Counter(
    "underpass_mapping_probes_total", "Tries of mappings' targets.", ["type", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
MAPPING_REFUSALS = Counter(
    "underpass_mapping_refusals_total", "Connections and flows turned away.",
    ["protocol", "reason"], registry=REGISTRY,
)  # fmt: skip
DATAGRAMS = Counter(
    "underpass_datagrams_total", "Datagrams passed on.", ["direction"], registry=REGISTRY
)
DATAGRAMS_DROPPED = Counter(
    "underpass_datagrams_dropped_total", "Datagrams lost here.", ["reason"], registry=REGISTRY
)
QUOTA_REFUSALS = Counter(
    "underpass_quota_refusals_total", "What a person's quota did not allow.", ["limit"],
    registry=REGISTRY,
)  # fmt: skip
QUOTA_CUTS = Counter(
    "underpass_quota_cuts_total", "Streams ended because a month's traffic was used up.",
    registry=REGISTRY,
)  # fmt: skip
SESSIONS = Gauge("underpass_sessions", "Live terminal sessions.", ["state"], registry=REGISTRY)
SESSIONS_STARTED = Counter(
    "underpass_sessions_started_total", "Terminal sessions by outcome.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
RECORDING_BYTES = Counter(
    "underpass_recording_bytes_total", "Bytes of recordings written.", registry=REGISTRY
)
HEARTBEATS = Counter(
    "underpass_heartbeats_total", "Agent heartbeats by outcome.", ["outcome"], registry=REGISTRY
)
HTTP_REQUESTS = Counter(
    "underpass_http_requests_total", "HTTP answers.", ["method", "route", "status"],
    registry=REGISTRY,
)  # fmt: skip
HTTP_SECONDS = Histogram(
    "underpass_http_request_seconds", "Time to answer.", ["route"], registry=REGISTRY
)
TASK_FAILURES = Counter(
    "underpass_task_failures_total", "Background tasks that died.", ["owner"], registry=REGISTRY
)


def render() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)
