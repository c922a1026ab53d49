"""Checks on the repository itself: that what it promises about its own shape holds."""
