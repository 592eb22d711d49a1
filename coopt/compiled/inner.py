"""Inner problems at one (K, tau), as :mod:`coopt.solvers.streamed` has them; what they prove is kept."""

from __future__ import annotations

import math

import numpy as np

from coopt.compiled.data import Devices, Floats, Known, Limits, Scratch, System, exact
from coopt.compiled.passes import CAPPED_UP_TO, cap_all, choose, dual, noise, take
from coopt.limits import TOLERANCE
from coopt.solvers.passes import LEAST, UNBOUNDED
from coopt.solvers.streamed import CHEAPEST, DEAREST, ENOUGH, ENOUGH_WITH_PILOT, NARROW, WIDE
from coopt.validation import LARGEST_COUNT

# Units between two prices, and part of the devices, among which is chosen without narrowing the prices.
FEW, PART = 32, 0.05
# Steps towards a price at most, and how many of them before its bracket widens.
PRICES, SECANTS = 400, 3


@exact
def step_units(limits: Limits, rounds: float, steps: float) -> float:
    """Most units of one step that the cost limit admits, as :func:`coopt.limits.step_units` has them.

    Of a sample, its part of them.
    """
    limit, cost = limits.cost * (1.0 + TOLERANCE), limits.unit_cost
    if limit == math.inf:
        return float(LARGEST_COUNT)
    units = np.floor((limit / rounds - limits.round_cost) / steps / cost)
    if rounds * (steps * (cost * (units + 1.0)) + limits.round_cost) <= limit:
        units += 1.0
    if not rounds * (steps * (cost * units) + limits.round_cost) <= limit:
        units -= 1.0
    if limits.share < 1.0:
        units = np.floor((limits.own + (units * cost - limits.least) * limits.share) / cost)
    return float(min(units, float(LARGEST_COUNT)))


@exact
def level_of(
    devices: Devices,
    limits: Limits,
    shares: tuple[float, float],
    rounds: float,
    steps: float,
    enough: float,
    level: float,
) -> tuple[float, float, float, float, float, float, float]:
    """The level at which the budget of a step is spent up to a share, its price, and sums of :func:`dual`."""
    spend = (limits.cost * (1.0 + TOLERANCE) / rounds - limits.round_cost) / steps
    if limits.share < 1.0 and spend < math.inf:
        spend = limits.own + (spend - limits.least) * limits.share
    slack, nowhere = limits.time * (1.0 + TOLERANCE) / rounds, np.empty(0)
    low, high = 0.0, math.inf
    if spend == math.inf:
        level = UNBOUNDED
    while True:
        price = 0.0 if level == UNBOUNDED else 1.0 / (level * level)
        spent, movable, value, held, pull, drag = dual(
            devices, shares[0], shares[1], level, price, slack, steps, nowhere
        )
        excess = spent - spend
        if abs(excess) <= enough * spend or (level == UNBOUNDED and excess <= 0.0):
            break
        if excess > 0.0:
            high = level
        else:
            low = level
        step = level - excess / movable if movable > 0.0 else math.nan
        if not low < step < high:
            if high == math.inf:
                step = max(low, UNBOUNDED)
            else:
                step = math.sqrt(low) * math.sqrt(high) if low > 0.0 else high / 16.0
        if step in (low, high) or step < LEAST:
            break
        level = step
    return level, price, spent, value, held, pull, drag


@exact
def price_of(
    devices: Devices,
    limits: Limits,
    shares: tuple[float, float],
    rounds: float,
    steps: float,
    units: float,
    centre: float,
    few: np.ndarray,
    scratch: Scratch,
) -> tuple[float, float, float, float, int]:
    """Two prices between which so many units are taken, and what is taken at them.

    The logarithm of their middle, the higher one, the sums at both, and how many take more at the lower one.
    """
    limit = limits.time * (1.0 + TOLERANCE)
    caps = scratch.caps[:0]
    if devices.first.size <= CAPPED_UP_TO:
        caps = scratch.caps[: devices.first.size]
        cap_all(devices, rounds, steps, limit, caps)
    width = min(max(2.5 / math.sqrt(devices.first.size), NARROW), WIDE)
    # Logarithms of prices at which more than there is is taken, and no more than that.
    low, high = -math.inf, math.inf
    dear = total = more = 0.0
    found = 0
    for attempt in range(PRICES):
        upper, lower = min(centre + width, DEAREST), max(centre - width, CHEAPEST)
        dear = math.exp(upper)
        total, more, found = take(
            devices,
            shares[0],
            shares[1],
            dear,
            math.exp(lower),
            rounds,
            steps,
            limit,
            caps,
            few,
            scratch.places,
            scratch.many,
        )
        for at, taken in ((upper, total), (lower, more)):
            if taken > units:
                low = max(low, at)
            else:
                high = min(high, at)
        if total <= units and (more >= units or lower <= CHEAPEST):
            if lower <= CHEAPEST or more - total <= FEW + PART * devices.first.size or width < 1e-12:
                break
            # Again more narrowly, where the number of units is expected to be met.
            centre += width * (1.0 - 2.0 * (units - total) / (more - total))
            width /= 4.0
        elif low > -math.inf and high < math.inf:
            centre, width = 0.5 * (low + high), 0.5 * (high - low)
        else:
            # The number of units falls with the logarithm of the price, by about half for each e-fold.
            slope = max((more - total) / (2.0 * width), 0.25 * units, 1.0)
            step = ((total + more) / 2.0 - units) / slope
            centre += max(step, 2.0 * width) if high == math.inf else min(step, -2.0 * width)
            width *= 2.0 if attempt >= SECANTS else 1.0
    return centre, dear, total, more, found


