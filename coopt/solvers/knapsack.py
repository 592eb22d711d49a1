"""Whole batch sizes within a budget where a unit costs more on some devices than on others.

Minimise sum g_i / t_i over whole t_i with sum c_i t_i <= S. At a price y per unit of the budget device i
takes its best number of units t_i(y) on its own, and the dual value

    L(y) = sum_i min_t (g_i / t + y c_i t) - y S

is a lower bound. What it lacks of the value of a feasible t splits into nonnegative terms,

    sum g_i / t_i - L(y) = sum_i loss_i(t_i) + y (S - sum c_i t_i),

where loss_i(t) is how much worse t is than t_i(y) at that price. So only those numbers of units matter
whose loss is below what the best known plan lacks, which leaves few devices with few choices each; and
plans of these are built device by device, keeping of two partial plans only the one that is cheaper and
better. What a partial plan lacks is at least its losses so far, plus, for the part of the budget that it
leaves or overdraws, the smallest loss per unit of budget at which the devices to come can put that right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Halvings of the bracket of the price.
HALVINGS = 60
# The fill stops when no candidate fits; each pass takes at least one.
FILL_PASSES = 64
# Partial plans kept at most; beyond, the best are, and what is dropped weakens the lower bound.
MOST_STATES = 20_000
# Partial plans looked at in all before the lower bound is taken as it is.
MOST_WORK = 20_000_000
# Unit costs that are whole multiples of a decimal fraction down to this power are counted in it.
FINEST_DECIMAL = 6
# Choices that a device is offered at most to either side of what it takes at the price.
MOST_CHOICES = 1_000
# Part of the budget that covers the rounding of the sums.
ROUNDING = 1e-15


@dataclass(frozen=True)
class Filled:
    """Units t_i within the budget, their value sum g_i / t_i, and a lower bound on every plan's."""

    units: Ints
    value: float
    lower_bound: float


@dataclass(frozen=True)
class Priced:
    """The best price, what devices take at it within the budget, and the dual value there."""

    price: float
    units: Ints
    dual: float


def fill(
    gains: Floats,
    prices: Floats,
    budget: float,
    least: Ints,
    most: Ints,
    price: float,
    cutoff: float | None = None,
    tolerance: float = 0.0,
) -> Filled:
    """Whole units within the budget, and how good they are at least.

    Parameters
    ----------
    gains, prices : ndarray, shape (N,)
        g_i >= 0 and c_i >= 0.
    budget : float
        S, up to the rounding of sums; the units `least` must fit.
    least, most : ndarray of int64, shape (N,)
        1 <= least <= t <= most; most = least where more units gain nothing.
    price : float
        Where to look for the best price first: the multiplier of the continuous problem.
    cutoff : float, optional
        Values from here on are of no interest: the optimum, or that no plan is below this, is proved.
        None is content with the dual value as lower bound and a greedy plan.
    tolerance : float, default 0
        How much of the value, relative, the lower bound may lack of it.

    Returns
    -------
    Filled
    """
    if float(np.sum(prices * most)) <= budget:
        value = float(np.sum(gains / most))
        return Filled(most, value, value)
    priced = best_price(gains, prices, budget, least, most, price)
    units = _top_up(gains, prices, budget, priced.units, most)
    value = float(np.sum(gains / units))
    found = Filled(units, value, min(priced.dual, value))
    if cutoff is None or min(value, cutoff) - priced.dual <= tolerance * value:
        return found
    return _close(gains, prices, budget, least, most, priced, found, cutoff, tolerance)


