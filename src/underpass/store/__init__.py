"""Where things are kept: the database, the short-lived key-value store, recording files."""
