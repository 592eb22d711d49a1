"""Where a forecast comes from, as a file can say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """What a forecast was made from.

    Attributes
    ----------
    measurement : str
        SHA-256 of what was measured, :attr:`LocalModel.digest`.
    trained : tuple of int, or None
        The devices of the measurement that train, where some never do.
    """

    measurement: str
    trained: tuple[int, ...] | None = None
