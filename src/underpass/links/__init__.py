"""How bytes travel: transports, handshake, mux, streams, relay."""
