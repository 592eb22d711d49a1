"""Passes over a fleet: what :mod:`coopt.solvers.passes` does, without arrays in between."""

from __future__ import annotations

import math

import numpy as np

from coopt.compiled.data import Devices, Floats, Ints, exact, quick

# Devices worked on together: a few arrays of this length stay in the nearest cache.
WIDTH = 512
# Fleets up to this size have their time limits worked out once for each (K, tau).
CAPPED_UP_TO = 16_384


@quick
def filled(array: Floats) -> Floats:
    """A block of the first entry, which stands for all where it is the only one."""
    return np.full(WIDTH, array[0])


@quick
def part(array: Floats, block: Floats, begin: int, end: int) -> Floats:
    """One block of an array; the given one where one entry holds for all devices."""
    return array[begin:end] if array.size > 1 else block[: end - begin]


@quick
def dual(
    devices: Devices,
    first: float,
    second: float,
    level: float,
    price: float,
    slack: float,
    steps: float,
    out: Floats,
) -> tuple[float, float, float, float, float, float]:
    """Sums at one level of water; there is no time limit where `slack` is infinite. Batches go to `out`."""
    size, timed = devices.first.size, slack < math.inf
    costs, lowers, uppers = filled(devices.cost), filled(devices.lower), filled(devices.upper)
    speeds, waits = filled(devices.throughput), filled(devices.round_time)
    caps, weights, batches = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    spent = movable = value = held = pull = drag = 0.0
    for begin in range(0, size, WIDTH):
        end = min(begin + WIDTH, size)
        x, y = devices.first[begin:end], devices.second[begin:end]
        cost, lower = part(devices.cost, costs, begin, end), part(devices.lower, lowers, begin, end)
        upper = part(devices.upper, uppers, begin, end)
        speed = part(devices.throughput, speeds, begin, end)
        wait = part(devices.round_time, waits, begin, end)
        for i in range(end - begin):
            cap = (slack - wait[i]) * speed[i] / steps if timed else upper[i]
            # Comparisons are false for no number, a device without limit that has no time left: no limit.
            caps[i] = cap if cap < upper[i] else upper[i]
        part_spent = part_movable = part_value = 0.0
        for i in range(end - begin):
            weight = x[i] * first + y[i] * second
            wanted = math.sqrt(weight / cost[i]) * level
            batch = wanted if wanted > lower[i] else lower[i]
            batch = caps[i] if caps[i] < batch else batch
            batch = lower[i] if lower[i] > batch else batch
            used = cost[i] * batch
            part_spent += used
            part_movable += used if batch == wanted else 0.0
            weights[i], batches[i] = weight, batch
        if devices.population.size > 0:
            population = devices.population[begin:end]
            for i in range(end - begin):
                # 1/s - 1/d without cancellation.
                part_value += weights[i] * (population[i] - batches[i]) / (batches[i] * population[i])
        else:
            for i in range(end - begin):
                part_value += weights[i] / batches[i]
        spent, movable, value = spent + part_spent, movable + part_movable, value + part_value
        if timed:
            for i in range(end - begin):
                if batches[i] >= caps[i] and caps[i] < upper[i]:
                    push = weights[i] / (batches[i] * batches[i]) - price * cost[i]
                    if push > 0.0:
                        held += push * batches[i]
                        pull += push * speed[i]
                        drag += push * speed[i] * wait[i]
        for i in range(min(end, out.size) - begin):
            out[begin + i] = batches[i]
    return spent, movable / level, value, held, pull, drag


