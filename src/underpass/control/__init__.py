"""The domain: machines, people, sessions, recordings, events. Decides; does no network I/O."""
