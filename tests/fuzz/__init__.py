"""Fuzz targets, one codec each, and the runner that feeds them."""
