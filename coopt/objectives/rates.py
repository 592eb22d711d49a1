"""How a bound depends on the learning rate: its form at one rate, and a lower bound over a range of rates.

Over an interval [low, high] of rates the pieces of each bound are monotone, each in its own direction, and
together they bound every plan from below:

* the noise term of the floor never falls with the rate: take it at `low`;
* the drift term is a factor that never rises, from Young's inequality, times an average that never falls:
  take the factor at `high` and the average at `low` (the published bounds have no such factor);
* what drawing participants adds never falls either, but for a sum that multiplies its noise and falls where
  losses are strongly convex: take that one at `high`;
* progress at a given floor is monotone: take the better end.

That is again a bound in monotone form. The documentation proves the statements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import Floor, MonotoneBase, MonotoneForm
from coopt.objectives.protocol import Bound, Floats
from coopt.problem.problem import Problem

# Just below the limit Young's parameters still matter, so that the ends of an interval have the same members.
BELOW_LIMIT = 1.0 - 1e-15


@dataclass(frozen=True)
class Rates:
    """A bound on one problem, at any learning rate; the rate of the problem plays no part.

    Attributes
    ----------
    bound : MonotoneBase
    problem : Problem
    largest : float
        The largest learning rate at which the bound holds [1 / curvature].
    drift_factors : callable, optional
        (form, rate) -> what Young's inequality multiplies the drift of each member with, but for constants.
        Never rising with the rate. Without it, nothing multiplies the drift.
    convexity : float, default 0
        Where it is positive, the noise of a draw of participants is multiplied with a sum that falls as the
        rate times the convexity grows.
    """

    bound: MonotoneBase
    problem: Problem
    largest: float
    drift_factors: Callable[[MonotoneForm, float], Floats] | None = None
    convexity: float = 0.0

    def at(self, rate: float) -> Problem:
        """The problem with another learning rate."""
        return replace(self.problem, constants=replace(self.problem.constants, learning_rate=rate))

    def form(self, rate: float) -> MonotoneForm:
        """The monotone form at one rate."""
        return self.bound.monotone_form(self.at(rate))

    def interval(self, low: float, high: float) -> MonotoneForm:
        """A monotone form that is below the bound for every rate from `low` to `high`."""
        # The floor of the low end, with the factor of the high end, is below the floor at every rate between.
        high = min(high, self.largest * BELOW_LIMIT)
        low = min(low, high)
        at_low, at_high = self.form(low), self.form(high)
        factors = np.ones(len(at_low.members))
        if self.drift_factors is not None:
            factors = self.drift_factors(at_low, high) / self.drift_factors(at_low, low)
        drawn = None
        if self.problem.budget.participants is not None and self.convexity > 0.0:
            drawn = low * self.convexity, high * self.convexity
            drawn = drawn[0] * (2.0 - drawn[0]), drawn[1] * (2.0 - drawn[1])
        return _IntervalForm(at_low, at_high, factors, drawn, bool(self.problem.fleet.step_noise.any()))


@dataclass(frozen=True)
class _IntervalForm:
    """A lower bound on a family for every rate between those of two forms, as a monotone form.

    Every member stands twice, with the progress of either end. `drawn` is 1 - r^2 at either end where what
    the noise of a draw of participants is multiplied with may fall with the rate; `lasting` tells whether
    part of that noise stands in the offsets.
    """

    low: MonotoneForm
    high: MonotoneForm
    factors: Floats
    drawn: tuple[float, float] | None
    lasting: bool

    @property
    def members(self) -> tuple[Bound, ...]:
        return (*self.low.members, *self.low.members)

    @property
    def population(self) -> NDArray[np.int64] | None:
        return self.low.population

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        # Member i stands at places i and m + i: once with the progress of each end. Which end is better
        # depends on the floor, so a search takes the smaller value of the two.
        index = active % len(self.low.members)
        floor = self.low.floor(local_steps, index)
        shares, offsets = floor.shares.copy(), floor.offsets * self.factors[index]
        shares[:, 1:] *= self.factors[index, None]
        if self.drawn is not None and local_steps > 1:
            low, high = (
                _powers(form, shortfall, local_steps, index)
                for form, shortfall in zip((self.low, self.high), self.drawn, strict=True)
            )
            # Of the whole drift term only this sum falls with the rate: by its ratio all may be cut down.
            fall = np.divide(high, low, out=np.ones_like(low), where=low > 0.0)
            shares[:, 1:] *= np.minimum(fall, 1.0)[:, None]
            if self.lasting:
                offsets *= np.minimum(fall, 1.0)
        return Floor(offsets, shares, floor.basis)

    def progress(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        index, end = np.divmod(active, len(self.low.members))[::-1]
        ends = [form.progress(steps, index) for form in (self.low, self.high)]
        upper = (end == 1)[:, None]
        return np.where(upper, ends[1][0], ends[0][0]), np.where(upper, ends[1][1], ends[0][1])


def _powers(form: MonotoneForm, shortfall: float, local_steps: int, members: NDArray[np.intp]) -> Floats:
    """Sum of y^j over 0 < j < tau with y = max(r^2, q), for each member; `shortfall` is 1 - r^2."""
    _, length = form.progress(np.ones(1), members)
    short = np.minimum(shortfall, length[:, 0])
    with np.errstate(divide="ignore"):
        powers: Floats = (1.0 - short) * -np.expm1((local_steps - 1) * np.log1p(-short)) / short
    return powers