@quick
def bracket(
    devices: Devices, low: float, high: float, slack: float, steps: float, places: Ints
) -> tuple[float, float, int]:
    """What is spent between two levels of water, as far as that is linear, with weights `first` alone.

    The part of those that stay at an end, that of the others per unit of level, and how many are undecided:
    those who reach an end in between, which go to `places`.
    """
    size, timed = devices.first.size, slack < math.inf
    costs, lowers, uppers = filled(devices.cost), filled(devices.lower), filled(devices.upper)
    speeds, waits = filled(devices.throughput), filled(devices.round_time)
    ends, undecided = np.empty(WIDTH), np.empty(WIDTH)
    fixed = rate = 0.0
    found = 0
    for begin in range(0, size, WIDTH):
        end = min(begin + WIDTH, size)
        x = devices.first[begin:end]
        cost, lower = part(devices.cost, costs, begin, end), part(devices.lower, lowers, begin, end)
        upper = part(devices.upper, uppers, begin, end)
        speed = part(devices.throughput, speeds, begin, end)
        wait = part(devices.round_time, waits, begin, end)
        for i in range(end - begin):
            cap = (slack - wait[i]) * speed[i] / steps if timed else upper[i]
            cap = cap if cap < upper[i] else upper[i]
            ends[i] = lower[i] if lower[i] > cap else cap
        part_fixed = part_rate = several = 0.0
        for i in range(end - begin):
            root = math.sqrt(x[i] / cost[i])
            least = root * high if root * high > 0.0 else 0.0
            most = root * low if root * low > 0.0 else 0.0
            below, above = least <= lower[i], most >= ends[i]
            free = most >= lower[i] and least <= ends[i] and not below and not above
            part_fixed += cost[i] * lower[i] if below else (cost[i] * ends[i] if above else 0.0)
            part_rate += cost[i] * root if free else 0.0
            undecided[i] = 0.0 if below or above or free else 1.0
            several += undecided[i]
        fixed, rate = fixed + part_fixed, rate + part_rate
        if several > 0.0:
            for i in range(end - begin):
                if undecided[i] > 0.0:
                    places[found] = begin + i
                    found += 1
    return fixed, rate, found


@exact
def cap_of(
    speed: float, wait: float, upper: float, multiple: float, rounds: float, steps: float, limit: float
) -> float:
    """Units of a device that the time limit admits, as :func:`coopt.limits.largest_batches` has them."""
    slack = limit / rounds - wait
    if speed == math.inf:
        cap = upper if slack >= 0.0 else -1.0
    else:
        cap = min(max(speed * slack / steps, -1.0), upper)
    units = np.floor(cap / multiple)
    more = (units + 1.0) * multiple
    if more <= upper and rounds * (steps * more / speed + wait) <= limit:
        units += 1.0
    if not rounds * (steps * (units * multiple) / speed + wait) <= limit:
        units -= 1.0
    return float(units)


@exact
def cap_all(devices: Devices, rounds: float, steps: float, limit: float, caps: Floats) -> None:
    """Units of every device that both its samples and the time limit admit."""
    speeds, waits, multiples = devices.throughput, devices.round_time, devices.multiple
    uppers = devices.upper
    for i in range(caps.size):
        upper = uppers[i if uppers.size > 1 else 0]
        multiple = multiples[i if multiples.size > 1 else 0]
        caps[i] = np.floor(upper / multiple)
        if limit < math.inf:
            speed, wait = speeds[i if speeds.size > 1 else 0], waits[i if waits.size > 1 else 0]
            caps[i] = cap_of(speed, wait, upper, multiple, rounds, steps, limit)


