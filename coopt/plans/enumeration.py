"""The smallest sum g_i / t_i of whole t_i within one or two budgets: all that is below a level, enumerated.

This is for checking claims: it shares no code with the solver that makes them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError
from coopt.problem.exact_sum import exact_sum

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Partial sums that are kept at most before the check gives up.
MOST_PARTIAL = 200_000
# Parts of the second budget in which better partial plans are looked for.
PARTS = 16
# Outward slack on the budget: the rounding of sums.
OUTWARD = 1e-14


def smallest_value(
    gains: Floats,
    costs: Floats,
    budgets: Floats,
    least: Ints,
    most: Ints,
    prices: Floats,
    level: float,
    sizes: list[Ints] | None = None,
) -> float:
    """The smallest sum of gains / t with costs @ t <= budgets, or `level` if that is less.

    `costs` has a row for each budget. Any `prices` >= 0 are right. With f_i(t) = g_i / t + prices @ c_i t, a
    plan has the value sum f_i(t_i) + prices @ (what it leaves of the budgets) - prices @ budgets: so only
    numbers of units count whose f_i exceeds its minimum by less than the level leaves room for. Where `sizes`
    lists the whole numbers that each t_i may be, no others count.

    Raises
    ------
    CertificateError
        If too much would have to be enumerated.
    """
    budgets = budgets * (1.0 + OUTWARD)
    priced = prices @ costs
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.sqrt(gains / priced)
    wanted = np.where(np.isnan(wanted), 0.0, wanted)
    near = [np.clip(units, least, most) for units in (np.floor(wanted), np.floor(wanted) + 1.0)]
    values = [gains / units + priced * units for units in near]
    best = np.where(values[0] <= values[1], near[0], near[1])
    if sizes is not None:
        for i, each in enumerate(sizes):
            fitting = each[each <= most[i]]
            best[i] = fitting[int(np.argmin(gains[i] / fitting + priced[i] * fitting))]
    spare = budgets - np.array([exact_sum(row * best) for row in costs])
    dual = exact_sum(gains / best) - float(prices @ spare)
    # By so much a plan below the level may lose against the best units at these prices; the sum of what each
    # device loses, and of what is left of the budgets at their prices, must stay below it.
    room = level - dual
    if room <= 0.0:
        return min(dual, level)
    options = _options(gains, costs, prices, best, least, most, room, sizes)
    # Per unit of each budget, what the devices still to come lose at least to use up more, or less.
    more, fewer = (np.full(spare.size, math.inf) for _ in range(2))
    ahead = [(more, fewer)]
    for change, loss in reversed(options):
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = loss / change
        more = np.minimum(more, np.min(rates, axis=1, initial=math.inf, where=change > 0.0))
        fewer = np.minimum(fewer, np.min(-rates, axis=1, initial=math.inf, where=change < 0.0))
        ahead.append((more, fewer))
    # Device by device, all partial plans at once: a column is a plan, with what it leaves and what it lost.
    left, lost = spare[:, None], np.zeros(1)
    for (change, loss), (more, fewer) in zip(options, reversed(ahead[:-1]), strict=True):
        left = (left[:, :, None] - change[:, None, :]).reshape(spare.size, -1)
        lost = (lost[:, None] + loss).ravel()
        with np.errstate(invalid="ignore"):
            # A budget that is overdrawn must be brought back by the devices to come; one that is left over
            # must be used up, or paid for. What that loses at least rules out most plans.
            short = np.where(left < 0.0, -left * fewer[:, None], left * np.minimum(prices, more)[:, None])
        short[left == 0.0] = 0.0
        kept = lost + short.max(axis=0) < room
        left, lost = left[:, kept], lost[kept]
        if lost.size == 0:
            return level
        kept = _not_worse(left, lost + prices @ left)
        left, lost = left[:, kept], lost[kept]
        if lost.size > MOST_PARTIAL:
            raise CertificateError("proof: too many combinations of whole batches to check the claimed level")
    fits = (left >= 0.0).all(axis=0)
    return dual + float(np.min(lost[fits] + prices @ left[:, fits], initial=room))


def _not_worse(left: Floats, worth: Floats) -> NDArray[np.intp]:
    """Places of the partial plans to keep: no other is as good and leaves as much of every budget.

    Of two budgets, that one is only looked for in some parts of the second: what is missed costs time alone.
    """
    order = np.lexsort((worth, *-left[::-1]))
    worth, second = worth[order], left[1:].sum(axis=0)[order]
    kept = np.ones(order.size, dtype=np.bool_)
    edges = np.unique(np.quantile(second, np.linspace(0.0, 1.0, PARTS)))
    part = np.searchsorted(edges, second)
    for place, edge in enumerate(edges.tolist()):
        ahead = np.minimum.accumulate(np.where(second >= edge, worth, math.inf))
        own = np.flatnonzero(part == place)
        kept[own] = worth[own] < np.append(math.inf, ahead[:-1])[own]
    return order[kept]


def _options(
    gains: Floats,
    costs: Floats,
    prices: Floats,
    best: Floats,
    least: Ints,
    most: Ints,
    room: float,
    allowed: list[Ints] | None,
) -> list[tuple[Floats, Floats]]:
    """For each device with a choice: changes of costs and losses, none first; small losses per cost first."""
    found = []
    for i in np.flatnonzero((most > least) & (costs > 0.0).any(axis=0)).tolist():
        base, gain, price = float(best[i]), float(gains[i]), float(prices @ costs[:, i])
        steps, losses = [0.0], [0.0]
        for sign in (1.0, -1.0):
            units = base + sign
            while least[i] <= units <= most[i]:
                if allowed is not None and units not in allowed[i]:
                    units += sign
                    continue
                step = units - base
                loss = max(step * (price - gain / (base * units)), 0.0)
                if loss >= room:
                    break
                steps.append(step)
                losses.append(loss)
                units += sign
        if len(steps) > 1:
            rate = min(loss / abs(step) for step, loss in zip(steps[1:], losses[1:], strict=True))
            changes = costs[:, i, None] * np.array(steps)
            found.append((rate / (price or 1.0), changes, np.array(losses)))
    found.sort(key=lambda entry: entry[0])
    return [(change, loss) for _, change, loss in found]
