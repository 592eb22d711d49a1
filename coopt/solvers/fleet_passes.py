"""Passes over a fleet: everything that the inner problem asks of all devices, in blocks that stay in cache.

Each pass reads the arrays once and keeps nothing but a few sums and, where asked for, one array of results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from coopt.problem.fleet import Fleet
from coopt.problem.limits import BLOCK, TOLERANCE
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)

# In place of an infinite level, which zero noise would turn into no number at all.
UNBOUNDED = 1e300
# The square of a smaller level, and so its price, would leave the range of numbers.
LEAST = 1e-150
# The first noise term as it is.
ALONE = (1.0, 0.0)
# Devices that the first guess of a level is made from; larger fleets solve the problem of a sample for it.
GUESSED_FROM = 256
SAMPLED_FROM, SAMPLE = 100_000, 10_000
# By so small a share the budget may be missed where it is spent up to rounding.
SPENT = 1e-14
# The level of a sample is off by less than this part of it, most of the time.
SPREAD = 0.05
_NOWHERE = np.empty(0)
_INFINITE, _ZERO = np.full(1, math.inf), np.zeros(1)
_NOBODY = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class DeviceColumns:
    """What the inner problem knows of every device; an array of one entry holds for all of them.

    Attributes
    ----------
    first, second : ndarray, shape (N,)
        The two noise terms, of which every weight is a combination; the same array twice where there is one.
    cost, lower, upper, multiple : ndarray
        Cost of a sample, limits of a batch as multiples of `multiple`.
    population : ndarray
        Samples held, where batches are drawn without replacement; else empty.
    throughput, round_time, step_time : ndarray
    part, part_throughput : ndarray
        Where batches are taken in parts: samples in a part, and samples a second in full parts; else inf.
    """

    first: Floats
    second: Floats
    cost: Floats
    lower: Floats
    upper: Floats
    multiple: Ints
    population: Ints
    throughput: Floats
    round_time: Floats
    step_time: Floats
    part: Floats
    part_throughput: Floats

    def __len__(self) -> int:
        return int(self.first.size)

    def sampled(self, every: int) -> DeviceColumns:
        """A sample of the fleet: devices at equal distances in its order."""
        arrays = {
            field.name: value for field in fields(self) if (value := getattr(self, field.name)).size > 1
        }
        return replace(self, **{name: np.ascontiguousarray(value[::every]) for name, value in arrays.items()})


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """One entry where a scalar was broadcast, else the array."""
    return array[:1] if array.strides == (0,) else np.ascontiguousarray(array)


@dataclass(frozen=True)
class Pace:
    """The time limit at one (K, tau).

    Device i can process throughput_i ((slack - round_time_i) / steps - step_time_i).
    """

    slack: float
    steps: float

    @classmethod
    def at(cls, problem: Problem, rounds: int, local_steps: int) -> Self | None:
        """The time limit at (K, tau); None where there is none."""
        seconds = problem.budget.time
        return None if seconds == math.inf else cls(seconds * (1.0 + TOLERANCE) / rounds, float(local_steps))


@dataclass(frozen=True)
class Dual:
    """What the batches s = clip(level sqrt(w/a), l, u) at one :term:`level` come to.

    Attributes
    ----------
    spent : float
        sum a_i s_i.
    movable : float
        Its derivative in the level.
    value : float
        sum w_i (1/s_i - ref_i).
    held, pull, drag : float
        sum mu_i (s_i + pi_i alpha_i), sum mu_i pi_i and sum mu_i pi_i u_i over the devices that the time
        limit holds, mu_i being the dual variables of their caps.
    """

    spent: float
    movable: float
    value: float
    held: float
    pull: float
    drag: float


@dataclass(frozen=True)
class Units:
    """Units taken at a higher and at a lower price.

    Attributes
    ----------
    few : ndarray of int64, shape (N,)
        At the higher price.
    total : int
        Their sum.
    places : ndarray, shape (m,)
        Devices that take more at the lower price.
    many : ndarray of int64, shape (m,)
        How many these take then.
    """

    few: Ints
    total: int
    places: NDArray[np.intp]
    many: Ints


def part(array: NDArray[Number], begin: int, end: int) -> NDArray[Number]:
    """One block of an array; an array of one entry is its own block."""
    return array if array.size == 1 else array[begin:end]


def dual(
    devices: DeviceColumns,
    shares: tuple[float, float],
    level: float,
    price: float,
    pace: Pace | None,
    out: Floats = _NOWHERE,
) -> Dual:
    """Sums at one level of water; `price` is the dual variable of the budget. Batches go to `out`."""
    sums = np.zeros(6)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for begin in range(0, len(devices), BLOCK):
            target = out[begin : begin + BLOCK]
            sums += _dual_block(devices, shares, level, price, pace, begin, target)
    spent, movable, *others = sums.tolist()
    return Dual(spent, movable / level, *others)


def _dual_block(
    devices: DeviceColumns,
    shares: tuple[float, float],
    level: float,
    price: float,
    pace: Pace | None,
    begin: int,
    out: Floats,
) -> tuple[float, ...]:
    end = begin + BLOCK
    weights, cost = _weights(devices, shares, begin, end), part(devices.cost, begin, end)
    lower, upper = part(devices.lower, begin, end), part(devices.upper, begin, end)
    wanted = weights / cost
    np.sqrt(wanted, out=wanted)
    wanted *= level
    caps, several = None, None
    # fmin and fmax pass over what is no number: no noise at no cost, no time for infinite speed.
    batches = np.fmax(wanted, lower)
    if pace is None:
        np.minimum(batches, upper, out=batches)
    else:
        caps, several = _caps(devices, pace, begin, end)
        np.minimum(batches, np.fmin(upper, caps), out=batches)
        np.maximum(batches, lower, out=batches)
    out[:] = batches[: out.size]
    free = batches == wanted
    inverse = _inverse(batches, devices.population, begin, end)
    if cost.size == 1:
        spent, movable = cost[0] * batches.sum(), cost[0] * batches.sum(where=free)
    else:
        spending = cost * batches
        spent, movable = spending.sum(), spending.sum(where=free)
    held = pull = drag = 0.0
    if caps is not None:
        places = np.flatnonzero((batches >= caps) & (caps < upper))
        s = batches[places]
        push = weights[places] / (s * s) - price * at(cost, places)
        some = push > 0.0
        places, s, push = places[some], s[some], push[some]
        speeds = at(part(devices.throughput, begin, end), places)
        still = at(part(devices.step_time, begin, end), places)
        if several is not None:
            parted = several[places]
            speeds = np.where(parted, at(part(devices.part_throughput, begin, end), places), speeds)
            still = np.where(parted, 0.0, still)
        speeds = push * speeds
        held, pull = float((push * s).sum()), float(speeds.sum())
        held += float((speeds * still).sum())
        drag = float((speeds * at(part(devices.round_time, begin, end), places)).sum())
    inverse *= weights
    return spent, movable, inverse.sum(), held, pull, drag


def units(
    devices: DeviceColumns, shares: tuple[float, float], dear: float, cheap: float, pace: Pace | None
) -> tuple[Units, NDArray[np.intp]]:
    """Units taken at two prices but for the time limit, and the devices that it may hold."""
    few = np.empty(len(devices), dtype=np.int64)
    total, places, many, limited = 0, [_NOBODY], [_NOBODY], [_NOBODY]
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, len(devices), BLOCK):
            end = min(begin + BLOCK, len(devices))
            multiple = part(devices.multiple, begin, end)
            gains = _weights(devices, shares, begin, end) / multiple
            least = np.floor(part(devices.lower, begin, end) / multiple)
            most = np.floor(part(devices.upper, begin, end) / multiple)
            block = few[begin:end]
            block[:] = _taken(gains, dear, least, most)
            more = _taken(gains, cheap, least, most)
            if pace is not None:
                caps, several = _caps(devices, pace, begin, end)
                # The last part of a batch need not be full: so much less may fit than its line says.
                spare = 2.0 if several is None else 2.0 + part(devices.part, begin, end) / multiple
                limited.append(begin + np.flatnonzero(caps / multiple < more + spare))
            # What is taken is whole and below 2^53: sums of floats are exact.
            total += int(block.sum())
            found = np.flatnonzero(more > block)
            places.append(begin + found)
            many.append(more[found].astype(np.int64))
    return Units(few, total, np.concatenate(places), np.concatenate(many)), np.concatenate(limited)


def noise(devices: DeviceColumns, batches: Ints) -> tuple[float, float]:
    """Sums of both noise terms over the batches."""
    first = second = 0.0
    for begin in range(0, len(devices), BLOCK):
        end = begin + BLOCK
        inverse = _inverse(batches[begin:end].astype(np.float64), devices.population, begin, end)
        first += float((devices.first[begin:end] * inverse).sum())
        inverse *= devices.second[begin:end]
        second += float(inverse.sum())
    return first, second


def _weights(devices: DeviceColumns, shares: tuple[float, float], begin: int, end: int) -> Floats:
    weights: Floats = devices.first[begin:end] * shares[0]
    if shares[1] != 0.0:
        weights += devices.second[begin:end] * shares[1]
    return weights


def _caps(
    devices: DeviceColumns, pace: Pace, begin: int, end: int
) -> tuple[Floats, NDArray[np.bool_] | None]:
    """What the time limit admits; no number for a device without limit that has no time left.

    And whom the line of full parts holds, where there are parts.
    """
    caps: Floats = pace.slack - part(devices.round_time, begin, end)
    caps /= pace.steps
    first = (caps - part(devices.step_time, begin, end)) * part(devices.throughput, begin, end)
    if devices.part.size == 1 and math.isinf(devices.part[0]):
        return first, None
    second = caps * part(devices.part_throughput, begin, end)
    return np.fmin(first, second), second < first


def _inverse(batches: Floats, population: Ints, begin: int, end: int) -> Floats:
    """1/s - ref without cancellation."""
    if population.size == 0:
        return np.reciprocal(batches)
    held = part(population, begin, end)
    inverse: Floats = (held - batches) / (batches * held)
    return inverse


def _taken(gains: Floats, price: float, least: Floats, most: Floats) -> Floats:
    """Units worth a price: floor(1/2 + sqrt(1/4 + gain / price)) within the limits."""
    taken = gains / price
    taken += 0.25
    np.sqrt(taken, out=taken)
    taken += 0.5
    np.floor(taken, out=taken)
    np.maximum(taken, least, out=taken)
    np.minimum(taken, most, out=taken)
    return taken


def at(array: NDArray[Number], places: NDArray[np.intp]) -> NDArray[Number]:
    """Entries of some devices; an array of one entry holds for all of them."""
    return array if array.size == 1 else array[places]


def alone(
    weights: Floats,
    cost: Floats,
    lower: NDArray[np.floating | np.integer],
    upper: NDArray[np.floating | np.integer],
    throughput: Floats = _INFINITE,
    round_time: Floats = _ZERO,
    step_time: Floats = _ZERO,
    part: Floats = _INFINITE,
    part_throughput: Floats = _INFINITE,
) -> DeviceColumns:
    """Devices with weights of their own."""
    contiguous = np.ascontiguousarray(weights)
    return DeviceColumns(
        first=contiguous,
        second=contiguous,
        cost=compact(cost),
        lower=compact(lower).astype(np.float64, copy=False),
        upper=compact(upper).astype(np.float64, copy=False),
        multiple=np.ones(1, dtype=np.int64),
        population=_NOBODY,
        throughput=compact(throughput),
        round_time=compact(round_time),
        step_time=compact(step_time),
        part=compact(part),
        part_throughput=compact(part_throughput),
    )


def parts_of(fleet: Fleet) -> tuple[Floats, Floats]:
    """`part` and `part_throughput` of a fleet's devices."""
    if not fleet.accumulates or fleet.micro_batch is None:
        return _INFINITE, _INFINITE
    return compact(fleet.micro_batch).astype(np.float64), compact(fleet.part_throughput)


