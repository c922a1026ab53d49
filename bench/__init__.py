"""Benchmarks of Underpass, each part run by ``python -m bench <part>``."""