@quick
def take(
    devices: Devices,
    first: float,
    second: float,
    dear: float,
    cheap: float,
    rounds: float,
    steps: float,
    limit: float,
    caps: Floats,
    few: Ints,
    places: Ints,
    many: Ints,
) -> tuple[float, float, int]:
    """Units taken at two prices: those at the higher one go to `few`, who takes more to `places` and `many`.

    The sums at both prices, and how many take more. `caps` are known, or empty.
    """
    size, timed = devices.first.size, limit < math.inf and caps.size == 0
    least, most, multiple = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    multiple[:] = devices.multiple[0]
    least[:] = np.floor(devices.lower[0] / devices.multiple[0])
    most[:] = np.floor(devices.upper[0] / devices.multiple[0])
    taken, more = np.empty(WIDTH), np.empty(WIDTH)
    total = total_more = 0.0
    found = 0
    for begin in range(0, size, WIDTH):
        end = min(begin + WIDTH, size)
        x, y = devices.first[begin:end], devices.second[begin:end]
        if devices.multiple.size > 1:
            multiple = devices.multiple[begin:end]
        if devices.lower.size > 1 or devices.multiple.size > 1:
            for i in range(end - begin):
                lower = devices.lower[begin + i if devices.lower.size > 1 else 0]
                least[i] = np.floor(lower / multiple[i])
        if caps.size > 0:
            most = caps[begin:end]
        elif devices.upper.size > 1 or devices.multiple.size > 1:
            for i in range(end - begin):
                upper = devices.upper[begin + i if devices.upper.size > 1 else 0]
                most[i] = np.floor(upper / multiple[i])
        for i in range(end - begin):
            gain = (x[i] * first + y[i] * second) / multiple[i]
            units = np.floor(0.5 + math.sqrt(0.25 + gain / dear))
            units = units if units > least[i] else least[i]
            taken[i] = most[i] if units > most[i] else units
            units = np.floor(0.5 + math.sqrt(0.25 + gain / cheap))
            units = units if units > least[i] else least[i]
            more[i] = most[i] if units > most[i] else units
        if timed:
            for i in range(end - begin):
                speed = devices.throughput[begin + i if devices.throughput.size > 1 else 0]
                wait = devices.round_time[begin + i if devices.round_time.size > 1 else 0]
                # Near the limit only the limit itself decides.
                if (limit / rounds - wait) * speed / steps < (more[i] + 2.0) * multiple[i]:
                    upper = devices.upper[begin + i if devices.upper.size > 1 else 0]
                    cap = cap_of(speed, wait, upper, multiple[i], rounds, steps, limit)
                    taken[i], more[i] = min(taken[i], cap), min(more[i], cap)
        part = part_more = 0.0
        for i in range(end - begin):
            part += taken[i]
            part_more += more[i]
            few[begin + i] = np.int64(taken[i])
        total, total_more = total + part, total_more + part_more
        if part_more > part:
            for i in range(end - begin):
                if more[i] > taken[i]:
                    places[found], many[found] = begin + i, np.int64(more[i])
                    found += 1
    return total, total_more, found


@exact
def choose(
    devices: Devices,
    first: float,
    second: float,
    few: Ints,
    places: Ints,
    many: Ints,
    found: int,
    missing: int,
    offered: int,
) -> float:
    """Add the best `missing` of the `offered` units between two prices to `few`; the gain of the last one."""
    gains = np.empty(offered)
    at = 0
    for j in range(found):
        i = places[j]
        multiple = devices.multiple[i if devices.multiple.size > 1 else 0]
        gain = (devices.first[i] * first + devices.second[i] * second) / multiple
        for units in range(few[i], many[j]):
            gains[at] = gain / (units * (units + 1.0))
            at += 1
    last = np.partition(gains, offered - missing)[offered - missing]
    equal = missing
    for gain in gains:
        equal -= gain > last
    at = 0
    for j in range(found):
        for _ in range(few[places[j]], many[j]):
            # Of units that gain the same the first are taken.
            if gains[at] > last or (gains[at] == last and equal > 0):
                equal -= gains[at] == last
                few[places[j]] += 1
            at += 1
    return float(last)


@quick
def noise(devices: Devices, units: Ints) -> tuple[float, float]:
    """Sums of both noise terms over batches of so many units."""
    first = second = 0.0
    for begin in range(0, devices.first.size, WIDTH):
        part_first = part_second = 0.0
        for i in range(begin, min(begin + WIDTH, devices.first.size)):
            batch = units[i] * devices.multiple[i if devices.multiple.size > 1 else 0]
            inverse = 1.0 / batch
            if devices.population.size > 0:
                inverse = (devices.population[i] - batch) / (batch * devices.population[i])
            part_first += devices.first[i] * inverse
            part_second += devices.second[i] * inverse
        first, second = first + part_first, second + part_second
    return first, second