def optimum(
    devices: DeviceColumns,
    spend: float,
    pace: Pace | None = None,
    enough: float = SPENT,
    out: Floats = _NOWHERE,
) -> tuple[float, float, Dual]:
    """The level at which the budget is spent up to a share `enough`, its price, and the sums there.

    The batches there go to `out`.
    """
    if least_spending(devices) < spend:
        level = starting_level(devices, spend, pace=pace)
        if len(devices) >= SAMPLED_FROM and spend < math.inf:
            level = _narrowed(devices, spend, pace, level)
        return water_level(devices, ALONE, spend, pace, level, enough, out)
    # Nothing to spend: any level below the first breakpoint leaves everyone at the lower end.
    with np.errstate(divide="ignore", invalid="ignore"):
        first = devices.lower / np.sqrt(devices.first / devices.cost)
    level = float(np.min(first, initial=UNBOUNDED, where=first > 0.0))
    price = 1.0 / (level * level)
    return level, price, dual(devices, ALONE, level, price, pace, out)


def _narrowed(devices: DeviceColumns, spend: float, pace: Pace | None, level: float) -> float:
    """The level at which the budget is spent, if it is near the given one: else a better guess.

    Between two levels most devices stay at one end, or reach neither, all the time: one pass sums these. What
    is left is the same problem for the few others and one device more, which spends what the free ones do.
    """
    low, high = level * (1.0 - SPREAD), level * (1.0 + SPREAD)
    fixed, rate, places = _bracket(devices, low, high, pace)

    def with_one_more(array: Floats, entry: float) -> Floats:
        return np.append(np.broadcast_to(at(array, places), places.shape), entry)

    few = alone(
        with_one_more(devices.first, rate * rate),
        with_one_more(devices.cost, 1.0),
        with_one_more(devices.lower, 0.0),
        with_one_more(devices.upper, math.inf),
        with_one_more(devices.throughput, math.inf),
        with_one_more(devices.round_time, 0.0),
        with_one_more(devices.step_time, 0.0),
        with_one_more(devices.part, math.inf),
        with_one_more(devices.part_throughput, math.inf),
    )
    found, _, _ = water_level(few, ALONE, max(spend - fixed, 0.0), pace, level, SPENT)
    return min(max(found, low), high)


