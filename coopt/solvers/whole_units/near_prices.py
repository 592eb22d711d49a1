"""The best whole plan near prices at which every device takes its best number of units on its own.

A plan has to have a certain count of units and to stay within a budget. With a price y of the budget and a
charge on the count, device i takes the t_i that is best for it. What their dual value lacks of the value of
a plan with the right count is

    sum_i loss_i(t_i) + y (what the plan leaves of the budget),

where loss_i(t) >= 0 is how much worse t is than the best at these prices, and convex in t. So only those
numbers of units matter whose loss is below what the plan looked for may lack, which leaves few devices with
few choices each. Devices whose units use the same are one choice: of n units more, the n that lose least
are best, since losses are convex. Plans are built choice by choice, keeping of two partial plans with the
same count only the one that is cheaper and better. What a partial plan lacks is at least its losses so far,
plus, for the part of the budget or of the count that it leaves or overdraws, the smallest loss per unit of
it at which the devices to come can put that right.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.roundoff import LOST_IN_SUMS
from coopt.solvers.whole_units.unit_prices import Filled, Floats, Ints

# Plans that lack little are looked for first: so little that this many devices have a choice, but no less
# than this part of the most that is of interest; then those that lack so many times as much.
FIRST_DEVICES, FIRST_PART, NEXT_LEVEL = 16, 2.0**-12, 4.0
# Plans are equally good whose values differ by less than this part of what the numbers are computed from;
# that much is taken off the lower bound for each device.
GRAIN = 2.0**-48
# Partial plans kept at most; beyond, the best are, and what is dropped weakens the lower bound.
MOST_STATES = 20_000
# Partial plans looked at for one level before the lower bound is taken as it is.
MOST_WORK = 20_000_000
# Units more or fewer that a device is offered at most.
MOST_CHOICES = 1_000
# Up to this part of a sum is lost with each number that is added.
LOST_EACH = 2.0**-53
# Rows of what plans use: the budget, and the count.
BUDGET, COUNT = 0, 1


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """What devices take at given prices, and how that misses the limits.

    Attributes
    ----------
    gains, charges : ndarray, shape (N,)
        g_i, and what a unit is charged at the prices.
    uses : ndarray, shape (2, N)
        What a unit takes of the budget, which may be negative, and what it adds to the count: whole numbers.
    least, most, units : ndarray of int64, shape (N,)
        The numbers of units that are admitted, and those that are best at the charges.
    price : float
        What is lost per unit of the budget that is left.
    missing : ndarray, shape (2,)
        What `units` leave of the budget, and by how much their count falls short; negative if exceeded.
    dual : float
        The dual value.
    """

    gains: Floats
    charges: Floats
    uses: Floats
    least: Ints
    most: Ints
    units: Ints
    price: float
    missing: Floats
    dual: float


@dataclass(frozen=True, eq=False)
class _Choice:
    """More or fewer units of devices that use the same: the changes, and what they use and lose.

    Attributes
    ----------
    more, fewer : ndarray of int64
        The devices of the first, the second, ... unit more, and of each unit fewer.
    unit : ndarray, shape (2,)
        What a unit uses of both limits.
    change : ndarray of int64, shape (n,)
        From all of `fewer` to all of `more`.
    uses, loss : ndarray, shapes (2, n) and (n,)
    """

    more: NDArray[np.intp]
    fewer: NDArray[np.intp]
    unit: Floats
    change: Ints
    uses: Floats
    loss: Floats

    @classmethod
    def of(cls, unit: Floats, more: _Moves, fewer: _Moves) -> _Choice:
        change = np.arange(-fewer.loss.size, more.loss.size + 1)
        loss = np.concatenate([fewer.loss[::-1], [0.0], more.loss])
        return cls(more.devices, fewer.devices, unit, change, np.multiply.outer(unit, change), loss)

    @property
    def first(self) -> tuple[float, float]:
        """The losses of the first unit more and of the first one fewer; inf where there is none."""
        more, fewer = self.loss[self.fewer.size + 1 :], self.loss[: self.fewer.size]
        return (float(more[0]) if more.size else math.inf, float(fewer[-1]) if fewer.size else math.inf)

    def apply(self, units: Ints, change: int) -> None:
        """Change the units of the devices."""
        np.add.at(units, self.more[: max(change, 0)], 1)
        np.subtract.at(units, self.fewer[: max(-change, 0)], 1)


@dataclass(frozen=True, eq=False)
class _Moves:
    """Units more, or fewer, one after the other: their devices, and the loss of all up to each."""

    devices: NDArray[np.intp]
    loss: Floats


@dataclass(frozen=True, eq=False)
class _Partial:
    """Partial plans: what they use of both limits, shape (2, n), their losses, what they lack at least."""

    uses: Floats
    loss: Floats
    reach: Floats

    def at(self, kept: NDArray[np.intp]) -> _Partial:
        return _Partial(self.uses[:, kept], self.loss[kept], self.reach[kept])


def improve(point: StartingPoint, found: Filled, cutoff: float) -> tuple[Filled, float]:
    """The plan found or the best one at the point, and a lower bound on all at it, up to the cutoff."""
    goal = min(found.value, cutoff)
    if goal - point.dual <= LOST_IN_SUMS * goal:
        return found, min(point.dual, goal)
    units, proved = _nearest(point, goal - point.dual)
    if units is not None:
        value = float(np.sum(point.gains / units))
        if value < found.value:
            found = replace(found, units=units, value=value)
    return found, min(point.dual + proved, found.value, cutoff)


def _nearest(point: StartingPoint, lacking: float) -> tuple[Ints | None, float]:
    """The plan that lacks least, if that is below `lacking`, and how much every plan lacks or more."""
    single = np.array([_single(point, 1), _single(point, -1)])
    level, proved = lacking, 0.0
    if point.gains.size > FIRST_DEVICES:
        few = float(np.partition(single.min(axis=0), FIRST_DEVICES)[FIRST_DEVICES])
        level = min(max(few, lacking * FIRST_PART), lacking)
    while True:
        units, lacks = _below(point, np.where(single < level, single, math.inf), level)
        proved = max(proved, lacks)
        if units is not None or lacks < 0.5 * level or level == lacking:
            return units, proved
        level = min(level * NEXT_LEVEL, lacking)


def _below(point: StartingPoint, single: Floats, lacking: float) -> tuple[Ints | None, float]:
    """The same, of plans that lack less than `lacking`; `single` has the losses below it of one unit."""
    core, dropped = _core(point, single, lacking)
    more, fewer = _rates(point, core)
    largest = max((float(np.max(np.abs(choice.uses[BUDGET]))) for choice in core), default=0.0)
    grain = GRAIN * (lacking + point.price * largest)
    lost = LOST_EACH * lacking * sum(choice.change.size for choice in core)
    partial = _Partial(np.zeros((2, 1)), np.zeros(1), np.zeros(1))
    steps: list[tuple[NDArray[np.intp], Ints]] = []
    best, work = None, 0
    if (unchanged := float(_lacks(point, partial)[0])) < lacking:
        best, lacking = (0, 0), unchanged
    for place, choice in enumerate(core, start=1):
        width = partial.loss.size
        work += width * choice.change.size
        if work > MOST_WORK:
            dropped = min(dropped, float(partial.reach.min()))
            break
        partial, kept = _extend(point, partial, choice, more[:, place], fewer[:, place], lacking, grain)
        if kept.size == 0:
            break
        if kept.size > MOST_STATES:
            ranked = np.argpartition(partial.reach, MOST_STATES)
            dropped = min(dropped, float(partial.reach[ranked[MOST_STATES:]].min()))
            ranked = np.sort(ranked[:MOST_STATES])
            partial, kept = partial.at(ranked), kept[ranked]
        steps.append((kept % width, choice.change[kept // width]))
        lacks = _lacks(point, partial)
        if lacks.min() < lacking:
            best, lacking = (place, int(lacks.argmin())), float(lacks.min())
    proved = min(lacking, dropped) - grain * len(core) - lost
    if best is None:
        return None, proved
    units, (place, plan) = point.units.copy(), best
    for choice, (origin, change) in reversed(list(zip(core[:place], steps[:place], strict=True))):
        choice.apply(units, int(change[plan]))
        plan = int(origin[plan])
    return units, proved


def _lacks(point: StartingPoint, partial: _Partial) -> Floats:
    """What partial plans lack if all other devices stay; infinite where that misses a limit."""
    left, short = point.missing[:, None] - partial.uses
    return np.where((left >= 0.0) & (short == 0.0), partial.loss + point.price * left, math.inf)


def _extend(
    point: StartingPoint,
    partial: _Partial,
    choice: _Choice,
    more: Floats,
    fewer: Floats,
    lacking: float,
    grain: float,
) -> tuple[_Partial, NDArray[np.intp]]:
    """Partial plans with one more choice made, and which change and plan each comes from."""
    uses = (choice.uses[:, :, None] + partial.uses[:, None, :]).reshape(2, -1)
    loss = (choice.loss[:, None] + partial.loss).ravel()
    short = point.missing[:, None] - uses
    with np.errstate(invalid="ignore"):
        needed = np.where(short > 0.0, short * more[:, None], -short * fewer[:, None])
    # inf * 0: what is met exactly needs nothing more.
    needed[short == 0.0] = 0.0
    reach = loss + needed.max(axis=0)
    kept = np.flatnonzero(reach < lacking)
    if kept.size > 0:
        # Sums of the same gains in another order are as good as each other.
        worth = np.rint((loss[kept] - point.price * uses[BUDGET, kept]) / grain)
        kept = kept[_front(uses[:, kept], worth)]
    return _Partial(uses, loss, reach).at(kept), kept


def _front(uses: Floats, worth: Floats) -> NDArray[np.intp]:
    """Of plans with the same count those that are better than all that cost no more."""
    order = np.lexsort((worth, uses[BUDGET], uses[COUNT]))
    worth, count = worth[order], uses[COUNT, order]
    ends = [0, *(np.flatnonzero(count[1:] != count[:-1]) + 1).tolist(), worth.size]
    front = np.ones(worth.size, dtype=np.bool_)
    for first, end in itertools.pairwise(ends):
        front[first + 1 : end] = worth[first + 1 : end] < np.minimum.accumulate(worth[first:end])[:-1]
    return order[front]


def _single(point: StartingPoint, change: int) -> Floats:
    """The loss of each device by one unit more, or fewer; infinite where that is not admitted, or no use."""
    units = point.units + change
    movable = point.uses.any(axis=0) & (units >= point.least) & (units <= point.most)
    loss = np.full(units.size, math.inf)
    loss[movable] = _losses(point, np.flatnonzero(movable), change)
    return loss


def _losses(point: StartingPoint, devices: NDArray[np.intp], change: int) -> Floats:
    """How much worse devices are with the next unit after so many, without cancellation of 1 / t.

    The unit of number `change` more, or fewer where that is negative.
    """
    after = point.units[devices].astype(np.float64) + change
    before = after - math.copysign(1.0, change)
    loss: Floats = math.copysign(1.0, change) * (
        point.charges[devices] - point.gains[devices] / (before * after)
    )
    return np.maximum(loss, 0.0)


def _core(point: StartingPoint, single: Floats, lacking: float) -> tuple[list[_Choice], float]:
    """The choices whose loss is below `lacking`, those with little loss per cost first.

    And the smallest loss of a choice left out because there are too many.
    """
    names = np.flatnonzero(np.isfinite(single).any(axis=0))
    if names.size == 0:
        return [], math.inf
    names = names[np.lexsort(point.uses[:, names])]
    alike = (point.uses[:, names[1:]] == point.uses[:, names[:-1]]).all(axis=0)
    groups = np.concatenate([[0], np.cumsum(~alike)])
    more, beyond = _moves(point, names, groups, 1, lacking)
    fewer, below = _moves(point, names, groups, -1, lacking)
    firsts = names[np.searchsorted(groups, np.arange(len(more)))]
    core = [_Choice.of(point.uses[:, first], *ends) for first, *ends in zip(firsts, more, fewer, strict=True)]
    cost = np.abs(point.uses[BUDGET, firsts])
    least = np.array([min(choice.first) for choice in core])
    rate = np.divide(least, cost, out=np.zeros(cost.size), where=cost > 0.0)
    return [core[place] for place in np.argsort(rate, kind="stable")], min(beyond, below)


def _moves(
    point: StartingPoint, names: NDArray[np.intp], groups: Ints, sign: int, lacking: float
) -> tuple[list[_Moves], float]:
    """Units more or fewer of each group of devices, as far as they lose less than `lacking` together.

    And the smallest loss of what is left out all the same.
    """
    steps: list[NDArray[np.intp]] = []
    losses: list[Floats] = []
    places, summed = np.arange(names.size), np.zeros(names.size)
    while places.size and len(steps) <= MOST_CHOICES:
        change = sign * (len(steps) + 1)
        units = point.units[names[places]] + change
        places = places[(units <= point.most[names[places]]) & (units >= point.least[names[places]])]
        loss = _losses(point, names[places], change)
        summed[places] += loss
        within = summed[places] < lacking
        places, loss = places[within], loss[within]
        steps.append(places)
        losses.append(loss)
    moved, lost = np.concatenate(steps), np.concatenate(losses)
    offered = moved.size - (places.size if len(steps) > MOST_CHOICES else 0)
    # Those that lose least come first; of one device none loses less than the one before it.
    order = np.lexsort((lost, groups[moved]))
    ends = np.searchsorted(groups[moved[order]], np.arange(groups[-1] + 2))
    found, beyond = [], math.inf
    for first, end in itertools.pairwise(ends.tolist()):
        own = order[first:end]
        total = np.cumsum(lost[own])
        wanted = int(np.searchsorted(total, lacking))
        too_many = np.flatnonzero(own[:wanted] >= offered)
        kept = min(wanted, MOST_STATES, *too_many[:1].tolist())
        if kept < wanted:
            beyond = min(beyond, float(total[kept]))
        found.append(_Moves(names[moved[own[:kept]]], total[:kept]))
    return found, beyond


def _rates(point: StartingPoint, core: list[_Choice]) -> tuple[Floats, Floats]:
    """Smallest losses per unit of budget and of count, used or given back, from each place of the core on.

    Shape (2, len(core) + 1). One unit of a device loses least for each; what is left of the budget may also
    stay, at its price.
    """
    uses = np.array([choice.unit for choice in core]).reshape(-1, 2).T
    up, down = np.array([choice.first for choice in core]).reshape(-1, 2).T
    found = []
    for gain, loss, stays in ((up, down, point.price), (down, up, math.inf)):
        rates = np.full((2, len(core) + 1), math.inf)
        rates[BUDGET, -1] = stays
        np.divide(np.where(uses > 0.0, gain, loss), np.abs(uses), out=rates[:, :-1], where=uses != 0.0)
        found.append(np.minimum.accumulate(rates[:, ::-1], axis=1)[:, ::-1])
    return found[0], found[1]
