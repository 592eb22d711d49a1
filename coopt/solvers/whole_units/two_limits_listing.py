"""The best whole units within two limits, from the few changes that could make a plan better.

At given prices y of two limits, both one, what the dual value L(y) lacks of the value of a feasible plan t
splits into nonnegative terms,

    sum g_i / t_i - L(y) = sum_i loss_i(t_i) + sum_j y_j (1 - sum_i u_ji t_i),

where loss_i(t) is how much worse t is for device i at these prices than its best. So the plans that lack less
than some level have no change with a loss above it. The devices that can change are divided in two halves,
those that use the same being taken as one, the partial plans of each half with losses below the level are
listed, and two of them are combined where together they leave little enough of both limits. The level starts
low and grows until a plan is found, which is then the best of all, or until it reaches what is of interest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.roundoff import LOST_IN_SUMS
from coopt.solvers.whole_units.two_limits_prices import AtPrices, Demand
from coopt.solvers.whole_units.unit_prices import Filled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The first level admits the cheapest change of so many devices; it is at least this part of the last.
FIRST, SMALLEST = 12, 1e-6
# The ratio of a level to the one before: a small one, for the number of plans grows fast.
GROWTH = 1.5
# Partial plans in a half, and pairs of them, at most; what is left out weakens the lower bound.
MOST_STATES = 50_000
MOST_PAIRS = 20_000_000
PAIRS_AT_ONCE = 1_000_000
# Lists of this length and up to that are searched for plans that use the same.
MERGED_FROM, MERGED_AT_ONCE, MIXING = 1_000, 4 * MOST_STATES, 0x9E3779B97F4A7C1
# Changes of use are whole multiples of this part of the limit, so that their sums are exact. Two that differ
# by less than SAME multiples differ by rounding.
QUANTUM, SAME = 2.0**-50, 16


def close(demand: Demand, priced: AtPrices, found: Filled, cutoff: float) -> Filled:
    """The best plan, or the one found if no plan that is better and below the cutoff could be found.

    Parameters
    ----------
    demand : Demand
    priced : AtPrices
        What is taken at prices whose dual value is nearly the largest.
    found : Filled
        The best plan and bound known.
    cutoff : float
        Values from here on are of no interest.

    Returns
    -------
    Filled
        The bound falls short of the value and the cutoff where too many plans come close.
    """
    goal = min(found.value, cutoff) - priced.dual
    everyone = np.arange(demand.gains.size)
    first = np.array([rises(demand, priced, everyone, sign) for sign in (1, -1)])
    cheapest = first.min(axis=0)
    few = min(FIRST, cheapest.size - 1)
    level = max(float(np.partition(cheapest, few)[few]), SMALLEST * goal)
    proved = math.inf
    while True:
        level = min(level, goal)
        if proved == math.inf:
            one, other = _divided(_kinds(demand, priced, first, level))
            halves = _listed(one, level), _listed(other, level)
            dropped = min(halves[0].dropped, halves[1].dropped)
        lacking, pair, skipped = _combined(*halves, priced, level)
        if min(dropped, skipped) < level:
            # The lists grow no further, but may still hold a good plan.
            proved = min(proved, dropped, skipped)
        if pair is not None or level >= goal:
            break
        level *= GROWTH
    units = found.units
    if pair is not None:
        units = priced.units.copy()
        for half, place in zip(halves, pair, strict=True):
            half.apply(place, units)
    value = demand.value(units)
    proved = max(priced.dual + min(proved, lacking), found.lower_bound)
    return Filled(units, value, min(proved, value, cutoff))


@dataclass(frozen=True)
class _Kind:
    """The cheapest changes of all devices that use the same, none first.

    Of each change `net` is the number of units, `used` what they use, in quanta, and `loss` what they lose;
    `more` and `fewer` are the devices that take one unit more, or less, the cheapest first.
    """

    net: Ints
    used: Ints
    loss: Floats
    more: NDArray[np.intp]
    fewer: NDArray[np.intp]


@dataclass(frozen=True)
class _Half:
    """Partial plans of some kinds: what they use more, in quanta, shape (2, n), and what they lose.

    `dropped` is the smallest loss of any that was left out. `parents` lead back to the changes.
    """

    kinds: list[_Kind]
    used: Ints
    loss: Floats
    dropped: float
    parents: list[tuple[NDArray[np.intp], NDArray[np.intp]]]

    def apply(self, place: int, units: Ints) -> None:
        """Make the changes of a partial plan."""
        for kind, (origin, taken) in zip(reversed(self.kinds), reversed(self.parents), strict=True):
            net = int(kind.net[taken[place]])
            # A device may be there more than once.
            np.add.at(units, kind.more[: max(net, 0)], 1)
            np.add.at(units, kind.fewer[: max(-net, 0)], -1)
            place = int(origin[place])


def rises(demand: Demand, priced: AtPrices, places: NDArray[np.intp], change: int) -> Floats:
    """What the last unit of a change adds to the loss, no less than the one before; inf where barred."""
    sign = 1 if change > 0 else -1
    after = (priced.units[places] + change).astype(np.float64)
    barred = (after < demand.least[places]) | (after > demand.most[places])
    product = (after - sign) * np.where(barred, 1.0, after)
    added = sign * (priced.prices @ demand.uses[:, places] - demand.gains[places] / product)
    found: Floats = np.where(barred, math.inf, np.maximum(added, 0.0))
    return found


def _kinds(demand: Demand, priced: AtPrices, first: Floats, level: float) -> list[_Kind]:
    """The changes with losses below the level, by kind.

    Devices that use the same are as one: of all changes by so many units together only the cheapest matters.
    """
    steps = []
    for sign, added in zip((1, -1), first, strict=True):
        places, change = np.flatnonzero(added < level), sign
        added = losses = added[places]
        while places.size:
            steps.append((places, np.full(places.size, sign), added))
            change += sign
            added = rises(demand, priced, places, change)
            losses = losses + added
            few = losses < level
            places, added, losses = places[few], added[few], losses[few]
    if not steps:
        return []
    device, signs, added = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    order = np.lexsort((added, signs, *demand.uses[:, device]))
    device, signs, added = device[order], signs[order], added[order]
    uses = demand.uses[:, device]
    starts = np.flatnonzero((uses[:, 1:] != uses[:, :-1]).any(axis=0)) + 1
    found = []
    for part in np.split(np.arange(device.size), starts):
        sides = []
        for sign in (1, -1):
            own = part[signs[part] == sign]
            losses = np.cumsum(added[own])
            sides.append((device[own][losses < level], losses[losses < level]))
        (more, up), (fewer, down) = sides
        net = np.concatenate([[0], np.arange(1, up.size + 1), -np.arange(1, down.size + 1)])
        quanta = np.rint(uses[:, part[:1]] / QUANTUM).astype(np.int64)
        found.append(_Kind(net, quanta * net, np.concatenate([[0.0], up, down]), more, fewer))
    return found


def _divided(kinds: list[_Kind]) -> tuple[list[_Kind], list[_Kind]]:
    """Two halves with about as many partial plans each."""
    halves: tuple[list[_Kind], list[_Kind]] = ([], [])
    plans = [1.0, 1.0]
    for kind in sorted(kinds, key=lambda kind: (-kind.loss.size, float(kind.loss[1:].min()))):
        smaller = int(plans[1] < plans[0])
        halves[smaller].append(kind)
        plans[smaller] *= kind.loss.size
    return halves


def _listed(kinds: list[_Kind], level: float) -> _Half:
    """All partial plans with losses below the level; of those that use the same, the one that loses least."""
    used, loss, dropped = np.zeros((2, 1), dtype=np.int64), np.zeros(1), math.inf
    parents = []
    for kind in kinds:
        total = np.add.outer(kind.loss, loss)
        taken, origin = np.nonzero(total < level)
        used = used[:, origin] + kind.used[:, taken]
        loss = total[taken, origin]
        kept, over = _cheapest(np.arange(loss.size), loss, MERGED_AT_ONCE)
        if kept.size > MERGED_FROM:
            kept = kept[_distinct(used[:, kept] // SAME, loss[kept])]
        kept, left_out = _cheapest(kept, loss, MOST_STATES)
        dropped = min(dropped, over, left_out)
        used, loss = used[:, kept], loss[kept]
        parents.append((origin[kept], taken[kept]))
    return _Half(kinds, used, loss, dropped, parents)


def _cheapest(places: NDArray[np.intp], loss: Floats, most: int) -> tuple[NDArray[np.intp], float]:
    """So many places at most, those with the smallest losses, and the smallest loss that is left out."""
    if places.size <= most:
        return places, math.inf
    ranked = places[np.argpartition(loss[places], most)]
    return ranked[:most], float(loss[ranked[most]])


def _distinct(used: Ints, loss: Floats) -> NDArray[np.intp]:
    """Places of the states with the least loss for each pair of uses."""
    # One key for both; where two pairs share it by chance they are told apart below.
    order = np.lexsort((loss, used[0] * MIXING + used[1]))
    ordered = used[:, order]
    first = np.concatenate([[True], (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)])
    places: NDArray[np.intp] = order[first]
    return places


def _combined(
    one: _Half, other: _Half, priced: AtPrices, level: float
) -> tuple[float, tuple[int, int] | None, float]:
    """The two partial plans that lack least together, what that is, and the least loss of any left out.

    What they lack is their losses and the price of what they leave of the limits, which must not be negative.
    """
    left = np.floor((priced.left - LOST_IN_SUMS) / QUANTUM).astype(np.int64)
    prices = priced.prices * QUANTUM
    windows = []
    for axis in (0, 1):
        order = np.argsort(other.used[axis], kind="stable")
        keys, most = other.used[axis][order], left[axis] - one.used[axis]
        with np.errstate(divide="ignore"):
            least = most - (level - one.loss) / prices[axis]
        start, stop = np.searchsorted(keys, least, "left"), np.searchsorted(keys, most, "right")
        windows.append((int((stop - start).sum()), axis, order, start, stop))
    _, axis, order, start, stop = min(windows, key=lambda window: window[:2])
    ranked = np.argsort(one.loss, kind="stable")
    counts = (stop - start)[ranked]
    ends = np.cumsum(counts)
    most = int(np.searchsorted(ends, MOST_PAIRS, "right"))
    skipped = math.inf if most == ranked.size else float(one.loss[ranked[most]])
    best, pair, begin = level, None, 0
    while begin < most:
        done = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends[:most], done + PAIRS_AT_ONCE, "right")), begin + 1)
        firsts = np.repeat(ranked[begin:end], counts[begin:end])
        offsets = np.repeat(ends[begin:end] - counts[begin:end] - done, counts[begin:end])
        seconds = order[start[firsts] + np.arange(firsts.size) - offsets]
        rest = left[:, None] - one.used[:, firsts] - other.used[:, seconds]
        lacks = one.loss[firsts] + other.loss[seconds] + prices @ rest
        lacks[(rest < 0).any(axis=0)] = math.inf
        if lacks.size and float(lacks.min()) < best:
            place = int(lacks.argmin())
            best, pair = float(lacks[place]), (int(firsts[place]), int(seconds[place]))
        begin = end
    return best, pair, skipped
