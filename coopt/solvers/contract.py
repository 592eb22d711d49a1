"""What a search over (K, tau, s) found and proved."""

from __future__ import annotations

from dataclasses import dataclass

from coopt.objectives.protocol import Bound
from coopt.solvers.whole_units.batches import Ints

# Sums over a fleet agree to about this much between two orders of evaluation.
ROUNDING = 2e-12


@dataclass(frozen=True)
class Incumbent:
    """The best plan so far."""

    value: float
    rounds: int
    local_steps: int
    batch_sizes: Ints
    bound: Bound


@dataclass(frozen=True)
class Search:
    """What the search found and proved.

    Attributes
    ----------
    best : Incumbent
    lower_bound : float
        No plan within the limits has a smaller value.
    finished : bool
        False when the time limit ended the search.
    inner_solves : int
    boxes : int
    """

    best: Incumbent
    lower_bound: float
    finished: bool
    inner_solves: int
    boxes: int
