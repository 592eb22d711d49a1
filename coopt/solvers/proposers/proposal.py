"""What a solver without a search of its own hands over to be judged and bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coopt.solvers.contract import Incumbent


@dataclass(frozen=True)
class Proposal:
    """A plan within all limits.

    Attributes
    ----------
    best : Incumbent
    lower_bound : float
        Of every plan that meets the user's own constraints, where there are any; -inf if not known.
    trace : dict of str to float
        What the solver did; ``"relaxation_value"`` where it solved a relaxation.
    """

    best: Incumbent
    lower_bound: float = -math.inf
    trace: dict[str, float] = field(default_factory=dict)
