"""Which devices should train: branch and bound over nodes of :mod:`coopt.solvers.cohort.lower_bound`.

The nodes with the smallest bounds are divided, many at a time: the range whose width, or the devices whose
choice, a node's bound suffers from most. A device is settled where training, or not, would raise the bound
to the threshold. A node without open devices is one cohort, which the exact solver decides; whatever was
not decided so is bounded by its node.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError
from coopt.objectives.young import YoungFamily
from coopt.problem.problem import Problem
from coopt.problem.some_devices import some_devices
from coopt.solvers.best_first import SearchProof
from coopt.solvers.cohort.first_prices import first_prices
from coopt.solvers.cohort.lower_bound import SMALLEST, CohortBound
from coopt.solvers.cohort.nodes import IN, OPEN, OUT, CohortNodes, Evaluation
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.roundoff import LOOSENED

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# The ranges of K, of tau and of P are cut into so many parts to begin with.
FIRST_PARTS, FIRST_SHARES = 6, 8
# Nodes divided at a time, or so many entries for the devices of all of them.
BATCH, ENTRIES = 128, 16384
# Steps along subgradients for every node.
STEPS = 4
# Ranges of what counts in ratios; one that is narrower by this than the widest is left as it is.
RATIOS, NARROW, CLOSED = ("rounds", "local_steps", "share"), 0.1, 1e-5
# Which prices are those of limits, and not negative.
LIMITED = [0, 1, 4]
# A device that always or never trained counts for so much of one that did half of the time.
SETTLED = 1e-3


class CohortSearch:
    """Bound all cohorts from below, and find better ones on the way.

    Parameters
    ----------
    problem : Problem
    bound : YoungFamily
    least, most : int
        How many devices may train.
    solve : callable
        Given who trains, decides the cohort as far as it could be better; returns a lower bound on it.
    threshold : callable
        Returns the value that a cohort has to beat.
    """

    def __init__(
        self,
        problem: Problem,
        bound: YoungFamily,
        least: int,
        most: int,
        solve: Callable[[Bools], float],
        threshold: Callable[[], float],
    ) -> None:
        self.relaxed = CohortBound(problem, bound, most)
        self.least, self.most = least, most
        self.ranges = self._ranges(problem)
        self.solve = solve
        self.threshold = threshold
        self.lower = math.inf
        self.nodes = 0
        self._solved: dict[bytes, float] = {}
        self._batch = max(min(BATCH, ENTRIES // len(problem.fleet)), 4)

    def _ranges(self, problem: Problem) -> tuple[int, int]:
        """The most rounds and local steps of any cohort: of some device alone, at the least that it costs."""
        budget = replace(problem.budget, participants=None, distinct_participants=False)
        rounds = steps = 0
        for device in range(len(problem.fleet)):
            (cost, energy), (step_cost, step_energy), (round_cost, round_energy) = (
                each[:, device] for each in (self.relaxed.sample, self.relaxed.step, self.relaxed.round)
            )
            alone = some_devices(
                problem.fleet,
                np.array([device]),
                weights=None,
                sample_cost=cost,
                sample_energy=energy,
                round_cost=round_cost,
                round_energy=round_energy,
                step_cost=step_cost,
                step_energy=step_energy,
            )
            try:
                found = feasible_ranges(Problem(alone, problem.constants, budget), None, None)
            except InfeasibleError:
                continue
            rounds, steps = max(rounds, found.rounds[1]), max(steps, found.local_steps[1])
        return rounds, steps

    def run(self, guess: Bools, deadline: float) -> SearchProof:
        """Search from the cohort `guess` on, until `deadline` on the performance counter."""
        if 0 in self.ranges:
            return SearchProof(math.inf, 0, True)
        # Where all train their weights may sum to one up to a tolerance only; those of others are divided.
        self._try(np.ones_like(guess))
        pool = self._roots(guess)
        for turn in itertools.count():
            pool = self._decide(self._below(pool))
            if len(pool) == 0:
                break
            if time.perf_counter() > deadline:
                self.lower = min(self.lower, float(pool.bound.min()))
                break
            weakest = np.argsort(pool.bound, kind="stable")[: self._batch]
            rest = np.ones(len(pool), dtype=bool)
            rest[weakest] = False
            nodes, pool = pool.take(weakest), pool.take(rest)
            if turn & (turn - 1) == 0:
                # Every so often, and ever less often: the devices that train in the weakest node.
                self._try(np.where(nodes.state[0] == OPEN, nodes.trained[0] >= 0.5, nodes.state[0] == IN))
            parts = self._feasible(self._divide(nodes))
            self.nodes += len(parts)
            pool = CohortNodes.together([pool, self._tighten(parts)])
        # Choices and rounds that were dropped within nodes reach the threshold, and no more is known of them.
        return SearchProof(min(self.lower, self.threshold()), self.nodes, len(pool) == 0)

    def _roots(self, guess: Bools) -> CohortNodes:
        weights, effects = self.relaxed.weights, self.relaxed.effects
        least = float(weights[weights > 0.0].min())
        shares = np.geomspace(min(least, 0.5), 1.0, FIRST_SHARES + 1)
        parts = list(
            itertools.product(
                *(_parts(most) for most in self.ranges), itertools.pairwise(shares.tolist()), (False, True)
            )
        )
        rounds, steps, share, outside = (np.array(each) for each in zip(*parts, strict=True))
        size = len(parts)
        nodes = CohortNodes(
            rounds=rounds,
            local_steps=steps,
            gammas=np.tile([0, effects.gammas.size - 1], (size, 1)),
            zs=np.tile([0, effects.zs.size - 1], (size, 1)),
            share=share * [1.0 - LOOSENED, 1.0 + LOOSENED],
            outside=outside,
            state=np.full((size, weights.size), OPEN, dtype=np.int8),
            prices=np.zeros((size, 5)),
            trained=np.tile(guess.astype(np.float64), (size, 1)),
            # No bound is negative.
            bound=np.zeros(size),
        )
        return self._feasible(nodes)

    def _below(self, nodes: CohortNodes) -> CohortNodes:
        """The nodes that are not ruled out."""
        keep = nodes.bound < self.threshold()
        if not keep.all():
            self.lower = min(self.lower, float(nodes.bound[~keep].min()))
        return nodes.take(keep)

    def _decide(self, nodes: CohortNodes) -> CohortNodes:
        """The nodes with open devices; the cohorts of the others are solved."""
        done = ~(nodes.state == OPEN).any(axis=1)
        for cohort in np.unique(nodes.state[done], axis=0):
            self._try(cohort == IN)
        return self._below(nodes.take(~done))

    def _try(self, cohort: Bools) -> None:
        key = cohort.tobytes()
        if self.least <= int(cohort.sum()) <= self.most:
            if key not in self._solved:
                self._solved[key] = self.solve(cohort)
            self.lower = min(self.lower, self._solved[key])

    def _feasible(self, nodes: CohortNodes) -> CohortNodes:
        """The nodes without those that hold no cohort; devices that cannot join the others are left out."""
        relaxed = self.relaxed
        late = relaxed.caps(nodes) < relaxed.lower
        use = relaxed.sample * relaxed.lower
        fits = ~(late & (nodes.state == IN)).any(axis=1)
        inside = nodes.state == IN
        for i in np.flatnonzero(relaxed.limited):
            tau, k = nodes.local_steps[:, 0], nodes.rounds[:, 0]
            each = tau[:, None] * use[i] + relaxed.round[i]
            own = np.where(inside, each, 0.0).sum(axis=1) + relaxed.shared[i]
            fits &= k * own <= relaxed.limits[i] * (1.0 + LOOSENED)
            late |= k[:, None] * (own[:, None] + each) > relaxed.limits[i] * (1.0 + LOOSENED)
        nodes.state[late & (nodes.state == OPEN)] = OUT
        nodes = nodes.take(fits)
        for _ in range(2):
            nodes = self._shares(nodes)
        return nodes

    def _shares(self, nodes: CohortNodes) -> CohortNodes:
        """Ranges of P that the state of the devices admits, and states that the ranges of P admit."""
        weights, disturbing = self.relaxed.weights, self.relaxed.disturbing
        inside, some = nodes.state == IN, nodes.state == OPEN
        number = inside.sum(axis=1)
        own, open_ = inside @ weights, np.where(some, weights, 0.0)
        room = np.clip(self.most - number, 0, some.sum(axis=1))
        largest = np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(-np.sort(-open_), axis=1)], axis=1)
        most = own + np.take_along_axis(largest, room[:, None], axis=1)[:, 0]
        low = np.maximum(nodes.share[:, 0], own * (1.0 - LOOSENED))
        high = np.minimum(nodes.share[:, 1], most * (1.0 + LOOSENED))
        biased = (nodes.state != OUT) @ disturbing, inside @ disturbing
        half = 0.5 * float(disturbing.sum())
        fits = (low <= high) & (number <= self.most) & (number + some.sum(axis=1) >= self.least)
        fits &= np.where(
            nodes.outside, biased[0] >= half * (1.0 - LOOSENED), biased[1] <= half * (1.0 + LOOSENED)
        )
        every = own + open_.sum(axis=1)
        heavy = (own[:, None] + weights) > high[:, None] * (1.0 + LOOSENED)
        needed = (every[:, None] - weights) < low[:, None] * (1.0 - LOOSENED)
        state = np.where(some & heavy, OUT, np.where(some & needed, IN, nodes.state)).astype(np.int8)
        return replace(nodes, share=np.column_stack([low, high]), state=state).take(fits)

    def _tighten(self, nodes: CohortNodes) -> CohortNodes:
        """Raise the bounds of nodes by better prices, settle devices and drop rounds on the way."""
        if len(nodes) == 0:
            return nodes
        threshold = self.threshold()
        # The prices of the node that was divided, or those of the devices that trained there.
        fresh, scales = first_prices(self.relaxed, nodes)
        other = self.relaxed.evaluate(replace(nodes, prices=fresh), threshold)
        better = other.lacking < self.relaxed.evaluate(nodes, threshold).lacking
        prices = np.where(better[:, None], fresh, nodes.prices)
        nodes, scales = replace(nodes, prices=prices), np.maximum(scales, np.abs(prices))
        seen = np.zeros_like(nodes.trained)
        for turn in range(STEPS):
            look = self.relaxed.evaluate(nodes, threshold)
            seen += look.trained
            nodes, below = self._learn(replace(nodes, trained=seen / (turn + 1)), look)
            seen, scales = seen[below], scales[below]
            with np.errstate(over="ignore", invalid="ignore"):
                slope = look.gradient[below] * scales
                # Polyak's step: it ends where the floor would suffice if it were linear.
                step = look.lacking[below] / np.maximum((slope * slope).sum(axis=1), SMALLEST)
                prices = nodes.prices + step[:, None] * slope * scales
            prices[:, LIMITED] = np.maximum(prices[:, LIMITED], 0.0)
            nodes = replace(nodes, prices=prices)
        return self._feasible(nodes)

    def _learn(self, nodes: CohortNodes, look: Evaluation) -> tuple[CohortNodes, Bools]:
        """The nodes that a look does not rule out, with fewer choices and rounds; and which they are."""
        threshold, rows = self.threshold(), np.arange(len(nodes))
        lacking = look.most_lacking[:, None]
        some = (nodes.state == OPEN) & (lacking > 0.0)
        state = np.where(some & (look.low >= lacking), OUT, nodes.state)
        state = np.where(some & (look.high <= -lacking), IN, state).astype(np.int8)
        keep = look.pieces < threshold
        last = keep.shape[1] - keep[:, ::-1].argmax(axis=1)
        ends = np.column_stack([look.ends[rows, keep.argmax(axis=1)], look.ends[rows, last]])
        single = nodes.local_steps[:, 0] == nodes.local_steps[:, 1]
        bound = np.maximum(nodes.bound, look.bound)
        below = bound < threshold
        if not below.all():
            self.lower = min(self.lower, float(bound[~below].min()))
        rounds = np.where(single[:, None], ends, nodes.rounds)
        return replace(nodes, bound=bound, state=state, rounds=rounds).take(below), below

    def _divide(self, nodes: CohortNodes) -> CohortNodes:
        """Two parts of every node: of the range, or by the device, that its bound suffers from most."""
        threshold, rows = self.threshold(), np.arange(len(nodes))
        look = self.relaxed.evaluate(nodes, threshold)
        place = look.pieces.argmin(axis=1)
        single = nodes.local_steps[:, 0] == nodes.local_steps[:, 1]
        middle = {
            "rounds": np.where(single, look.ends[rows, place], _middle(nodes.rounds)),
            "local_steps": _middle(nodes.local_steps),
            "share": np.sqrt(nodes.share.prod(axis=1)),
            "gammas": nodes.gammas.sum(axis=1) // 2,
            "zs": nodes.zs.sum(axis=1) // 2,
        }
        points = {name: np.repeat(value[:, None], 2, axis=1) for name, value in middle.items()}
        widths = {name: _width(getattr(nodes, name), name in RATIOS) for name in points}
        widest = np.maximum(np.max([widths[name] for name in RATIOS], axis=0), CLOSED)
        gains = []
        for name, point in points.items():
            narrow = self.relaxed.evaluate(replace(nodes, **{name: point}), threshold)
            wide = widths[name] > (NARROW * widest if name in RATIOS else 0.0)
            gain = np.zeros(len(look.lacking))
            np.subtract(look.lacking, narrow.lacking, out=gain, where=look.lacking != narrow.lacking)
            gains.append(np.where(wide, gain, -math.inf))
        # What is lacking with all ranges closed is for the devices to decide.
        closed = replace(nodes, **points)
        known = self.relaxed.evaluate(closed, threshold).lacking
        fresh = replace(closed, prices=first_prices(self.relaxed, closed)[0])
        gains.append(np.minimum(known, self.relaxed.evaluate(fresh, threshold).lacking))
        choice = np.argmax(gains, axis=0)
        found = []
        for number, name in enumerate(points):
            chosen = choice == number
            # The weakest rounds may be the first or the last: halves do better.
            where = _middle(nodes.rounds) if name == "rounds" else middle[name]
            found += _halves(nodes.take(chosen), name, where[chosen])
        chosen = choice == len(points)
        found += _by_device(nodes.take(chosen), look.amount[chosen])
        return CohortNodes.together(found)


def _width(ends: Floats | Ints, ratio: bool) -> Floats:
    """How wide ranges are: the logarithm of the ratio of their ends, or the difference."""
    low, high = ends.T.astype(np.float64)
    width: Floats = np.log(high / low) if ratio else high - low
    return width


def _halves(nodes: CohortNodes, name: str, middle: Floats | Ints) -> list[CohortNodes]:
    """Nodes below and above the middle of a range."""
    low, high = getattr(nodes, name).T
    first = middle if name == "share" else np.clip(middle, low, high - 1)
    second = first if name == "share" else first + 1
    return [
        replace(nodes.take(slice(None)), **{name: np.column_stack(ends)})
        for ends in ((low, first), (second, high))
    ]


def _by_device(nodes: CohortNodes, amount: Floats) -> list[CohortNodes]:
    """Nodes with one open device settled either way: one that costs much and trained half of the time."""
    doubt = np.minimum(nodes.trained, 1.0 - nodes.trained) + SETTLED
    device = np.where(nodes.state == OPEN, doubt * amount, -math.inf).argmax(axis=1)
    found = []
    for choice in (IN, OUT):
        part = nodes.take(slice(None))
        part.state[np.arange(len(part)), device] = choice
        found.append(part)
    return found


def _middle(ends: Ints) -> Ints:
    """Geometric middle of ranges of counts."""
    middle: Ints = np.sqrt(ends.astype(np.float64).prod(axis=1)).astype(np.int64)
    return middle


def _parts(most: int) -> list[tuple[int, int]]:
    """First and last of the parts of 1 to `most`, geometrically."""
    first = np.unique(np.geomspace(1, most + 1, FIRST_PARTS + 1)[:-1].astype(np.int64)).tolist()
    return list(zip(first, [*(begin - 1 for begin in first[1:]), most], strict=True))
