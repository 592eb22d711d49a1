"""What a solver is: it takes a problem, a bound and the ranges to consider, and hands back what it found.

Every solver, whether it searches with a proof, tries all (K, tau), or rounds the result of a formula, answers
with a :class:`Found`: the best plan, and a number that no plan can undercut. :mod:`coopt.questions.solve`
turns that into the user's result, and is the only place that does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from coopt.objectives.monotone import MonotoneBound
from coopt.objectives.protocol import Bound
from coopt.problem.problem import Problem
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_units.batches import Ints

# Sums over a fleet agree to about this much between two orders of evaluation.
ROUNDING = 2e-12


@dataclass(frozen=True)
class Incumbent:
    """The best plan so far.

    Attributes
    ----------
    value : float
        The bound at the plan.
    rounds, local_steps : int
    batch_sizes : ndarray of int64, shape (N,)
    bound : Bound
        The one with numbers, where the solver was given a family.
    learning_rate : float or None
        Where it was chosen with the plan; None if it is the problem's.
    """

    value: float
    rounds: int
    local_steps: int
    batch_sizes: Ints
    bound: Bound
    learning_rate: float | None = None

    @property
    def rank(self) -> tuple[float, int, int]:
        """What plans are compared by: ties in value go to the fewest rounds, then the fewest local steps."""
        return self.value, self.rounds, self.local_steps


@dataclass(frozen=True)
class Found:
    """What a solver found and proved.

    Attributes
    ----------
    best : Incumbent
    lower_bound : float
        No plan within the limits has a smaller value; where cost or time is minimised, uses less. -inf from
        a solver that proves nothing.
    finished : bool
        False when the time limit ended the search.
    trace : dict of str to float
        What the solver did, in counts; ``"relaxation_value"`` where it solved a relaxation.
    rounding : float
        A relative gap up to this is only rounding.
    """

    best: Incumbent
    lower_bound: float = -math.inf
    finished: bool = True
    trace: dict[str, float] = field(default_factory=dict)
    rounding: float = ROUNDING


class Solver(Protocol):
    """A function of the problem, the bound, and the nonempty ranges of K and tau that hold every plan.

    What else a solver takes (a gap at which to stop, a time limit, a plan to start from, constraints) are
    arguments of its own.
    """

    def __call__(self, problem: Problem, bound: MonotoneBound, ranges: Ranges) -> Found:
        """Find a plan within all limits."""
        ...
