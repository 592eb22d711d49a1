"""Bounds on many plans: ranges of local steps, each with all its rounds.

What bounds a range is what :mod:`coopt.solvers.cutting` uses: rows and integer optima in normalised
directions, their chords, the floor at the first of the local steps, and progress at both ends.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.compiled.data import Bools, Floats, Known, Limits, Members, Scratch, Spans, Stop, System, exact
from coopt.compiled.inner import add_row, add_whole, level_of, shares_at, step_units
from coopt.limits import TOLERANCE
from coopt.solvers.cutting import NEAR, ROOM
from coopt.solvers.passes import UNBOUNDED

# Ranges of rounds are cut into so many parts; so many ranges are kept at most.
PARTS, DEEPEST = 4, 2048


@exact
def slowest(limits: Limits, steps: float) -> float:
    """Seconds of a round with the smallest batches."""
    seconds = 0.0
    for i in range(limits.step.size):
        seconds = max(seconds, steps * limits.step[i] + limits.wait[i])
    return seconds


@exact
def fits(limits: Limits, rounds: float, steps: float) -> bool:
    """Whether the smallest batches meet the limits."""
    if not rounds * (steps * limits.least + limits.round_cost) <= limits.cost * (1.0 + TOLERANCE):
        return False
    return rounds * slowest(limits, steps) <= limits.time * (1.0 + TOLERANCE)


@exact
def most_rounds(limits: Limits, steps: float, most: float) -> float:
    """No plan with so many local steps has more rounds."""
    quotient = limits.cost * ROOM / (steps * limits.least + limits.round_cost)
    quotient = min(quotient, limits.time * ROOM / slowest(limits, steps))
    # One more than the quotient: rounding must not cut off a plan. Nothing is used where it is no number.
    return min(float(np.floor(quotient)) + 1.0, most) if quotient < most else most


@exact
def learn_levels(limits: Limits, rounds: float, first: float, last: float, known: Known) -> None:
    """Bound the inner problem in all known directions, for so many rounds or more and steps in a range."""
    levels, count = known.levels, known.counts[0]
    levels[:count] = 0.0
    for i in range(known.counts[1]):
        row = known.rows[i]
        # Smallest for the fewest rounds, and there, being linear in 1 / tau, at one of the ends.
        pull, place = row[2] / rounds - row[3], int(row[0])
        levels[place] = max(levels[place], row[1] - max(pull / first, pull / last))
    units = -1.0
    for i in range(known.counts[2]):
        whole = known.wholes[i]
        if whole[1] <= rounds and whole[2] <= first:
            level, place = whole[3], int(whole[0])
            if whole[5] > 0.0:
                if units < 0.0:
                    units = step_units(limits, rounds, first)
                # Each unit less costs its price at least.
                level += whole[5] * max(whole[4] - units, 0.0)
            levels[place] = max(levels[place], level)
    for i in range(count):
        left, at_left, right, at_right = known.ends[0], 0.0, known.ends[1], 0.0
        if i > 0:
            left, at_left = known.angles[i - 1], levels[i - 1]
        if i < count - 1:
            right, at_right = known.angles[i + 1], levels[i + 1]
        if left < right:
            share = (known.angles[i] - left) / (right - left)
            levels[i] = max(levels[i], (1.0 - share) * at_left + share * at_right)


@exact
def level_at(angle: float, angles: Floats, levels: Floats, count: int, ends: tuple[float, float]) -> float:
    """A bound in any direction: the chord between the known ones next to it."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if angles[middle] < angle:
            low = middle + 1
        else:
            high = middle
    left, at_left, right, at_right = ends[0], 0.0, ends[1], 0.0
    if low < count:
        right, at_right = angles[low], levels[low]
        if right == angle:
            return float(at_right)
    if low > 0:
        left, at_left = angles[low - 1], levels[low - 1]
    if not left < right:
        return 0.0
    share = min(max((angle - left) / (right - left), 0.0), 1.0)
    return float((1.0 - share) * at_left + share * at_right)


@exact
def progress(members: Members, kind: int, steps: float) -> tuple[float, float]:
    """Progress (a, b) of a kind of members after T = steps."""
    rate = members.rate[kind]
    if members.gap < 0.0:
        return float(rate / steps), 1.0
    return members.gap * math.exp(rate * steps), -math.expm1(rate * steps)


@exact
def threshold_of(known: Known, stop: Stop) -> float:
    """Plans whose bound reaches this need not be looked at."""
    value = float(known.best[0])
    return min(value - stop.tolerance * abs(value) if value < math.inf else value, stop.ceiling)


