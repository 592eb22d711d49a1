"""Batch sizes for given (K, tau): minimise sum w_i / s_i within a budget for sum a_i s_i and boxes.

The continuous problem is water-filling: s_i = clip(nu sqrt(w_i / a_i), l_i, u_i) with the one level nu
at which the budget is spent; a safeguarded Newton iteration on the piecewise linear spending finds it in
a few passes over the data. The integer problem is separable and convex. At a price c per unit device i
takes the largest t with w_i / (t (t-1)) >= c, that is t(c) = floor(1/2 + sqrt(1/4 + w_i / c)), and

* with equal unit costs, the budget is met exactly by t(c) and a selection among the few devices whose
  next unit is priced at the margin, which is the greedy optimum without its n steps;
* with unequal costs it is a knapsack, see :mod:`coopt.solvers.whole_units.knapsack`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.objectives.monotone import inverse_batches
from coopt.problem.limits import TOLERANCE
from coopt.problem.readable import readable
from coopt.problem.validation import flag, float_array, integer_array, numeric_array, real, same_value
from coopt.solvers.fleet_passes import alone, optimum
from coopt.solvers.whole_units.knapsack import fill
from coopt.solvers.whole_units.unit_prices import units_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@readable
@dataclass(frozen=True, eq=False)
class BatchAllocation:
    """Batch sizes for given (K, tau), with a proof of how good they are.

    Attributes
    ----------
    batch_sizes : ndarray, shape (N,)
        int64, or float64 when ``integer=False``.
    value : float
        sum w_i / s_i.
    lower_bound : float
        No admissible batch sizes have a smaller value; equal to `value` up to rounding, unless the search
        at unequal costs meets its limit.
    multiplier : float
        Dual variable of the budget: by how much the continuous optimum falls per unit of budget.
    """

    __module__ = "coopt"

    batch_sizes: NDArray[np.int64] | NDArray[np.float64]
    value: float
    lower_bound: float
    multiplier: float

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def allocate_batches(
    weights: ArrayLike,
    sample_cost: ArrayLike,
    budget: float,
    lower: ArrayLike,
    upper: ArrayLike,
    integer: bool = True,
) -> BatchAllocation:
    """Minimise sum(weights / s) subject to sum(sample_cost * s) <= budget and lower <= s <= upper.

    Parameters
    ----------
    weights : array_like, shape (N,)
        w_i >= 0, as ``Bound.coefficients`` returns them.
    sample_cost : array_like, shape (N,) or scalar
        a_i >= 0.
    budget : float
        Limit S on the sum; with a cost budget R, S = (R/K - b)/tau.
    lower, upper : array_like, shape (N,) or scalar
        1 <= l_i <= u_i; integers when `integer`, else positive numbers.
    integer : bool, default True
        Whether batch sizes must be whole.

    Returns
    -------
    BatchAllocation

    Raises
    ------
    InvalidProblemError
        If an argument is not a number in its range or has the wrong shape.
    InfeasibleError
        If the lower ends alone exceed the budget; ``smallest_cost`` says what they need.

    Notes
    -----
    Cauchy-Schwarz gives s_i proportional to sqrt(w_i / a_i) where no box binds. Expected O(N).

    Examples
    --------
    >>> from coopt import allocate_batches
    >>> plan = allocate_batches([9.0, 1.0], sample_cost=1.0, budget=8.0, lower=1, upper=100)
    >>> plan.batch_sizes, plan.value
    (array([6, 2]), 2.0)
    >>> allocate_batches([9.0, 1.0], 1.0, 8.0, 1, [5, 100]).batch_sizes
    array([5, 3])
    """
    size = numeric_array("weights", weights).size
    if size == 0:
        raise InvalidProblemError("weights is empty: must have one entry a device, and at least one device")
    w = float_array("weights", weights, size, minimum=0.0)
    a = float_array("sample_cost", sample_cost, size, minimum=0.0)
    limit = real("budget", budget, minimum=0.0, infinite=True)
    low: Ints | Floats
    high: Ints | Floats
    if flag("integer", integer):
        low = integer_array("lower", lower, size, minimum=1)
        high = integer_array("upper", upper, size, minimum=1)
    else:
        low = float_array("lower", lower, size, minimum=0.0, strict=True)
        high = float_array("upper", upper, size, minimum=0.0, strict=True)
    crossed = low > high
    if crossed.any():
        i = int(crossed.argmax())
        raise InvalidProblemError(f"upper[{i}] = {high[i]}: must be at least lower[{i}] = {low[i]}")
    least = float(np.sum(a * low))
    if least > limit * (1.0 + TOLERANCE):
        raise InfeasibleError(
            f"budget = {limit!r} is below {least!r}, the cost of the smallest batches: raise it to that",
            binding="cost",
            smallest_cost=least,
        )
    relaxed = relax(w, a, limit * (1.0 + TOLERANCE), low, high)
    if not integer:
        value = float(np.sum(w / relaxed.batch_sizes))
        return BatchAllocation(relaxed.batch_sizes, value, min(relaxed.value, value), relaxed.multiplier)
    first = float(a[0])
    units = None
    if first > 0.0 and bool((a == first).all()):
        units = math.floor(min(limit * (1.0 + TOLERANCE) / first, float(np.sum(high))))
    whole = round_batches(
        w,
        a,
        limit * (1.0 + TOLERANCE),
        low.astype(np.int64),
        high.astype(np.int64),
        relaxed.multiplier,
        units,
        cutoff=math.inf,
    )
    return BatchAllocation(whole.batch_sizes, whole.value, whole.lower_bound, relaxed.multiplier)


@dataclass(frozen=True)
class Relaxation:
    """The continuous optimum: batch sizes, dual variable of the budget, and its (dual) value."""

    batch_sizes: Floats
    multiplier: float
    value: float


def relax(
    weights: Floats,
    cost: Floats,
    budget: float,
    lower: NDArray[np.floating | np.integer],
    upper: NDArray[np.floating | np.integer],
    population: Ints | None = None,
) -> Relaxation:
    """Continuous optimum of sum w_i (1/s_i - ref_i); the lower ends must fit the budget."""
    devices, batches = alone(weights, cost, lower, upper), np.empty(weights.size)
    _, price, sums = optimum(devices, budget, out=batches)
    value = sums.value
    if population is not None:
        value = float(np.sum(weights * inverse_batches(batches, population)))
    return Relaxation(batches, price, value + price * (sums.spent - budget) if price else value)


def cap_multipliers(
    weights: Floats, cost: Floats, best: Relaxation, caps: Floats | Ints, upper: Floats | Ints
) -> tuple[NDArray[np.intp], Floats]:
    """Devices that a cap below `upper` holds at a continuous optimum, and the dual variables of the caps."""
    held = np.flatnonzero((best.batch_sizes >= caps) & (caps < upper))
    push: Floats = weights[held] / best.batch_sizes[held] ** 2 - best.multiplier * cost[held]
    return held, np.maximum(push, 0.0)


@dataclass(frozen=True)
class Rounded:
    """An integer point, its value, and a proved lower bound on the value of every integer point."""

    batch_sizes: Ints
    value: float
    lower_bound: float


def round_batches(
    weights: Floats,
    cost: Floats,
    budget: float,
    lower: Ints,
    upper: Ints,
    multiplier: float,
    units: int | None,
    multiple: Ints | None = None,
    population: Ints | None = None,
    cutoff: float | None = None,
) -> Rounded:
    """Integer batch sizes near the continuous optimum with the given multiplier.

    `units` is the number of units (of `multiple` samples) that fit when all units cost the same, which
    is then exact; None when they do not. `lower` and `upper` are multiples of `multiple`. Where unit costs
    differ the point is the optimum if that is below `cutoff`; a good one, next to the dual value, if None.
    """
    if multiple is None:
        least, most, gains, prices = lower, upper, weights, cost
    else:
        least, most = lower // multiple, upper // multiple
        gains, prices = weights / multiple, cost * multiple
    useful = np.where((gains > 0.0) | (prices == 0.0), most, least)
    reference = 0.0 if population is None else float(np.sum(weights / population))
    dual = math.inf
    if multiplier == 0.0 and (units is None or int(useful.sum()) <= units):
        taken = useful
    elif units is not None:
        taken = _select_units(gains, least, useful, units, multiplier * float(prices[0]))
    else:
        highest = None if cutoff is None else cutoff + reference
        found = fill(gains, prices, budget, least, useful, multiplier, highest)
        taken, dual = found.units, found.lower_bound - reference
    batches = taken if multiple is None else taken * multiple
    value = float(np.sum(weights * inverse_batches(batches.astype(np.float64), population)))
    return Rounded(batches, value, min(dual, value))


def _select_units(gains: Floats, least: Ints, most: Ints, units: int, price: float) -> Ints:
    """The `units` best units of all devices, found by a price and a selection at the margin."""
    if int(least.sum()) >= units:
        return least
    if int(most.sum()) <= units:
        return most
    price = price if price > 0.0 else float(gains.max()) / units**2
    spread = 1.0 + 4.0 * math.sqrt(gains.size) / units
    dear, cheap = price * spread, price / spread
    few = units_at(gains, dear, least, most)
    while int(few.sum()) > units:
        dear, spread = dear * spread, spread * spread
        few = units_at(gains, dear, least, most)
    many = units_at(gains, cheap, least, most)
    while int(many.sum()) < units:
        cheap, spread = cheap / spread, spread * spread
        many = units_at(gains, cheap, least, most)
    # Shrink the bracket until no device has two units between the prices: then gains can be compared.
    while int((many - few).max()) > 1:
        price = math.sqrt(dear) * math.sqrt(cheap)
        if not cheap < price < dear:
            break
        middle = units_at(gains, price, least, most)
        if int(middle.sum()) > units:
            cheap, many = price, middle
        else:
            dear, few = price, middle
    missing = units - int(few.sum())
    candidates = np.flatnonzero(many > few)
    next_units = few[candidates].astype(np.float64)
    marginal = gains[candidates] / (next_units * (next_units + 1.0))
    chosen = candidates[np.argsort(-marginal, kind="stable")[:missing]]
    few[chosen] += 1
    return few


def unit_curve(
    weights: Floats,
    lower: Ints,
    upper: Ints,
    first: int,
    last: int,
    price: float,
    multiple: Ints | None = None,
    population: Ints | None = None,
) -> Floats:
    """Integer optima for every number of units from `first` to `last`, when all units cost the same.

    The greedy optima are nested, so those between two of them follow from the sorted gains of the units
    that the larger one adds: two selections and a sort, not one solve for each.
    """
    if multiple is None:
        least, most, gains = lower, upper, weights
    else:
        least, most, gains = lower // multiple, upper // multiple, weights / multiple
    useful = np.where(gains > 0.0, most, least)
    few = _select_units(gains, least, useful, first, price)
    many = _select_units(gains, least, useful, last, price)
    batches = (many if multiple is None else many * multiple).astype(np.float64)
    end = float(np.sum(weights * inverse_batches(batches, population)))
    added = np.maximum(many - few, 0)
    device = np.repeat(np.arange(added.size), added)
    # Position of each added unit among those of its device.
    rank = np.arange(device.size) - np.repeat(np.cumsum(added) - added, added)
    units = (few[device] + rank).astype(np.float64)
    ascending = np.sort(gains[device] / (units * (units + 1.0)))
    values = end + np.concatenate([[0.0], np.cumsum(ascending)])[::-1]
    # Fewer units than asked for are added where no further unit is of use.
    return np.concatenate([values, np.full(last - first + 1 - values.size, end)])
