"""The smallest sum g_i / t_i of whole t_i within a budget, by enumeration of what could be below a level.

This is for checking claims: it shares no code with the solver that makes them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Partial sums that are kept at most before the check gives up.
MOST_PARTIAL = 200_000
# Outward slack on the budget: the rounding of sums.
OUTWARD = 1e-14


def smallest_value(
    gains: Floats, costs: Floats, budget: float, least: Ints, most: Ints, price: float, level: float
) -> float:
    """The smallest sum of gains / t with sum of costs * t <= budget, or `level` if that is less.

    Any `price` >= 0 is right. With f_i(t) = g_i / t + price c_i t, a plan has the value
    sum f_i(t_i) + price (what it leaves of the budget) - price budget: so only numbers of units count
    whose f_i exceeds its minimum by less than the level leaves room for.

    Raises
    ------
    CertificateError
        If too much would have to be enumerated.
    """
    budget *= 1.0 + OUTWARD
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.sqrt(gains / (price * costs))
    wanted = np.where(np.isnan(wanted), 0.0, wanted)
    near = [np.clip(units, least, most) for units in (np.floor(wanted), np.floor(wanted) + 1.0)]
    values = [gains / units + price * costs * units for units in near]
    best = np.where(values[0] <= values[1], near[0], near[1])
    spare = budget - math.fsum((costs * best).tolist())
    dual = math.fsum((gains / best).tolist()) - price * spare
    room = level - dual
    if room <= 0.0:
        return min(dual, level)
    options = _options(gains, costs, price, best, least, most, room)
    # Per unit of budget, what the devices still to come lose at least to use up more, or less.
    more, fewer = math.inf, math.inf
    ahead = [(more, fewer)]
    for change, loss in reversed(options):
        rises, falls = change > 0.0, change < 0.0
        more = min(more, float(np.min(loss[rises] / change[rises], initial=math.inf)))
        fewer = min(fewer, float(np.min(loss[falls] / -change[falls], initial=math.inf)))
        ahead.append((more, fewer))
    left, lost = np.array([spare]), np.zeros(1)
    for (change, loss), (more, fewer) in zip(options, reversed(ahead[:-1]), strict=True):
        left = (left[:, None] - change).ravel()
        lost = (lost[:, None] + loss).ravel()
        with np.errstate(invalid="ignore"):
            short = np.where(left < 0.0, -left * fewer, left * min(price, more))
        short[left == 0.0] = 0.0
        kept = lost + short < room
        left, lost = left[kept], lost[kept]
        if left.size == 0:
            return level
        # The worth of a partial plan, and how much of the budget it leaves: keep what is not worse in both.
        order = np.lexsort((lost + price * left, -left))
        left, lost = left[order], lost[order]
        worth = lost + price * left
        ahead_worth = np.append(math.inf, np.minimum.accumulate(worth)[:-1])
        kept = worth < ahead_worth
        left, lost = left[kept], lost[kept]
        if left.size > MOST_PARTIAL:
            raise CertificateError("proof: too many combinations of whole batches to check the claimed level")
    fits = left >= 0.0
    return dual + float(np.min(lost[fits] + price * left[fits], initial=room))


def _options(
    gains: Floats, costs: Floats, price: float, best: Floats, least: Ints, most: Ints, room: float
) -> list[tuple[Floats, Floats]]:
    """For each device with a choice: changes of cost and losses, none first; small losses per cost first."""
    found = []
    for i in np.flatnonzero((most > least) & (costs > 0.0)).tolist():
        base, gain, unit = float(best[i]), float(gains[i]), float(costs[i])
        entries = [(0.0, 0.0)]
        for sign in (1.0, -1.0):
            units = base + sign
            while least[i] <= units <= most[i]:
                step = units - base
                loss = max(step * (price * unit - gain / (base * units)), 0.0)
                if loss >= room:
                    break
                entries.append((step * unit, loss))
                units += sign
        if len(entries) > 1:
            rate = min(loss / abs(change) for change, loss in entries[1:])
            found.append((rate, np.array([e[0] for e in entries]), np.array([e[1] for e in entries])))
    found.sort(key=lambda entry: entry[0])
    return [(change, loss) for _, change, loss in found]