@exact
def bound(
    system: System,
    spans: Spans,
    i: int,
    first: float,
    last: float,
    stop: Stop,
    known: Known,
    scratch: Scratch,
) -> tuple[float, int, int]:
    """Bound plans with rounds from `first` to `last` and local steps in range i.

    The smallest bound of its active members, whose it is, and for how many of them it does not do. The others
    are moved behind these.
    """
    threshold, ahead, members = threshold_of(known, stop), scratch.ahead, system.members
    steps, floors, active = spans.steps[i], spans.floors[i], spans.active[i]
    learn_levels(system.limits, first, steps[0], steps[1], known)
    ahead[:] = -1.0
    angles, levels, directions, ends = known.angles, known.levels, known.counts[0], known.ends
    best, member, left, least_out = math.inf, -1, spans.counts[i], math.inf
    place = 0
    while place < left:
        m = active[place]
        kind = members.kind[m]
        if ahead[kind, 1] < 0.0:
            ahead[kind, 0], ahead[kind, 1] = progress(members, kind, first * steps[0])
            ahead[kind, 2], ahead[kind, 3] = progress(members, kind, last * steps[1])
        floor = floors[0, m]
        if floors[1, m] > 0.0:
            floor += floors[1, m] * level_at(floors[2, m], angles, levels, directions, ends)
        value = min(ahead[kind, 0] + ahead[kind, 1] * floor, ahead[kind, 2] + ahead[kind, 3] * floor)
        if value < best:
            best, member = value, m
        if value >= threshold:
            left -= 1
            active[place], active[left] = active[left], m
            least_out = min(least_out, value)
        else:
            place += 1
    known.best[4] = min(known.best[4], least_out)
    return best, member, left


@exact
def smallest(members: Members, steps: float, floors: Floats, noise: tuple[float, float]) -> tuple[float, int]:
    """The smallest value over the members after T = steps with so much of each noise, and whose it is."""
    best, member, kind, a, b = math.inf, -1, -1, 0.0, 0.0
    for m in range(floors.shape[1]):
        if members.kind[m] != kind:
            kind = members.kind[m]
            a, b = progress(members, kind, steps)
        level = (1.0 - floors[2, m]) * noise[0] + floors[2, m] * noise[1]
        value = a + b * (floors[0, m] + floors[1, m] * level)
        if value < best:
            best, member = value, m
    return best, member


@exact
def judge(
    members: Members, rounds: float, steps: float, floors: Floats, noise: tuple[float, float], known: Known
) -> None:
    """Make the last plan the best one if it is better, or as good with fewer rounds or local steps."""
    best, member = smallest(members, rounds * steps, floors, noise)
    old = known.best
    if best < old[0] or (best == old[0] and (rounds < old[1] or (rounds == old[1] and steps < old[2]))):
        old[0], old[1], old[2], old[3] = best, rounds, steps, member
        old[5], old[6] = noise
        known.counts[3] = 1 - known.counts[3]


@exact
def full(known: Known) -> bool:
    """Whether there is no room for one more row or integer optimum."""
    return bool(known.counts[1] == known.rows.shape[0] or known.counts[2] == known.wholes.shape[0])


@exact
def tighten(
    system: System,
    rounds: float,
    steps: float,
    floors: Floats,
    member: int,
    known: Known,
    scratch: Scratch,
) -> int:
    """Learn more of one (K, tau): a row, else its integer optimum, else nothing; how many solves it took."""
    angle = floors[2, member]
    near = False
    for i in range(known.counts[1]):
        row = known.rows[i]
        near |= known.angles[int(row[0])] == angle and abs(row[4] - rounds) <= NEAR * rounds
    if not near:
        add_row(system, rounds, steps, angle, known)
        return 1
    for i in range(known.counts[2]):
        whole = known.wholes[i]
        if known.angles[int(whole[0])] == angle and whole[1] == rounds and whole[2] == steps:
            return 0
    noise = add_whole(system, rounds, steps, angle, known, scratch)
    judge(system.members, rounds, steps, floors, noise, known)
    return 1


@exact
def insert(pending: Floats, count: int, first: float, last: float, i: int, value: float) -> int:
    """Add a range of rounds to those in order of their bounds, the smallest last; how many there are then."""
    place = count
    while place > 0 and pending[place - 1, 3] < value:
        pending[place] = pending[place - 1]
        place -= 1
    pending[place, 0], pending[place, 1], pending[place, 2], pending[place, 3] = first, last, i, value
    return count + 1


