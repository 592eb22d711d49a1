"""A situation: how it is run, and what its figures say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Figures = dict[str, float]


@dataclass(frozen=True)
class Situation:
    """A row of the page.

    Attributes
    ----------
    name : str
        The first cell of the row.
    says : str
        The cell with the figures, as a format of them.
    run : callable
        Measures the figures.
    """

    name: str
    says: str
    run: Callable[[], Figures]