@exact
def place_of(known: Known, angle: float) -> int:
    """Where a direction stands among the known ones; it is added to them."""
    count, place = known.counts[0], 0
    while place < count and known.angles[place] < angle:
        place += 1
    if place < count and known.angles[place] == angle:
        return place
    for i in range(count, place, -1):
        known.angles[i] = known.angles[i - 1]
    known.angles[place] = angle
    known.counts[0] += 1
    for i in range(known.counts[1]):
        known.rows[i, 0] += known.rows[i, 0] >= place
    for i in range(known.counts[2]):
        known.wholes[i, 0] += known.wholes[i, 0] >= place
    return place


@exact
def shares_at(scales: Floats, angle: float) -> tuple[float, float]:
    """What the two noise terms count in a direction."""
    return (1.0 - angle) / scales[0], angle / scales[1]


@exact
def add_row(system: System, rounds: float, steps: float, angle: float, known: Known) -> None:
    """Learn a row from a continuous optimum at (K, tau), or from close to it."""
    limits, enough = system.limits, ENOUGH
    if system.pilot.first.size > 0:
        shares = shares_at(system.scales[1], angle)
        found = level_of(system.pilot, system.pilot_limits, shares, rounds, steps, ENOUGH, known.warm[1, 0])[
            0
        ]
        if found < UNBOUNDED:
            known.warm[1, 0] = found
            known.warm[0, 0] = found / math.sqrt(system.pilot_limits.share)
        enough = ENOUGH_WITH_PILOT
    shares = shares_at(system.scales[0], angle)
    level, price, spent, value, held, pull, drag = level_of(
        system.devices, limits, shares, rounds, steps, enough, known.warm[0, 0]
    )
    if level < UNBOUNDED:
        known.warm[0, 0] = level
    constant, slope, rise = value + held, 0.0, drag
    if price > 0.0:
        # Of a sample only its share of the budget.
        constant += price * (spent - limits.own + limits.least * limits.share)
        slope += price * limits.share * limits.cost * (1.0 + TOLERANCE)
        rise += price * limits.share * limits.round_cost
    if limits.time < math.inf:
        slope += pull * limits.time * (1.0 + TOLERANCE)
    if not math.isfinite(constant + slope + rise):
        constant = slope = rise = 0.0
    row = known.rows[known.counts[1]]
    row[0], row[1], row[2], row[3], row[4] = place_of(known, angle), constant, slope, rise, rounds
    known.counts[1] += 1


@exact
def add_whole(
    system: System, rounds: float, steps: float, angle: float, known: Known, scratch: Scratch
) -> tuple[float, float]:
    """Learn the integer optimum at (K, tau); its two noise terms, each over its scale.

    Its units are those of `known` that are not the best plan's.
    """
    limits, pilot_limits = system.limits, system.pilot_limits
    units, few = step_units(limits, rounds, steps), known.units[1 - known.counts[3]]
    if system.pilot.first.size > 0:
        known.warm[1, 1] = price_of(
            system.pilot,
            pilot_limits,
            shares_at(system.scales[1], angle),
            rounds,
            steps,
            step_units(pilot_limits, rounds, steps),
            known.warm[1, 1],
            few,
            scratch,
        )[0]
        known.warm[0, 1] = known.warm[1, 1] + math.log(pilot_limits.share)
    shares = shares_at(system.scales[0], angle)
    centre, price, total, more, found = price_of(
        system.devices, limits, shares, rounds, steps, units, known.warm[0, 1], few, scratch
    )
    if CHEAPEST < centre < DEAREST:
        known.warm[0, 1] = centre
    missing, offered = units - total, more - total
    if 0.0 < missing < offered:
        price = choose(
            system.devices,
            shares[0],
            shares[1],
            few,
            scratch.places,
            scratch.many,
            found,
            int(missing),
            int(offered),
        )
    elif missing > 0.0:
        # Everyone has all that is of use, or just what is left.
        price = 0.0
        for j in range(found):
            few[scratch.places[j]] = scratch.many[j]
    first, second = noise(system.devices, few)
    first, second = first / system.scales[0, 0], second / system.scales[0, 1]
    whole = known.wholes[known.counts[2]]
    whole[0], whole[1], whole[2] = place_of(known, angle), rounds, steps
    whole[3], whole[4], whole[5] = (1.0 - angle) * first + angle * second, units, price
    known.counts[2] += 1
    return first, second