@exact
def divide(
    system: System,
    spans: Spans,
    i: int,
    first: float,
    last: float,
    value: float,
    pending: Floats,
    waiting: int,
    stop: Stop,
    known: Known,
    scratch: Scratch,
) -> int:
    """Cut a range of rounds, whose bound is `value`, into parts; how many ranges are waiting then."""
    begin = first
    for part in range(1, PARTS + 1):
        end = last + 1.0
        if part < PARTS:
            end = np.floor(first * (end / first) ** (part / PARTS))
        if end > begin and fits(system.limits, begin, spans.steps[i, 0]):
            lower, _, left = bound(system, spans, i, begin, end - 1.0, stop, known, scratch)
            if left > 0:
                waiting = insert(pending, waiting, begin, end - 1.0, i, max(lower, value))
        begin = max(begin, end)
    return waiting


@exact
def scan(
    system: System, rounds: tuple[float, float], spans: Spans, stop: Stop, known: Known, scratch: Scratch
) -> tuple[Bools, Floats]:
    """Rule out what can be of ranges of local steps, weakest first, and solve where one is a single number.

    Whether anything is left of each range, and a lower bound on it. The active members are kept up to date.
    """
    solves, waiting, size = 0, 0, spans.counts.size
    remains, bounds = np.zeros(size, dtype=np.bool_), np.full(size, math.inf)
    # First and last rounds, place of the range of steps, bound.
    pending = np.empty((size + DEEPEST, 4))
    for i in range(size):
        last = most_rounds(system.limits, spans.steps[i, 0], rounds[1])
        if last >= rounds[0] and fits(system.limits, rounds[0], spans.steps[i, 0]):
            value, _, spans.counts[i] = bound(system, spans, i, rounds[0], last, stop, known, scratch)
            if spans.counts[i] > 0:
                waiting = insert(pending, waiting, rounds[0], last, i, value)
    while waiting > 0:
        waiting -= 1
        first, last, value = pending[waiting, 0], pending[waiting, 1], pending[waiting, 3]
        i = int(pending[waiting, 2])
        if remains[i]:
            continue
        if value >= threshold_of(known, stop):
            known.best[4] = min(known.best[4], value)
        elif first < last and waiting <= pending.shape[0] - PARTS:
            waiting = divide(system, spans, i, first, last, value, pending, waiting, stop, known, scratch)
        elif first < last or spans.steps[i, 0] < spans.steps[i, 1]:
            remains[i], bounds[i] = True, value
        else:
            now, member, left = bound(system, spans, i, first, first, stop, known, scratch)
            # Others may be weaker by now.
            weakest = waiting == 0 or now <= max(value, pending[waiting - 1, 3])
            if left > 0 and weakest and (solves >= stop.solves or full(known)):
                remains[i], bounds[i] = True, value
            elif left > 0:
                solved = 1
                if weakest:
                    steps, floors = spans.steps[i, 0], spans.floors[i]
                    solved = tighten(system, first, steps, floors, member, known, scratch)
                    solves += solved
                if solved > 0:
                    waiting = insert(pending, waiting, first, first, i, now)
                else:
                    # What its solution is worth is known: the rest is rounding.
                    known.best[4] = min(known.best[4], now)
    return remains, bounds


@exact
def promising(
    system: System, rounds: tuple[float, float], steps: Floats, floors: Floats, tries: int
) -> tuple[float, float, int, float]:
    """The rounds, local steps and member that look best, of some rounds for each of the steps.

    Continuous batches of the sample, in the direction of the middle member, stand for all. Also the level of
    water there.
    """
    best, best_rounds, best_steps, best_member = math.inf, rounds[0], steps[0], 0
    level = best_level = 1.0
    for j in range(steps.size):
        last = most_rounds(system.limits, steps[j], rounds[1])
        shares = shares_at(system.scales[1], floors[j, 2, floors.shape[2] // 2])
        before = 0.0
        for i in range(tries):
            k = np.floor(rounds[0] * (max(last, rounds[0]) / rounds[0]) ** (i / (tries - 1)))
            if k == before or not fits(system.limits, k, steps[j]):
                continue
            before = k
            found = level_of(system.pilot, system.pilot_limits, shares, k, steps[j], 0.03, level)
            if found[0] < UNBOUNDED:
                level = found[0]
            value, member = smallest(system.members, k * steps[j], floors[j], (found[3], found[3]))
            if value < best:
                best, best_rounds, best_steps, best_member, best_level = value, k, steps[j], member, level
    return best_rounds, best_steps, best_member, best_level
