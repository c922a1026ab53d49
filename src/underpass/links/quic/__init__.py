"""Links over QUIC: each stream on a QUIC stream of its own (docs/adr/0008-quic-links.md)."""
