"""Recordings as files: where they lie, how they are written, read, searched and removed."""
