"""Bounds on all (K, tau) at once from a few inner solves, and a search that needs no others.

In normalised directions a row, proved by one inner solve at one (K, tau), bounds the inner problem at every
other. So rows are shared by all boxes: the boxes of (K, tau) are bounded many at a time, split where the
bound does not do, and a single (K, tau) that nothing rules out gets a row and then whole batches, whose
lower bound holds for every plan with as many rounds and local steps or more. Between the directions of rows,
and towards those where nothing is known, the inner problem is at least its chord, for it is concave in the
direction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.contract import Incumbent
from coopt.solvers.exact.noise_bounds import Directions
from coopt.solvers.exact.oracle import Oracle, Row, WholeBatches
from coopt.solvers.ranges import Ranges
from coopt.solvers.roundoff import LOOSENED, LOOSENED_LIMIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The ranges of K and of tau are cut into so many parts to begin with.
FIRST_PARTS = 6
# Boxes split at a time.
BATCH = 12
# Where the sides of a box are cut.
SHARES = np.linspace(0.0, 1.0, 5)
# Looking at all boxes takes about as long as an inner solve for so many devices.
LOOK = 1000
# A row is not repeated for numbers of rounds as near as this.
NEAR = 0.1
# Inner solves, and boxes in hand, after which boxes with curves of integer optima do better.
MOST_SOLVES = 256
MOST_BOXES = 3000


@dataclass(frozen=True)
class Remainder:
    """What the rows could not rule out: the ranges of K and tau that hold it, and a bound on it."""

    rounds: tuple[int, int]
    local_steps: tuple[int, int]
    bound: float


@dataclass(frozen=True)
class _Known:
    """What rows and integer optima prove, as columns of shape (n, 1), and the directions that they are for.

    Attributes
    ----------
    nodes : ndarray, shape (d,)
        The different directions, ascending.
    order, starts : ndarray of int
        Rows, then whole batches, sorted by direction, and where each direction starts.
    constant, slope, rise : ndarray
        Of rows: v >= constant - slope / (K tau) + rise / tau.
    rounds, local_steps, level, units, price : ndarray
        Of whole batches: v >= level for as many rounds and local steps or more, plus a price for each unit
        less that a step may use.
    """

    nodes: Floats
    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    constant: Floats
    slope: Floats
    rise: Floats
    rounds: Floats
    local_steps: Floats
    level: Floats
    units: Floats
    price: Floats

    def levels(self, k1: Floats, t1: Floats, t2: Floats, most_units: Floats) -> Floats:
        """Lower bounds on v at the nodes, shape (d, n), for n boxes with so many units a step at most."""
        # K is smallest at the start of a box; what is linear in 1/tau is smallest at one of the ends.
        pull = self.slope / k1 - self.rise
        known = self.constant - np.maximum(pull / t1, pull / t2)
        if self.level.size:
            reached = (k1 >= self.rounds) & (t1 >= self.local_steps)
            fewer = np.maximum(self.units - most_units, 0.0)
            known = np.concatenate([known, np.where(reached, self.level + self.price * fewer, 0.0)])
        found: Floats = np.maximum(np.maximum.reduceat(known[self.order], self.starts, axis=0), 0.0)
        return found


class GlobalCuts:
    """Rows, whole batches and the boxes that they do not rule out yet.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    ranges : Ranges
    inner : Oracle
    goal : callable
        Returns the value of the best plan, or a smaller one from which on plans are of no interest.
    threshold : callable
        Returns what the bound on a plan has to reach to rule it out: the goal, or so little less that the gap
        is tolerated.
    found : callable
        Told of every plan with whole batches.
    """

    def __init__(
        self,
        problem: Problem,
        form: MonotoneForm,
        ranges: Ranges,
        inner: Oracle,
        goal: Callable[[], float],
        threshold: Callable[[], float],
        found: Callable[[Incumbent], None],
    ) -> None:
        self.problem = problem
        self.form = form
        self.ranges = ranges
        self._step_cost = problem.plain.fleet.whole_step_cost
        self.inner = inner
        self.goal = goal
        self.threshold = threshold
        self.found = found
        self.discarded = math.inf
        # Members that are not ruled out on all that is left.
        self._active = np.arange(len(form.members))
        self._rows: list[Row] = []
        self._touched: list[tuple[int, float]] = []
        # (K, tau, angle) with whole batches, and whether more is to be proved there; what they prove.
        self._solved: dict[tuple[int, int, float], bool] = {}
        self._optima: list[tuple[float, ...]] = []
        self._columns: dict[int, int] = {}
        self._floors: Floats = np.empty((3, len(form.members), 0))
        self._table: _Known | None = None
        self._effort = 1

    def run(self, deadline: float, start: tuple[int, int, int] | None = None) -> Remainder | None:
        """Rule out what can be; return what is left, None if nothing."""
        boxes = self._feasible(self._first())
        rounds, local_steps, member = self._promising(boxes) if start is None else start
        self._floors_at(np.array([local_steps]))
        angle = self._angle(local_steps, member)
        self._row(rounds, local_steps, angle)
        self._whole(rounds, local_steps, angle)
        bounds, members = self._bounds(boxes, everywhere=True)
        while True:
            keep = bounds < self.threshold()
            if not keep.all():
                self.discarded = min(self.discarded, float(bounds[~keep].min()))
                boxes, bounds, members = boxes[:, keep], bounds[keep], members[keep]
            if bounds.size == 0:
                return None
            if self.inner.solves > MOST_SOLVES or bounds.size > MOST_BOXES or time.perf_counter() > deadline:
                low, high = boxes[:2].min(axis=1).tolist(), boxes[2:].max(axis=1).tolist()
                return Remainder((low[0], high[0]), (low[1], high[1]), float(bounds.min()))
            single = (boxes[0] == boxes[2]) & (boxes[1] == boxes[3])
            weakest = int(bounds.argmin())
            if single[weakest]:
                before = self.threshold()
                for place in self._next(boxes, single, weakest):
                    self._tighten(boxes[:, place : place + 1], int(members[place]))
                # Without a better plan the rest has to be ruled out: more at a time.
                self._effort = 1 if self.threshold() < before else 2 * self._effort
                bounds, members = self._bounds(boxes, everywhere=True)
                # Closed, and still below: what its solution is worth is known.
                for place in np.flatnonzero(single & (bounds < self.threshold())).tolist():
                    if self._closed(boxes[:, place], int(members[place])):
                        self.discarded = min(self.discarded, float(bounds[place]))
                        bounds[place] = math.inf
                continue
            several = np.flatnonzero(~single)
            if several.size > BATCH:
                several = several[np.argpartition(bounds[several], BATCH)[:BATCH]]
            parts = self._feasible(_split(boxes[:, several]))
            part_bounds, part_members = self._bounds(parts)
            rest = np.ones(bounds.size, dtype=bool)
            rest[several] = False
            boxes = np.concatenate([boxes[:, rest], parts], axis=1)
            bounds = np.concatenate([bounds[rest], part_bounds])
            members = np.concatenate([members[rest], part_members])

    def _promising(self, boxes: Ints) -> tuple[int, int, int]:
        """The start of a box and the member that look best as if only the cost limited batches."""
        k1, t1 = boxes[:2].astype(np.float64)
        offsets, sizes, angles = self._floors_at(boxes[1])
        budget = self.problem.plain.budget
        with np.errstate(divide="ignore", over="ignore"):
            spend = (budget.cost / k1 - budget.round_cost) / t1 - self._step_cost
            spend = np.maximum(spend, self.ranges.least_work - self._step_cost)
            wanted = self.inner.unlimited(angles)
            noise = np.divide(wanted, spend, out=np.zeros_like(wanted), where=wanted > 0.0)
            np.minimum(noise, 1.0, out=noise)
        start, slope = self.form.progress(k1 * t1, self._active)
        values = start + slope * (offsets + sizes * noise)
        member, place = np.unravel_index(int(np.nanargmin(values)), values.shape)
        return int(boxes[0, place]), int(boxes[1, place]), int(member)

    def _next(self, boxes: Ints, single: NDArray[np.bool_], weakest: int) -> list[int]:
        """The weakest single (K, tau), and others of its tau where solving costs less than looking."""
        others = np.flatnonzero(single & (boxes[1] == boxes[1, weakest]))
        others = others[np.argsort(boxes[0, others])]
        extra = min(LOOK // len(self.inner.devices), others.size)
        if self._active.size == 1:
            extra = min(extra, self._effort)
        if extra <= 1:
            return [weakest]
        # The first rounds first: what is found there holds for more rounds too.
        places = others[np.linspace(0, others.size - 1, extra).astype(np.intp)].tolist()
        return [weakest, *(place for place in places if place != weakest)]

    @property
    def _news(self) -> int:
        return len(self._rows) + len(self._optima)

    def _first(self) -> Ints:
        """Boxes (K1, tau1, K2, tau2), as columns, that hold all plans."""
        found = []
        for (k1, k2), (t1, t2) in self.ranges.roots():
            rounds, steps = _parts(k1, k2), _parts(t1, t2)
            size = rounds.shape[1], steps.shape[1]
            low_k, high_k = (np.repeat(ends, size[1]) for ends in rounds)
            low_t, high_t = (np.tile(ends, size[0]) for ends in steps)
            found.append(np.array([low_k, low_t, high_k, high_t]))
        return np.concatenate(found, axis=1)

    def _feasible(self, boxes: Ints) -> Ints:
        """The boxes without those whose cheapest and fastest plan breaks a limit, and without idle ends."""
        k1, t1, k2, t2 = self.ranges.unmatched(boxes)
        step, wait = self.ranges.slowest
        budget, round_energy = self.problem.plain.budget, self.problem.plain.fleet.whole_round_energy
        most_cost, most_time = budget.cost * LOOSENED_LIMIT, budget.time * LOOSENED_LIMIT
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            seconds = (t1[:, None] * step + wait).max(axis=1)
            cost = t1 * self.ranges.least_work + budget.round_cost
            energy = t1 * self.ranges.least_energy + round_energy
            fits = limits.within_all(k1 * cost, budget.cost) & limits.within_all(k1 * seconds, budget.time)
            fits &= limits.within_all(k1 * energy, budget.energy)
            # One more than the quotients: rounding must not cut off a plan.
            most_k = np.minimum(most_cost / cost, most_time / seconds) + 1.0
            slack = most_time / k1[:, None] - wait
            most_t = np.fmin(
                (most_cost / k1 - budget.round_cost) / self.ranges.least_work,
                np.where(step > 0.0, slack / step, math.inf).min(axis=1),
            )
        k2 = np.fmax(np.fmin(k2, most_k), k1).astype(np.int64)
        t2 = np.fmax(np.fmin(t2, most_t + 1.0), t1).astype(np.int64)
        return np.array([k1, t1, k2, t2])[:, fits]

    def _most_steps(self, rounds: Floats) -> Floats:
        """The most local steps K tau in all of a plan with so many rounds or more."""
        step, wait = self.ranges.slowest
        budget, fleet = self.problem.plain.budget, self.problem.plain.fleet
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spend = budget.cost * LOOSENED_LIMIT - rounds * budget.round_cost
            seconds = budget.time * LOOSENED_LIMIT - rounds[:, None] * wait
            joules = budget.energy * LOOSENED_LIMIT - rounds * fleet.whole_round_energy
            most = np.fmin(spend / self.ranges.least_work, np.fmin.reduce(seconds / step, axis=1))
            np.fmin(most, joules / self.ranges.least_energy, out=most)
        # What takes nothing limits nothing, and no plan takes fewer steps than rounds.
        found: Floats = np.fmax(np.where(np.isnan(most), math.inf, most * (1.0 + LOOSENED)), rounds)
        return found

    def _floors_at(self, local_steps: Ints) -> tuple[Floats, Floats, Floats]:
        """Offsets, sizes and angles of the members at every tau, shape (m, n)."""
        taus = local_steps.tolist()
        new = [tau for tau in dict.fromkeys(taus) if tau not in self._columns]
        if new:
            self._columns |= {tau: len(self._columns) + i for i, tau in enumerate(new)}
            found = self.inner.floors(new, self._active).transpose(1, 2, 0)
            self._floors = np.concatenate([self._floors, found], axis=2)
        offsets, sizes, angles = self._floors[:, :, [self._columns[tau] for tau in taus]]
        return offsets, sizes, angles

    def _bounds(self, boxes: Ints, everywhere: bool = False) -> tuple[Floats, NDArray[np.intp]]:
        """The smallest bound over the members on every box, and whose it is.

        When the boxes are all that is left `everywhere`, members that are ruled out on each are left out.
        """
        if boxes.shape[1] == 0:
            return np.empty(0), np.empty(0, dtype=np.intp)
        k1, t1, k2, t2 = boxes.astype(np.float64)
        offsets, sizes, angles = self._floors_at(boxes[1])
        levels = offsets + sizes * self._noise(k1, t1, t2, angles)
        values = np.full(levels.shape, math.inf)
        for steps in (k1 * t1, np.minimum(k2 * t2, self._most_steps(k1))):
            start, slope = self.form.progress(steps, self._active)
            np.minimum(values, start + slope * levels, out=values)
        if everywhere and self._active.size > 1:
            least = values.min(axis=1)
            alive = least < self.threshold()
            if alive.any() and not alive.all():
                self.discarded = min(self.discarded, float(least[~alive].min()))
                self._active, self._floors, values = (
                    self._active[alive],
                    self._floors[:, alive],
                    values[alive],
                )
        members = values.argmin(axis=0)
        return values[members, np.arange(members.size)], members

    def _noise(self, k1: Floats, t1: Floats, t2: Floats, angles: Floats) -> Floats:
        """Lower bounds on v in the given directions, shape (m, n), from all that is known."""
        if self._news == 0:
            return np.zeros(angles.shape)
        known = self._tabled()
        nodes, levels = known.nodes, known.levels(k1, t1, t2, self.inner.most_units(k1, t1))
        if self.inner.terms == 1:
            return levels
        low, high = self.inner.ends
        ends = np.zeros((1, levels.shape[1]))
        if nodes[0] > low:
            nodes, levels = np.concatenate([[low], nodes]), np.concatenate([ends, levels])
        if nodes[-1] < high:
            nodes, levels = np.concatenate([nodes, [high]]), np.concatenate([levels, ends])
        if nodes.size > 2:
            share = ((nodes[1:-1] - nodes[:-2]) / (nodes[2:] - nodes[:-2]))[:, None]
            chords = (1.0 - share) * levels[:-2] + share * levels[2:]
            np.maximum(levels[1:-1], chords, out=levels[1:-1])
        right = np.clip(np.searchsorted(nodes, angles), 1, nodes.size - 1)
        share = (angles - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
        places = np.arange(levels.shape[1])
        noise: Floats = (1.0 - share) * levels[right - 1, places] + share * levels[right, places]
        return noise

    def _tabled(self) -> _Known:
        if self._table is None:
            angles = np.array([row.angle for row in self._rows] + [optimum[2] for optimum in self._optima])
            order = np.argsort(angles, kind="stable")
            nodes, starts = np.unique(angles[order], return_index=True)
            rows = np.array([[row.constant, row.slope, row.rise] for row in self._rows])
            optima = np.delete(np.array(self._optima).reshape(-1, 6), 2, axis=1)
            columns = [*rows.T[:, :, None], *optima.T[:, :, None]]
            self._table = _Known(nodes, order, starts, *columns)
        return self._table

    def _angle(self, local_steps: int, member: int) -> float:
        return float(self._floors[2, member, self._columns[local_steps]])

    def _closed(self, box: Ints, member: int) -> bool:
        place = int(box[0]), int(box[1]), self._angle(int(box[1]), member)
        return self._solved.get(place, False)

    def _tighten(self, box: Ints, member: int) -> None:
        """A row for a member at a single (K, tau), whole batches if that does not do, then the best ones."""
        rounds, local_steps = box[:2, 0].tolist()
        # Looking may cost more than solving, but another member may have become the weakest.
        careful = len(self.inner.devices) > LOOK or self._active.size > 1
        for solve in (self._row_unless_near, self._whole, self._close):
            if careful or solve == self._close:
                bounds, members = self._bounds(box)
                if bounds[0] >= self.threshold():
                    return
                member = int(members[0])
            solve(rounds, local_steps, self._angle(local_steps, member))

    def _row_unless_near(self, rounds: int, local_steps: int, angle: float) -> None:
        if not any(angle == near and abs(k - rounds) <= NEAR * k for k, near in self._touched):
            self._row(rounds, local_steps, angle)

    def _row(self, rounds: int, local_steps: int, angle: float) -> None:
        self._rows.append(self.inner.row(rounds, local_steps, angle))
        self._touched.append((rounds, angle))
        self._table = None

    def _whole(self, rounds: int, local_steps: int, angle: float) -> None:
        if (rounds, local_steps, angle) not in self._solved:
            self._learn(rounds, local_steps, angle, self.inner.whole(rounds, local_steps, angle))

    def _close(self, rounds: int, local_steps: int, angle: float) -> None:
        """The best whole batches, as far as they could be of interest to any member in this direction."""
        if not self._solved.get((rounds, local_steps, angle), False):
            offsets, sizes, angles = (each[:, 0] for each in self._floors_at(np.array([local_steps])))
            start, slope = self.form.progress(np.array([float(rounds * local_steps)]), self._active)
            cutoff = Directions(offsets, sizes, angles).cutoff(angle, start[:, 0], slope[:, 0], self.goal())
            self._learn(rounds, local_steps, angle, self.inner.whole(rounds, local_steps, angle, cutoff))

    def _learn(self, rounds: int, local_steps: int, angle: float, whole: WholeBatches) -> None:
        self._solved[rounds, local_steps, angle] = whole.closed
        self._optima.append((rounds, local_steps, angle, whole.level, whole.units, whole.price))
        self._table = None
        value, member = self.inner.value(rounds, local_steps, whole.noise)
        self.found(Incumbent(value, rounds, local_steps, whole.batch_sizes, self.form.members[member]))


def _parts(low: int, high: int) -> Ints:
    """First and last of the parts of a range, geometrically."""
    if high - low < FIRST_PARTS:
        ends = np.arange(low, high + 1)
        return np.array([ends, ends])
    first = np.unique(np.geomspace(low, high, FIRST_PARTS + 1)[:-1].astype(np.int64))
    first[0] = low
    return np.array([first, np.append(first[1:] - 1, high)])


def _split(boxes: Ints) -> Ints:
    """All boxes cut into quarters, geometrically, on every side that is longer than one."""
    for low, high in ((0, 2), (1, 3)):
        first, last = boxes[low].astype(np.float64), boxes[high] + 1.0
        ends = (first * (last / first) ** SHARES[:, None]).astype(np.int64)
        ends[0], ends[-1] = boxes[low], boxes[high] + 1
        filled = ends[:-1] < ends[1:]
        boxes = np.repeat(boxes[None], len(SHARES) - 1, axis=0).swapaxes(0, 1)
        boxes[low], boxes[high] = ends[:-1], ends[1:] - 1
        boxes = boxes[:, filled]
    return boxes