def units_at(gains: Floats, prices: Floats | float, least: Ints, most: Ints) -> Ints:
    """Units that each device takes at these prices a unit: all that gain as much as they cost."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        free = np.floor(0.5 + np.sqrt(0.25 + gains / prices))
    # 0 / 0: neither gain nor price, so the least will do.
    taken: Floats = np.clip(np.nan_to_num(free, nan=0.0, posinf=np.inf), least, most)
    return taken.astype(np.int64)


def best_price(gains: Floats, prices: Floats, budget: float, least: Ints, most: Ints, price: float) -> Priced:
    """The price with the largest dual value, which is where it begins to buy more than the budget.

    The arguments are those of :func:`fill`; not all of `most` may fit.
    """
    dual = -math.inf

    def at(level: float) -> tuple[Ints, float]:
        nonlocal dual
        taken = units_at(gains, level * prices, least, most)
        spent = float(np.sum(prices * taken))
        dual = max(dual, float(np.sum(gains / taken)) + level * (spent - budget))
        return taken, spent

    dear = cheap = price if price > 0.0 else float(np.max(gains)) / budget**2
    taken, spent = at(dear)
    spread = 1.0 + 1.0 / math.sqrt(gains.size)
    while spent > budget and spread < math.inf:
        dear, spread = dear * spread, spread * spread
        taken, spent = at(dear)
    if spent > budget:
        return Priced(dear, least, dual)
    while True:
        many, spent = at(cheap)
        if spent > budget or cheap == 0.0:
            break
        cheap, spread = cheap / spread, spread * spread
    for _ in range(HALVINGS):
        added = np.flatnonzero(many != taken)
        if added.size <= 1 and int((many - taken).sum()) <= 1:
            break
        level = math.sqrt(dear) * math.sqrt(cheap)
        if not cheap < level < dear:
            break
        trial, spent = at(level)
        if spent <= budget:
            dear, taken = level, trial
        else:
            cheap, many = level, trial
    if added.size == 1 and prices[added[0]] > 0.0:
        # Where one unit makes the difference the dual value is largest at the price at which it is a tie.
        i, t = added[0], float(taken[added[0]])
        tie = float(gains[i] / (t * (t + 1.0)) / prices[i])
        if cheap <= tie <= dear:
            slack = budget - float(np.sum(prices * taken))
            dual = max(dual, float(np.sum(gains / taken)) - tie * slack)
            dear = tie
    return Priced(dear, taken, dual)


def _top_up(gains: Floats, prices: Floats, budget: float, taken: Ints, most: Ints) -> Ints:
    """Spend what is left on the best gain per cost that still fits."""
    taken = taken.copy()
    for _ in range(FILL_PASSES):
        left = budget * (1.0 - ROUNDING) - float(np.sum(prices * taken))
        fits = np.flatnonzero((taken < most) & (prices <= left) & (gains > 0.0))
        if fits.size == 0:
            break
        units = taken[fits].astype(np.float64)
        rate = gains[fits] / (units * (units + 1.0)) / np.maximum(prices[fits], np.finfo(float).tiny)
        order = fits[np.argsort(-rate, kind="stable")]
        affordable = order[np.cumsum(prices[order]) <= left]
        taken[affordable if affordable.size else order[:1]] += 1
    return taken


@dataclass(frozen=True)
class _Choices:
    """More or fewer units of one device: the change of cost, and the loss, by increasing cost."""

    device: int
    change: Ints
    cost: Floats
    loss: Floats


def _close(
    gains: Floats,
    prices: Floats,
    budget: float,
    least: Ints,
    most: Ints,
    priced: Priced,
    found: Filled,
    cutoff: float,
    tolerance: float,
) -> Filled:
    """The best plan that lacks less than the one found, from the few choices with small losses."""
    scale = _decimal(prices)
    base, price = priced.units, priced.price
    if scale is not None:
        # Whole costs add up exactly, so plans of equal cost are seen to be; a part of a unit buys nothing.
        prices, price = np.rint(prices * scale), price / scale
        budget = math.floor(budget * scale * (1.0 - ROUNDING))
        slack = budget - float(np.sum(prices * base))
    else:
        slack = budget * (1.0 - ROUNDING) - math.fsum((prices * base).tolist())
    # What the plan found lacks of the dual value at this price; a better one lacks less.
    start = float(np.sum(gains / base))
    dual = start - price * max(slack, 0.0)
    best, goal = found.value, min(found.value, cutoff)
    lacking = goal - dual
    core = _core(gains, prices, price, base, least, most, lacking)
    up_rate, down_rate = _rates(core)
    costs, losses, reach = np.zeros(1), np.zeros(1), np.zeros(1)
    parents: list[tuple[NDArray[np.intp], Ints]] = []
    dropped, winner, work = math.inf, None, 0
    for stage, choice in enumerate(core):
        usable = choice.loss < lacking
        work += costs.size * int(usable.sum())
        if work > MOST_WORK:
            dropped = min(dropped, float(reach.min()))
            break
        cost = np.add.outer(choice.cost[usable], costs).ravel()
        loss = np.add.outer(choice.loss[usable], losses).ravel()
        left = slack - cost
        rates = min(price, up_rate[stage + 1]), down_rate[stage + 1]
        with np.errstate(invalid="ignore"):
            reach = loss + np.where(left >= 0.0, left * rates[0], -left * rates[1])
        # inf * 0: an exact fit needs nothing more.
        reach[left == 0.0] = loss[left == 0.0]
        kept = np.flatnonzero(reach < lacking)
        if kept.size == 0:
            break
        # By cost; of two that cost the same the better first. Only what is better than all cheaper stays.
        value = loss[kept] - price * cost[kept]
        order = np.lexsort((value, cost[kept]))
        value = value[order]
        front = np.concatenate([[True], value[1:] < np.minimum.accumulate(value)[:-1]])
        kept = kept[order][front]
        if kept.size > MOST_STATES:
            ranked = np.argpartition(reach[kept], MOST_STATES)
            dropped = min(dropped, float(reach[kept[ranked[MOST_STATES:]]].min()))
            kept = kept[np.sort(ranked[:MOST_STATES])]
        width = costs.size
        costs, losses, reach = cost[kept], loss[kept], reach[kept]
        parents.append((kept % width, choice.change[usable][kept // width]))
        left = slack - costs
        complete = np.where(left >= 0.0, losses + price * left, math.inf)
        place = int(complete.argmin())
        if complete[place] < lacking:
            lacking = float(complete[place])
            winner = (stage, place)
            if dual + lacking - max(priced.dual, dual) <= tolerance * best:
                dropped = min(dropped, 0.0)
                break
    units = found.units
    if winner is not None:
        units = base.copy()
        stage, place = winner
        for step in range(stage, -1, -1):
            origin, change = parents[step]
            units[core[step].device] += change[place]
            place = int(origin[place])
        best = float(np.sum(gains / units))
    proved = min(dual + min(lacking, dropped), best, cutoff)
    return Filled(units, best, max(proved, min(found.lower_bound, best)))


def _decimal(prices: Floats) -> float | None:
    """A power of ten that makes all prices whole, as prices in cents are; None if there is none."""
    for exponent in range(FINEST_DECIMAL + 1):
        scaled = prices * 10.0**exponent
        if bool((np.abs(scaled - np.rint(scaled)) <= 1e-12 * scaled).all()):
            return 10.0**exponent
    return None


def _core(
    gains: Floats, prices: Floats, price: float, base: Ints, least: Ints, most: Ints, lacking: float
) -> list[_Choices]:
    """The devices that have a choice with a loss below `lacking`, those with the smallest rate first."""
    movable = np.flatnonzero((prices > 0.0) & (most > least))
    count = movable.size
    if count == 0:
        return []
    changes: dict[int, list[tuple[int, float]]] = {}
    rate = np.full(gains.size, math.inf)
    for sign in (1, -1):
        alive = movable
        for step in range(1, MOST_CHOICES + 1):
            units = base[alive] + sign * step
            inside = (units <= most[alive]) & (units >= least[alive])
            alive, units = alive[inside], units[inside]
            loss = _losses(gains[alive], prices[alive], price, base[alive], sign * step)
            small = loss < lacking
            alive, loss = alive[small], loss[small]
            if alive.size == 0:
                break
            if step == 1:
                rate[alive] = np.minimum(rate[alive], loss / prices[alive])
            for device, each in zip(alive.tolist(), loss.tolist(), strict=True):
                changes.setdefault(device, []).append((sign * step, each))
    order = sorted(changes, key=lambda device: (rate[device], device))
    core = []
    for device in order:
        entries = sorted([*changes[device], (0, 0.0)])
        change = np.array([entry[0] for entry in entries])
        loss = np.array([entry[1] for entry in entries])
        core.append(_Choices(device, change, change * prices[device], loss))
    return core


def _losses(gains: Floats, prices: Floats, price: float, base: Ints, change: int) -> Floats:
    """How much worse devices are at the price with so many units more, without cancellation of 1 / t."""
    units = base.astype(np.float64)
    loss: Floats = change * (price * prices - gains / (units * (units + change)))
    return np.maximum(loss, 0.0)


def _rates(core: list[_Choices]) -> tuple[Floats, Floats]:
    """Smallest loss per unit of cost, upwards and downwards, among the devices from each place on."""
    rates = np.full((2, len(core) + 1), math.inf)
    for place in range(len(core) - 1, -1, -1):
        choice = core[place]
        for row, change in enumerate((1, -1)):
            at = np.flatnonzero(choice.change == change)
            own = float(choice.loss[at[0]] / abs(choice.cost[at[0]])) if at.size else math.inf
            rates[row, place] = min(rates[row, place + 1], own)
    return rates[0], rates[1]
