"""Sans-I/O codecs: pure functions of bytes and an injected clock."""
