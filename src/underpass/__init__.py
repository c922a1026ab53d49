"""One self-hosted system to get to any machine, container or port you own, whatever is between."""

__version__ = "0.1.0"
