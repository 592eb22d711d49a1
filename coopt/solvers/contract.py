"""The contracts of this room: what a solver is, what it hands back, and what an inner problem answers.

A solver looks for rounds K, local steps tau and batches s at once. It takes a problem, a bound, and the
ranges of K and tau to consider. Whether it searches with a proof, tries all (K, tau), or rounds the result
of a formula, it answers with a :class:`Found`: the best plan, and a number that no plan can undercut.
:mod:`coopt.questions.solve` turns that into the user's result, and is the only place that does.

At one (K, tau) only the batches are left to choose: that is the *inner problem*, which has a contract of its
own, :class:`Inner`. It is implemented for a limit on cost, at equal and at unequal costs of a unit
(:mod:`coopt.solvers.exact.inner`), and for limits on cost and energy
(:mod:`coopt.solvers.exact.cost_and_energy`). Searches that divide what is left, best bound first, are run by
:mod:`coopt.solvers.best_first`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from coopt.objectives.monotone import Floor, MonotoneBound
from coopt.objectives.protocol import Bound
from coopt.problem.problem import Problem
from coopt.solvers.exact.noise_bounds import Curve, Cut, Directions
from coopt.solvers.ranges import Ranges
from coopt.solvers.roundoff import SAME_VALUE
from coopt.solvers.whole_units.batches import Floats, Ints, Rounded


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
    device_steps : ndarray of int64, shape (N,), or None
        Where some devices take fewer local steps.
    """

    value: float
    rounds: int
    local_steps: int
    batch_sizes: Ints
    bound: Bound
    learning_rate: float | None = None
    device_steps: Ints | None = None

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
    rounding: float = SAME_VALUE


class Solver(Protocol):
    """A function of the problem, the bound, and the nonempty ranges of K and tau that hold every plan.

    What else a solver takes (a gap at which to stop, a time limit, a plan to start from, constraints) are
    arguments of its own.
    """

    def __call__(self, problem: Problem, bound: MonotoneBound, ranges: Ranges) -> Found:
        """Find a plan within all limits."""
        ...


class Inner(Protocol):
    """Optimal batches at one (K, tau) for one problem and one bound, and what they prove at every other.

    All floors of a family are seen as an offset plus a size times v(t), where v(t) is the smallest noise
    whose two terms have the shares (1 - t, t): t is called the direction, or the angle.

    Attributes
    ----------
    lower, upper : ndarray of int64, shape (N,)
        Smallest and largest batches, as far as the fleet says.
    unit_cost : float or None
        What a unit of batch costs, where that is the same on every device: then :meth:`exact` is exact.
    solves : int
        How often batches were optimised so far.
    """

    lower: Ints
    upper: Ints
    unit_cost: float | None
    solves: int

    def directions(self, floor: Floor) -> Directions:
        """Offsets, sizes and directions of the members."""
        ...

    def weights(self, floor: Floor, angle: float) -> Floats:
        """Weights of the noise in one direction, shape (N,)."""
        ...

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Whole batches in one direction at (K, tau), and a lower bound on v there.

        Parameters
        ----------
        floor : Floor
        rounds, local_steps : int
        angle : float
        multiplier : float, optional
            That of the limit on cost at the continuous optimum, where it is known.
        cutoff : float, optional
            Where unit costs differ: values from here on are of no interest, and the optimum is looked for
            below it. None is content with good batches and a dual value.
        """
        ...

    def cut(
        self, floor: Floor, rounds: int, local_steps: int, angles: Floats, corner: tuple[int, int]
    ) -> tuple[Cut, list[float]]:
        """A cut from the continuous optima at (K, tau), and their multipliers of the limit.

        It holds for plans with as many rounds and local steps as `corner` has, or more.
        """
        ...

    def curve(
        self,
        floor: Floor,
        corner: tuple[int, int],
        units: tuple[int, int],
        angles: Floats,
        multiplier: float,
    ) -> Curve | None:
        """Optima for every number of units from the first to the last; None where units cost differently."""
        ...

    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The prices of cost and of energy of a step at (K, tau) that bound whole batches best."""
        ...
