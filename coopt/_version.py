"""The version of coopt, written once."""

__version__ = "0.1.0"