def _bracket(
    devices: DeviceColumns, low: float, high: float, pace: Pace | None
) -> tuple[float, float, NDArray[np.intp]]:
    """What is spent between two levels by those who stay at an end, and by others per unit of level.

    And the devices that reach an end in between.
    """
    fixed, rate, undecided = 0.0, 0.0, []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for begin in range(0, len(devices), BLOCK):
            end = begin + BLOCK
            cost, lower = part(devices.cost, begin, end), part(devices.lower, begin, end)
            upper = part(devices.upper, begin, end)
            if pace is not None:
                upper = np.maximum(np.fmin(upper, _caps(devices, pace, begin, end)[0]), lower)
            roots = np.sqrt(devices.first[begin:end] / cost)
            np.nan_to_num(roots, copy=False, nan=0.0, posinf=math.inf)
            below, above = roots * high <= lower, roots * low >= upper
            free = ~below & ~above & (roots * low >= lower) & (roots * high <= upper)
            fixed += float(np.sum(cost * lower * below)) + float(np.sum(cost * upper * (above & ~below)))
            rate += float(np.sum(cost * roots, where=free))
            undecided.append(begin + np.flatnonzero(~(below | above | free)))
    return fixed, rate, np.concatenate(undecided)


def least_spending(devices: DeviceColumns) -> float:
    """Sum a_i l_i."""
    each = devices.cost * devices.lower
    return float(each[0]) * len(devices) if each.size == 1 else float(each.sum())


