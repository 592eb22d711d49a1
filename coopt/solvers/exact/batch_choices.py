"""Batches from lists of allowed sizes: the inner problem where not every whole number will do.

At a price per sample every device takes the size with the smallest w / s + price s, which bounds all plans
from below; the best price is found by bisection, since dearer samples never make batches larger. From there
on a plan is found by greedy filling. What separates the two is closed by enumeration where it can be: a plan
that is better than the one at hand must choose, on every device, a size whose loss at the price is less than
the gap; partial plans that another one beats in noise and in spending are dropped. Where too many remain, the
gap stays, and is stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt.objectives.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.cost_and_energy import BothLimits
from coopt.solvers.exact.inner import InnerProblem, Spending
from coopt.solvers.whole_units.batches import Floats, Ints, Rounded

# Halvings of the logarithm of the price, from the range in which anything happens.
HALVINGS = 60
# Partial plans that are kept at most before the gap is left open.
MOST_PARTIAL = 20_000
# A gap that rounding can explain.
ROUNDING = 1e-13


@dataclass(frozen=True)
class _Priced:
    """The sizes taken at a price, as places in the table, and the lower bound that they prove."""

    places: Ints
    bound: float
    price: float


class BatchChoices(InnerProblem):
    """The inner problem of a fleet with ``batch_choices``, under limits on cost, energy or both.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        super().__init__(problem, form)
        table = problem.fleet.choice_table
        self._table: Ints = np.empty((0, 0), dtype=np.int64) if table is None else table
        self._both = BothLimits(problem) if problem.budget.energy < math.inf else None

    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The limit on cost, or its best mixture with that on energy."""
        if self._both is not None:
            return self._both.mixed(weights, (rounds, local_steps), self.lower, upper)
        fleet, budget = self.problem.fleet, self.problem.budget
        spend = limits.step_budget(self.problem, rounds, local_steps)
        most = budget.cost * (1.0 + limits.TOLERANCE)
        return Spending(fleet.sample_cost, spend, most, budget.round_cost, fleet.whole_step_cost)

    def _whole(self, weights: Floats, prices: Floats, most: Ints) -> Floats:
        """The sizes up to `most` that each device takes at these prices a sample."""
        sizes, _ = _taken(_noise(weights, self._table, self.form.population), self._table, prices, most)
        return self._table[np.arange(len(self._table)), sizes].astype(np.float64)

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Allowed sizes in one direction at (K, tau); optimal unless too many combinations are open."""
        del multiplier, cutoff  # the price is looked for anew, and the gap closed where it can be
        self.solves += 1
        weights = self.weights(floor, angle)
        return chosen(
            self.problem, self._table, weights, rounds, local_steps, self.form.population, self._both
        )

    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The prices of cost and of energy that bound allowed sizes best."""
        most = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        spending = self.spending(weights, rounds, local_steps, np.maximum(most, self.lower))
        price = _best_price(
            _noise(weights, self._table, self.form.population), self._table, spending, most
        ).price
        if self._both is None:
            return price, 0.0
        cost, energy = self._both.shares
        return price * cost, price * energy


def chosen(
    problem: Problem,
    table: Ints,
    weights: Floats,
    rounds: int,
    local_steps: int,
    population: Ints | None,
    both: BothLimits | None = None,
) -> Rounded:
    """The best allowed sizes at (K, tau) that were found, and a bound on all.

    Parameters
    ----------
    problem : Problem
        Plain.
    table : ndarray of int64, shape (N, C)
        The sizes of each device, ascending.
    weights : ndarray, shape (N,)
        Of the noise w_i / s_i.
    rounds, local_steps : int
    population : ndarray of int64, shape (N,), or None
        Samples held where batches are drawn without replacement.
    both : BothLimits, optional
        The limits on cost and energy, where these have been mixed before.
    """
    fleet, lower = problem.plain.fleet, table[:, 0]
    most = limits.largest_batches(problem, rounds, local_steps, table[:, -1])
    if problem.budget.energy < math.inf:
        both = both or BothLimits(problem)
        spending = both.mixed(weights, (rounds, local_steps), lower, np.maximum(most, lower))
    else:
        spending = Spending(
            fleet.sample_cost, limits.step_budget(problem, rounds, local_steps), 0.0, 0.0, 0.0
        )
    noise = _noise(weights, table, population)
    budgets = np.array(
        [
            limits.step_budget(problem, rounds, local_steps),
            limits.step_energy_budget(problem, rounds, local_steps),
        ]
    )
    limited = np.isfinite(budgets)
    uses, budgets = np.array([fleet.sample_cost, fleet.sample_energy])[limited], budgets[limited]
    priced = _best_price(noise, table, spending, most)
    places = _filled(noise, table, uses, budgets, priced, spending, most)
    rows = np.arange(len(places))
    value = float(np.sum(noise[rows, places]))
    bound = min(priced.bound, value)
    if value - bound > ROUNDING * abs(value):
        found = _enumerated(noise, table, uses, budgets, priced, spending, most, value)
        if found is not None:
            places = places if found[0] is None else found[0]
            value = bound = float(np.sum(noise[rows, places]))
    return Rounded(table[rows, places], value, bound)


def _noise(weights: Floats, table: Ints, population: Ints | None) -> Floats:
    """Noise of every size, shape (N, C)."""
    held = None if population is None else population[:, None]
    found: Floats = weights[:, None] * inverse_batches(table.astype(np.float64), held)
    return found


def _taken(noise: Floats, table: Ints, prices: Floats, most: Ints) -> tuple[Ints, Floats]:
    """Places of the sizes with the smallest noise + price s, the smaller of equals, and these sums."""
    sums = np.where(
        table <= np.maximum(most, table[:, 0])[:, None], noise + prices[:, None] * table, math.inf
    )
    places = sums.argmin(axis=1)
    return places, sums[np.arange(len(table)), places]


def _best_price(noise: Floats, table: Ints, spending: Spending, most: Ints) -> _Priced:
    """The price of the limit at which the bound is largest."""
    rows = np.arange(len(table))

    def at(price: float) -> tuple[_Priced, float]:
        places, sums = _taken(noise, table, price * spending.sample, most)
        used = float(np.sum(spending.sample * table[rows, places]))
        bound = float(np.sum(sums)) - (price * spending.limit if price > 0.0 else 0.0)
        return _Priced(places, bound, price), used

    free, used = at(0.0)
    if used <= spending.limit:
        return free
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.abs(np.diff(noise, axis=1)) / (np.diff(table, axis=1) * spending.sample[:, None])
    known = ratios[np.isfinite(ratios) & (ratios > 0.0)]
    if known.size == 0:
        return free
    low, high = math.log(float(known.min()) / 2.0), math.log(float(known.max()) * 2.0)
    best, _ = at(math.exp(high))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        found, used = at(math.exp(middle))
        best = max(best, found, key=lambda each: each.bound)
        low, high = (middle, high) if used > spending.limit else (low, middle)
    # At the end of the bisection nothing more is wanted than fits.
    last, _ = at(math.exp(high))
    return _Priced(
        last.places, max(best.bound, last.bound), last.price if last.bound >= best.bound else best.price
    )


def _filled(
    noise: Floats,
    table: Ints,
    uses: Floats,
    budgets: Floats,
    priced: _Priced,
    spending: Spending,
    most: Ints,
) -> Ints:
    """Sizes within all limits: those at the price where they fit, and then the most useful steps upwards."""
    rows, places = np.arange(len(table)), priced.places.copy()
    if (uses @ table[rows, places] > budgets).any():
        places = np.zeros(len(table), dtype=np.int64)
    left = budgets - uses @ table[rows, places]
    steps = []
    for i in rows.tolist():
        for place in range(int(places[i]), table.shape[1] - 1):
            size = int(table[i, place + 1] - table[i, place])
            if size > 0 and table[i, place + 1] <= most[i]:
                gain = float(noise[i, place] - noise[i, place + 1])
                used = float(spending.sample[i]) * size
                steps.append((-gain / used if used > 0.0 else -math.inf, i, place, size))
    for _, i, place, size in sorted(steps):
        need = uses[:, i] * size
        if places[i] == place and (need <= left).all():
            places[i] += 1
            left = left - need
    return places


def _enumerated(
    noise: Floats,
    table: Ints,
    uses: Floats,
    budgets: Floats,
    priced: _Priced,
    spending: Spending,
    most: Ints,
    value: float,
) -> tuple[Ints | None] | None:
    """The best sizes if they are better than `value`, in a tuple; (None,) if none are; None if not known."""
    count = len(table)
    prices = priced.price * spending.sample
    _, least = _taken(noise, table, prices, most)
    room = value - (float(np.sum(least)) - priced.price * spending.limit)
    loss = (
        np.where(table <= np.maximum(most, table[:, 0])[:, None], noise + prices[:, None] * table, math.inf)
        - least[:, None]
    )
    repeated = np.zeros(table.shape, dtype=bool)
    repeated[:, 1:] = table[:, 1:] == table[:, :-1]
    loss[repeated] = math.inf
    # Of what the devices still to come use at least.
    smallest = (uses * np.where(loss < room, table, np.iinfo(np.int64).max).min(axis=1)).T[::-1]
    ahead = np.vstack([np.cumsum(smallest, axis=0)[::-1], np.zeros(uses.shape[0])])
    left, lost, total = budgets[None], np.zeros(1), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    for i in range(count):
        options = np.flatnonzero(loss[i] < room)
        if options.size == 0:
            return (None,)
        left = (left[:, None] - uses[:, i] * table[i, options, None]).reshape(-1, uses.shape[0])
        lost = (lost[:, None] + loss[i, options]).ravel()
        total = (total[:, None] + noise[i, options]).ravel()
        parent = np.repeat(np.arange(lost.size // options.size), options.size)
        option = np.tile(options, lost.size // options.size)
        kept = np.flatnonzero((lost < room) & (left >= ahead[i + 1]).all(axis=1))
        kept = kept[_undominated(left[kept], total[kept])]
        if kept.size == 0:
            return (None,)
        if kept.size > MOST_PARTIAL:
            return None
        left, lost, total = left[kept], lost[kept], total[kept]
        trail.append((parent[kept], option[kept]))
    best = int(total.argmin())
    if total[best] >= value:
        return (None,)
    places = np.zeros(count, dtype=np.int64)
    for i in range(count - 1, -1, -1):
        parents, chosen = trail[i]
        places[i], best = chosen[best], int(parents[best])
    return (places,)


def _undominated(left: Floats, total: Floats) -> Ints:
    """Partial plans that no other one beats in noise and in what is left; with two limits, only in order."""
    if left.shape[1] != 1:
        return np.arange(total.size)
    order = np.lexsort((-left[:, 0], total))
    most = np.maximum.accumulate(left[order, 0])
    ahead = np.concatenate([[-math.inf], most[:-1]])
    kept: Ints = order[left[order, 0] > ahead]
    return kept
