"""Whole batch sizes at one (K, tau), within one limit or two."""