def starting_level(
    devices: DeviceColumns, spend: float, shares: tuple[float, float] = ALONE, pace: Pace | None = None
) -> float:
    """A level at which about the budget is spent: that of a sample, or of no limits where it is small."""
    if spend == math.inf:
        return UNBOUNDED
    if len(devices) >= SAMPLED_FROM:
        sample = devices.sampled(len(devices) // SAMPLE)
        own, share = least_spending(sample), len(sample) / len(devices)
        budget = own + max(spend - least_spending(devices), 0.0) * share
        return water_level(sample, shares, budget, pace, starting_level(sample, budget, shares), 1e-9)[0]
    every = -(-len(devices) // GUESSED_FROM)
    weights = devices.first[::every] * shares[0] + devices.second[::every] * shares[1]
    cost = devices.cost if devices.cost.size == 1 else devices.cost[::every]
    wanted = float(np.sqrt(weights * cost).mean()) * len(devices)
    return min(max(spend / wanted, LEAST), UNBOUNDED / 2.0) if wanted > 0.0 else 1.0


def water_level(
    devices: DeviceColumns,
    shares: tuple[float, float],
    spend: float,
    pace: Pace | None,
    level: float,
    enough: float,
    out: Floats = _NOWHERE,
) -> tuple[float, float, Dual]:
    """The level at which the budget is spent up to a share `enough`, its price, and the sums there.

    Newton's method on the piecewise linear spending, kept inside a bracket, from the given level. The batches
    at the end go to `out`.
    """
    low, high = 0.0, math.inf
    level = UNBOUNDED if spend == math.inf else level
    while True:
        price = 0.0 if level == UNBOUNDED else 1.0 / (level * level)
        sums = dual(devices, shares, level, price, pace, out)
        excess = sums.spent - spend
        if abs(excess) <= enough * spend or (level == UNBOUNDED and excess <= 0.0):
            return level, price, sums
        low, high = (low, level) if excess > 0.0 else (level, high)
        step = level - excess / sums.movable if sums.movable > 0.0 else math.nan
        if not low < step < high:
            step = _between(low, high)
        if step in (low, high) or step < LEAST:
            return level, price, sums
        level = step


def _between(low: float, high: float) -> float:
    """A level between two, in ratio, since levels span decades."""
    if high == math.inf:
        # All that could move has been moved: see whether everything fits.
        return max(low, UNBOUNDED)
    return math.sqrt(low) * math.sqrt(high) if low > 0.0 else high / 16.0
