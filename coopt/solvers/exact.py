"""Global optimum over rounds, local steps and batch sizes, with a proof.

Branch and bound over boxes of (K, tau), best box first. A box is bounded below by what its corner with
the fewest rounds and local steps allows (every limit is loosest there, and so is the error floor) and by
cuts, hyperplanes in (1/(K tau), 1/tau) that one inner solve proves for all larger tau. Nothing is assumed
unimodal: a plan is discarded only when a bound on it exceeds the best plan found. Every step that is used
is proved in the documentation of the exact solver.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.monotone import Floor, MonotoneBound, MonotoneForm, member_values
from coopt.problem import Problem
from coopt.solvers.batch import Ints
from coopt.solvers.inner import Cut, Directions, Inner, Values
from coopt.solvers.ranges import Ranges
from coopt.solvers.search import Incumbent, Search

Floats = NDArray[np.float64]

# Pieces into which a box is divided to evaluate its cuts, in ratio of K tau.
PIECES = 96
# Directions of the inner problem that a family is bounded by, per point, while it is wide.
FAMILY_DIRECTIONS = 4
# Below this spread the two ends bound every member between them well enough.
NARROW = 0.02
# A box is cut again at its new weakest point while that raises its bound; Kelley's method, cut short.
CUTS_PER_BOX = 2


@dataclass(frozen=True)
class _Box:
    """Plans with K and tau in the given ranges under the given members, and what bounds them."""

    rounds: tuple[int, int]
    local_steps: tuple[int, int]
    active: NDArray[np.intp]
    cuts: tuple[Cut, ...]
    corner: Values | None


def search(
    problem: Problem,
    form: MonotoneForm,
    ranges: Ranges,
    gap_tolerance: float,
    time_limit: float | None,
    start: tuple[int, int, Ints] | None = None,
) -> Search:
    """Minimise the bound over the ranges; `start` is a feasible plan to begin from.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
        The bound tied to the problem.
    ranges : Ranges
        Nonempty ranges of K and tau whose corner is feasible.
    gap_tolerance : float
        Relative gap at which the search stops.
    time_limit : float or None
        Seconds after which the best plan so far is returned with its honest gap.
    start : tuple of (rounds, local_steps, batch_sizes), optional

    Returns
    -------
    Search
    """
    return _Search(problem, form, ranges, gap_tolerance).run(time_limit, start)


class _Search:
    def __init__(self, problem: Problem, form: MonotoneForm, ranges: Ranges, gap_tolerance: float) -> None:
        self.problem = problem
        self.form = form
        self.ranges = ranges
        self.gap_tolerance = gap_tolerance
        self.inner = Inner(problem, form)
        self.best = self._judge(ranges.rounds[0], ranges.local_steps[0], self.inner.lower)
        # The smallest bound of anything that was discarded: the proof rests on it.
        self.discarded = math.inf
        self.boxes = 0
        self._solved: dict[tuple[int, int, float], float] = {}

    def run(self, time_limit: float | None, start: tuple[int, int, Ints] | None) -> Search:
        deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
        if start is not None:
            self._try(*start)
        order = itertools.count()
        everyone = np.arange(len(self.form.members))
        root = _Box(self.ranges.rounds, self.ranges.local_steps, everyone, (), None)
        queue = [(-math.inf, next(order), root)]
        finished = True
        while queue and queue[0][0] < self._threshold():
            if time.perf_counter() > deadline:
                finished = False
                break
            bound, _, box = heapq.heappop(queue)
            self.boxes += 1
            for child_bound, child in self._branch(box, bound):
                if child_bound < self._threshold():
                    heapq.heappush(queue, (child_bound, next(order), child))
                else:
                    self._discard(child_bound)
        if queue:
            self._discard(queue[0][0])
        best = self._fewest_rounds()
        return Search(best, min(self.discarded, best.value), finished, self.inner.solves, self.boxes)

    def _threshold(self) -> float:
        """Plans whose bound reaches this need not be looked at."""
        value = self.best.value
        return value - self.gap_tolerance * abs(value) if math.isfinite(value) else value

    def _discard(self, bound: float) -> None:
        self.discarded = min(self.discarded, bound)

    def _judge(self, rounds: int, local_steps: int, batches: Ints) -> Incumbent:
        values = member_values(self.form, rounds, local_steps, batches.astype(np.float64))
        member = int(values.argmin())
        return Incumbent(float(values[member]), rounds, local_steps, batches, self.form.members[member])

    def _try(self, rounds: int, local_steps: int, batches: Ints) -> None:
        """Make a feasible plan the incumbent if it is better, or as good with fewer rounds or steps."""
        plan = self._judge(rounds, local_steps, batches)
        self.best = min(self.best, plan, key=lambda p: (p.value, p.rounds, p.local_steps))

    def _exact(
        self, floor: Floor, rounds: int, local_steps: int, angle: float, multiplier: float | None = None
    ) -> float:
        """Lower bound on v(angle) at (K, tau) over integer batches, exact where unit costs are equal."""
        key = (rounds, local_steps, angle)
        if key not in self._solved:
            found = self.inner.exact(floor, rounds, local_steps, angle, multiplier)
            self._try(rounds, local_steps, found.batch_sizes)
            self._solved[key] = found.lower_bound
        return self._solved[key]

    def _branch(self, box: _Box, bound: float) -> list[tuple[float, _Box]]:
        """Tighten a box; return what is left of it in smaller boxes with their bounds."""
        shrunk = self.ranges.shrink(box.rounds, box.local_steps)
        if shrunk is None:
            return []
        box = _Box(*shrunk, box.active, box.cuts, box.corner)
        floor = self.form.floor(box.local_steps[0], box.active)
        view = self.inner.directions(floor)
        usable = np.isfinite(view.offsets) & np.isfinite(view.sizes)
        if not usable.all():
            # A member whose floor overflows at the low end is infinite in the whole box.
            box = _Box(box.rounds, box.local_steps, box.active[usable], box.cuts, box.corner)
            view = view.take(usable)
        if box.active.size == 0:
            return []
        for attempt in range(CUTS_PER_BOX + 1):
            tightened = self._tighten(box, view)
            if tightened is None:
                return []
            box, view, raised, weakest = tightened
            bound = max(bound, raised)
            if box.rounds[0] == box.rounds[1] and box.local_steps[0] == box.local_steps[1]:
                self._settle(box, view, floor)
                return []
            if attempt < CUTS_PER_BOX:
                box = self._cut_at(box, view, floor, weakest)
        return self._split(box, view, floor, bound, weakest)

    def _tighten(self, box: _Box, view: Directions) -> tuple[_Box, Directions, float, int] | None:
        """Drop members and rounds that the box's bounds rule out; None if nothing is left.

        Also returns the box's lower bound and the number of rounds at which it is weakest.
        """
        low, high = box.local_steps
        first, last = box.rounds
        whole = low == high and last - first < PIECES
        if whole:
            steps = np.arange(first, last + 1, dtype=np.float64) * low
        else:
            steps = np.geomspace(float(first * low), float(last * high), PIECES + 1)
            # geomspace may miss its ends by rounding, and the ends must cover the box.
            steps[0], steps[-1] = first * low, last * high
        floors = self._floors(box, view, steps)
        start, slope = self.form.progress(steps, box.active)
        with np.errstate(over="ignore"):
            if whole:
                values = start + slope * floors
            else:
                # On a piece the floor is smallest at its left end and progress monotone.
                left = start[:, :-1] + slope[:, :-1] * floors[:, :-1]
                right = start[:, 1:] + slope[:, 1:] * floors[:, :-1]
                values = np.minimum(left, right)
        threshold = self._threshold()
        keep = values < threshold
        alive = np.atleast_1d(keep.any(axis=1))
        kept = np.atleast_1d(keep.any(axis=0))
        if not keep.all():
            self._discard(float(values[~keep].min()))
        if not alive.any():
            return None
        weakest = int(values.min(axis=0).argmin())
        places = np.flatnonzero(kept)
        if whole:
            rounds = (first + int(places[0]), first + int(places[-1]))
            at = first + weakest
        else:
            rounds = (
                max(first, math.ceil(float(steps[places[0]]) / high * (1.0 - 1e-12))),
                min(last, math.floor(float(steps[places[-1] + 1]) / low * (1.0 + 1e-12))),
            )
            at = round(math.sqrt(steps[weakest] * steps[weakest + 1]) / low)
        if rounds[0] > rounds[1]:
            return None  # what survives lies between two numbers of rounds
        box = _Box(rounds, box.local_steps, box.active[alive], box.cuts, box.corner)
        return box, view.take(alive), float(values.min()), min(max(at, rounds[0]), rounds[1])

    def _floors(self, box: _Box, view: Directions, steps: Floats) -> Floats:
        """Lower bounds on the floor of every member for every plan of the box with K tau >= steps."""
        noise = np.zeros((view.angles.size, steps.size))
        if box.corner is not None:
            noise = np.maximum(noise, box.corner.at(view.angles)[:, None])
        for cut in box.cuts:
            constant, slope, rise = cut.at(view.angles)
            level = (constant + rise / box.local_steps[1])[:, None] - slope[:, None] / steps
            np.maximum(noise, level, out=noise)
        return view.offsets[:, None] + view.sizes[:, None] * noise

    def _cut_at(self, box: _Box, view: Directions, floor: Floor, rounds: int) -> _Box:
        """Add the cut of the inner optimum at this number of rounds, and try its integer neighbour."""
        steps = box.local_steps[0]
        cut, multipliers = self.inner.cut(floor, rounds, steps, _angles(view))
        middle = len(multipliers) // 2
        self._exact(floor, rounds, steps, float(cut.angles[middle]), multipliers[middle])
        return _Box(box.rounds, box.local_steps, box.active, (*box.cuts, cut), box.corner)

    def _split(
        self, box: _Box, view: Directions, floor: Floor, bound: float, weakest: int
    ) -> list[tuple[float, _Box]]:
        low, high = box.local_steps
        if low < high:
            middle = min(math.isqrt(low * high), high - 1)
            return [
                (bound, _Box(box.rounds, (low, middle), box.active, box.cuts, box.corner)),
                (bound, _Box(box.rounds, (middle + 1, high), box.active, box.cuts, box.corner)),
            ]
        first, last = box.rounds
        pieces = []
        corner = self._corner(floor, view, weakest, low)
        if first < weakest:
            pieces.append((bound, _Box((first, weakest - 1), (low, low), box.active, box.cuts, box.corner)))
        pieces.append((bound, _Box((weakest, weakest), (low, low), box.active, box.cuts, corner)))
        if weakest < last:
            pieces.append((bound, _Box((weakest + 1, last), (low, low), box.active, box.cuts, corner)))
        return pieces

    def _corner(self, floor: Floor, view: Directions, rounds: int, local_steps: int) -> Values:
        """Integer optima at (K, tau), which bound every plan with more rounds at this tau or a larger."""
        angles = _angles(view)
        return Values(
            angles, np.array([self._exact(floor, rounds, local_steps, angle) for angle in angles.tolist()])
        )

    def _settle(self, box: _Box, view: Directions, floor: Floor) -> None:
        """Solve a single (K, tau) for every member that is still alive."""
        rounds, local_steps = box.rounds[0], box.local_steps[0]
        steps = np.array([float(rounds * local_steps)])
        start, slope = self.form.progress(steps, box.active)
        floors = self._floors(box, view, steps)[:, 0]
        solved: dict[float, float] = {}
        while True:
            if solved:
                angles = np.array(sorted(solved))
                values = Values(angles, np.array([solved[angle] for angle in angles.tolist()]))
                floors = np.maximum(floors, view.offsets + view.sizes * values.at(view.angles))
            bounds = start[:, 0] + slope[:, 0] * floors
            weakest = int(bounds.argmin())
            angle = float(view.angles[weakest])
            if bounds[weakest] >= self._threshold() or angle in solved:
                self._discard(float(bounds[weakest]))
                return
            solved[angle] = self._exact(floor, rounds, local_steps, angle)

    def _fewest_rounds(self) -> Incumbent:
        """The incumbent with the fewest rounds at which its value is the same.

        Where q^(K tau) underflows the bound no longer falls with K, and fewer rounds are better.
        """
        best = self.best
        form = best.bound.monotone_form(self.problem) if isinstance(best.bound, MonotoneBound) else self.form
        fewest, enough = self.ranges.rounds[0], best.rounds
        one = np.zeros(1, dtype=np.intp)
        start, slope = form.progress(np.array([float(best.rounds * best.local_steps)]), one)
        while fewest < enough:
            middle = (fewest + enough) // 2
            at = form.progress(np.array([float(middle * best.local_steps)]), one)
            if at == (start, slope):
                enough = middle
            else:
                fewest = middle + 1
        if enough == best.rounds:
            return best
        return self._judge(enough, best.local_steps, best.batch_sizes)


def _angles(view: Directions) -> Floats:
    """Directions to solve for so that every member lies between two of them."""
    low, high = float(view.angles.min()), float(view.angles.max())
    if high - low <= 1e-15:
        return np.array([low])
    if high - low <= NARROW:
        return np.array([low, high])
    return np.quantile(view.angles, np.linspace(0.0, 1.0, FAMILY_DIRECTIONS))
