"""coopt: how many rounds, how many local steps, and which batch size on which device."""

from coopt._version import __version__

__all__ = ["__version__"]
