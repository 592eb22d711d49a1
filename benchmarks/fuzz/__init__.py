"""Readers and public functions against inputs that nobody meant to give."""
