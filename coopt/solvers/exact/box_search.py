"""Global optimum over rounds, local steps and batch sizes, with a proof.

Bounds for all (K, tau) at once come first (:mod:`coopt.solvers.exact.global_cuts`), and mostly leave nothing.
What they leave is divided into boxes of (K, tau), best box first. What a box can hold is bounded from below
by its corner with the fewest rounds and local steps (every limit is loosest there, and so is the error
floor), by cuts, hyperplanes in (1/(K tau), 1/tau) that one inner solve proves for all larger tau, and, where
units cost the same everywhere, by the curve of integer optima over the units that a step may use. Nothing is
assumed unimodal: a plan is discarded only when a bound on it reaches the best plan found. Every step that is
used is proved in the documentation of the exact solver.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import Floor, MonotoneForm, floors_at, member_values
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers import best_first
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.exact.box_pieces import MOST_PIECES, Pieces, Range, divide
from coopt.solvers.exact.choose_inner import inner_of, oracle_of
from coopt.solvers.exact.equal_costs import EqualCostOracle
from coopt.solvers.exact.fewest_rounds import fewest_rounds
from coopt.solvers.exact.global_cuts import GlobalCuts, Remainder
from coopt.solvers.exact.noise_bounds import Curve, Cut, Directions, Values
from coopt.solvers.fleet_passes import SAMPLE, SAMPLED_FROM
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_units.batches import Ints

Floats = NDArray[np.float64]

# Directions of the inner problem that a family is bounded by, per point, while it is wide.
FAMILY_DIRECTIONS = 4
# Below this spread the two ends bound every member between them well enough.
NARROW = 0.02
# Cuts that a box hands on; older ones touch far away and no longer matter.
CUTS_KEPT = 4
# Floors are evaluated for every member at every tau of a box with one K up to this many values.
MOST_FLOORS = 2000
# A curve is drawn over at most this many units, or twice as many as there are devices.
CURVE_WIDTH = 4096
# To which a sample of a large fleet is solved.
SAMPLE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Box:
    """Plans with K and tau in the given ranges under the given members, and what bounds them."""

    rounds: Range
    local_steps: Range
    active: NDArray[np.intp]
    cuts: tuple[Cut, ...] = ()
    corner: Values | None = None
    curve: Curve | None = None
    # Where the caps and weights of the curve were taken.
    curve_corner: tuple[int, int] | None = None

    @property
    def single(self) -> bool:
        """Whether the box holds one (K, tau)."""
        return self.rounds[0] == self.rounds[1] and self.local_steps[0] == self.local_steps[1]


@dataclass(frozen=True)
class _View:
    """A box with what was evaluated on it: its floors at the low end, its bound, its weakest place."""

    box: _Box
    floor: Floor
    directions: Directions
    bound: float
    weakest: tuple[int, int]
    # The value of K (of tau, where K is fixed) at which the second half starts if the box is split.
    split: int


def search(
    problem: Problem,
    form: MonotoneForm,
    ranges: Ranges,
    gap_tolerance: float,
    time_limit: float | None,
    start: tuple[int, int, Ints] | None = None,
    cutoff: float = math.inf,
) -> Found:
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
    cutoff : float, default inf
        Plans whose value is not below this are of no interest: the search proves only that.

    Returns
    -------
    Found
    """
    return _BoxSearch(problem, form, ranges, gap_tolerance, cutoff).run(time_limit, start)


class _BoxSearch:
    def __init__(
        self, problem: Problem, form: MonotoneForm, ranges: Ranges, gap_tolerance: float, cutoff: float
    ) -> None:
        self.problem = problem
        self.form = form
        self.ranges = ranges.without_matched(_flat(form, ranges.local_steps))
        self.gap_tolerance = gap_tolerance
        self.cutoff = cutoff
        self.inner = inner_of(problem, form)
        self.timed = problem.budget.time < math.inf
        least = ranges.rounds[0], ranges.local_steps[0]
        self._oracle = oracle_of(problem, form, self.inner, least)
        # The rows begin with whole batches.
        self.best = Incumbent(math.inf, *least, self.inner.lower, form.members[0])
        # The smallest bound of anything that was discarded: the proof rests on it.
        self.discarded = math.inf
        self._solved: dict[tuple[int, int, float], float] = {}

    def run(self, time_limit: float | None, start: tuple[int, int, Ints] | None) -> Found:
        deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
        if start is not None:
            self._try(*start)
        proof = best_first.search(self._roots(deadline), self._branch, self._threshold, deadline)
        best = self._with_fewest_rounds()
        trace: dict[str, float] = {"inner_solves": self.inner.solves, "boxes": proof.parts}
        return Found(best, min(self.discarded, proof.lower_bound, best.value), proof.finished, trace)

    def _roots(self, deadline: float) -> list[tuple[float, _Box]]:
        """Boxes of all plans, or of those that rows for all (K, tau) do not rule out, and their bounds."""
        everyone = np.arange(len(self.form.members))
        roots = self.ranges.roots()
        left = self._cut(deadline)
        if left is None:
            return []
        rest = [(_common(root[0], left.rounds), _common(root[1], left.local_steps)) for root in roots]
        return [(left.bound, _Box(k, tau, everyone)) for k, tau in rest if k[0] <= k[1] and tau[0] <= tau[1]]

    def _cut(self, deadline: float) -> Remainder | None:
        """Rule out what rows for all (K, tau) can."""
        inner, start = self._oracle, None
        if isinstance(inner, EqualCostOracle) and len(inner.devices) >= SAMPLED_FROM:
            start = _guess(self.problem, self.form, self.ranges, inner, deadline)
        cuts = GlobalCuts(
            self.problem, self.form, self.ranges, inner, self._goal, self._threshold, self._improve
        )
        left = cuts.run(deadline, start)
        if isinstance(inner, EqualCostOracle):
            # Other oracles ask the inner problem of this search, which has counted that.
            self.inner.solves += inner.solves
        self._discard(cuts.discarded)
        return left

    def _improve(self, plan: Incumbent) -> None:
        """Make a feasible plan the incumbent if it is better, or as good with fewer rounds or steps."""
        self.best = min(self.best, plan, key=lambda p: p.rank)

    def _goal(self) -> float:
        """Plans whose value is not below this are of no interest."""
        return min(self.best.value, self.cutoff)

    def _threshold(self) -> float:
        """Plans whose bound reaches this need not be looked at."""
        value = self.best.value
        enough = value - self.gap_tolerance * abs(value) if math.isfinite(value) else value
        return min(enough, self.cutoff)

    def _discard(self, bound: float) -> None:
        self.discarded = min(self.discarded, bound)

    def _judge(self, rounds: int, local_steps: int, batches: Ints) -> Incumbent:
        values = member_values(self.form, rounds, local_steps, batches.astype(np.float64))
        member = int(values.argmin())
        return Incumbent(float(values[member]), rounds, local_steps, batches, self.form.members[member])

    def _try(self, rounds: int, local_steps: int, batches: Ints) -> None:
        self._improve(self._judge(rounds, local_steps, batches))

    def _exact(
        self, floor: Floor, rounds: int, local_steps: int, angle: float, multiplier: float | None = None
    ) -> float:
        """Lower bound on v(angle) at (K, tau) over integer batches, exact where unit costs are equal."""
        key = (rounds, local_steps, angle)
        if key not in self._solved:
            found = self.inner.exact(floor, rounds, local_steps, angle, multiplier)
            self._try(rounds, local_steps, found.batch_sizes)
            if self.timed or self.inner.unit_cost is None:
                # Rounding down leaves room: the same batches may fit more rounds.
                most = limits.most_rounds(self.problem, local_steps, found.batch_sizes)
                if most is not None and rounds < most <= self.ranges.rounds[1]:
                    self._try(most, local_steps, found.batch_sizes)
            self._solved[key] = found.lower_bound
        return self._solved[key]

    def _branch(self, box: _Box, _bound: float) -> list[tuple[float, _Box]]:
        """Tighten a box; return what is left of it in smaller boxes with their bounds."""
        view = self._look(box)
        if view is not None and not view.box.single:
            # One cut, then the split: a second cut at the new weakest place costs more than it saves.
            view = self._look(self._strengthen(view))
        if view is None:
            return []
        if view.box.single:
            self._settle(view)
            return []
        return [(view.bound, child) for child in self._split(view)]

    def _look(self, box: _Box) -> _View | None:
        """Drop the members, rounds and steps that the box's bounds rule out; None if nothing is left."""
        shrunk = self._shrink(box)
        view = None if shrunk is None else self._directions(shrunk)
        if view is None:
            return None
        box, _, directions = view
        pieces = divide(
            box.rounds,
            box.local_steps,
            self.problem.budget,
            self.inner.unit_cost,
            self._resolution(box),
            self.problem.fleet.whole_step_cost,
        )
        values = self._values(box, directions, pieces)
        keep = values < self._threshold()
        if not keep.all():
            self._discard(float(np.min(values, where=~keep, initial=math.inf)))
        if not keep.any():
            return None
        alive, places = np.flatnonzero(keep.any(axis=1)), np.flatnonzero(keep.any(axis=0))
        ranges = _ranges_of(box, pieces, int(places[0]), int(places[-1]))
        if ranges is None:
            return None
        rest = self._shrink(replace(box, rounds=ranges[0], local_steps=ranges[1], active=box.active[alive]))
        # The low end may have risen, and floors with it.
        view = None if rest is None else self._directions(rest)
        if view is None:
            return None
        place = int(values.min(axis=0).argmin())
        return _View(*view, float(values.min()), *self._places(view[0], pieces, place))

    def _shrink(self, box: _Box) -> _Box | None:
        """Leave out rounds and steps that no feasible plan of the box has."""
        shrunk = self.ranges.shrink(box.rounds, box.local_steps)
        return None if shrunk is None else replace(box, rounds=shrunk[0], local_steps=shrunk[1])

    def _directions(self, box: _Box) -> tuple[_Box, Floor, Directions] | None:
        """Floors of the members at the low end, without those that overflow there, and so in all the box."""
        floor = self.form.floor(box.local_steps[0], box.active)
        directions = self.inner.directions(floor)
        usable = np.flatnonzero(np.isfinite(directions.offsets) & np.isfinite(directions.sizes))
        if usable.size == 0:
            return None
        return replace(box, active=box.active[usable]), floor, directions.take(usable)

    def _resolution(self, box: _Box) -> int:
        return min(MOST_PIECES, max(MOST_FLOORS // box.active.size, 8))

    def _values(self, box: _Box, directions: Directions, pieces: Pieces) -> Floats:
        """Lower bounds for every member on every piece, shape (m, P)."""
        steps, count = pieces.least_steps, box.active.size
        if steps[0] < steps[-1] and steps.size * count <= MOST_FLOORS:
            floors = [self.inner.directions(self.form.floor(int(tau), box.active)) for tau in steps.tolist()]
            directions = Directions(
                *(
                    np.column_stack([getattr(each, name) for each in floors])
                    for name in ("offsets", "sizes", "angles")
                )
            )
        else:
            directions = directions.take((slice(None), None))
        angles = directions.angles
        noise = np.zeros((count, steps.size))
        if box.corner is not None:
            np.maximum(noise, box.corner.at(angles), out=noise)
        if box.curve is not None:
            np.maximum(noise, box.curve.at(angles, pieces.units), out=noise)
        for cut in box.cuts:
            np.maximum(noise, cut.at(angles, 1.0 / pieces.first_product, 1.0 / pieces.most_steps), out=noise)
        with np.errstate(invalid="ignore", over="ignore"):
            levels = directions.offsets + directions.sizes * noise
        levels[np.isnan(levels)] = math.inf
        # On a piece the floor is smallest at its start, and progress is monotone for a given floor.
        values = np.full_like(noise, math.inf)
        for product in (pieces.first_product, pieces.last_product):
            start, slope = self.form.progress(product, box.active)
            np.minimum(values, start + slope * levels, out=values)
        return values

    def _places(self, box: _Box, pieces: Pieces, place: int) -> tuple[tuple[int, int], int]:
        """A plan's (K, tau) in the weakest piece, where to cut next, and where to split the box."""
        low, high = float(pieces.first_product[place]), float(pieces.last_product[place])
        product = round(high if pieces.stairs else math.sqrt(low) * math.sqrt(high))
        (k1, k2), (t1, t2) = box.rounds, box.local_steps
        if k1 == k2:
            target = k1, min(max(product // k1, t1), t2)
            first, last, scale = t1, t2, k1
        else:
            target = min(max(product // t1, k1), k2), t1
            first, last, scale = k1, k2, t1
        split = -(-round(low) // scale)
        if not first < split <= last:
            split = round(high) // scale + 1
        return target, split if first < split <= last else (first + last + 1) // 2

    def _strengthen(self, view: _View) -> _Box:
        """Add the cut that touches at the weakest place, and the curve of integer optima if it is short."""
        box, (rounds, steps) = view.box, view.weakest
        angles = _angles(view.directions)
        cut, multipliers = self.inner.cut(
            view.floor, rounds, steps, angles, (box.rounds[0], box.local_steps[0])
        )
        middle = angles.size // 2
        self._exact(
            self.form.floor(steps, box.active), rounds, steps, float(angles[middle]), multipliers[middle]
        )
        box = replace(box, cuts=(*box.cuts, cut)[-CUTS_KEPT:])
        corner = (box.rounds[0], box.local_steps[0])
        current = box.curve_corner
        if current is not None and (current == corner or (current[1] == corner[1] and not self.timed)):
            return box
        units = self._units(box)
        if units is None:
            return box
        curve = self.inner.curve(view.floor, corner, units, angles, multipliers[middle])
        return replace(box, curve=curve, curve_corner=corner)

    def _units(self, box: _Box) -> tuple[int, int] | None:
        """The numbers of units that plans of the box can use a step, if they are few."""
        unit_cost, count = self.inner.unit_cost, len(self.problem.fleet)
        if unit_cost is None or self.problem.budget.cost == math.inf:
            return None
        most = limits.step_units(self.problem, box.rounds[0], box.local_steps[0], unit_cost)
        least = limits.step_units(self.problem, box.rounds[1], box.local_steps[1], unit_cost)
        return (least, most) if most - least < max(CURVE_WIDTH, 2 * count) else None

    def _split(self, view: _View) -> list[_Box]:
        box = view.box
        (k1, k2), (t1, t2) = box.rounds, box.local_steps
        if k1 < k2 and t1 < t2:
            # The wider side in ratio.
            if k2 * t1 > t2 * k1:
                return [replace(box, rounds=half) for half in best_first.halves(k1, k2)]
            return [replace(box, local_steps=half) for half in best_first.halves(t1, t2)]
        at = view.split
        rounds, steps = (at, t1) if t1 == t2 else (k1, at)
        floor = self.form.floor(steps, box.active)
        corner = self._corner(floor, rounds, steps)
        if t1 == t2:
            return [replace(box, rounds=(k1, at - 1)), replace(box, rounds=(at, k2), corner=corner)]
        return [replace(box, local_steps=(t1, at - 1)), replace(box, local_steps=(at, t2), corner=corner)]

    def _corner(self, floor: Floor, rounds: int, local_steps: int) -> Values | None:
        """Integer optima at (K, tau), which bound every plan with as many rounds and steps or more."""
        directions = self.inner.directions(floor)
        usable = np.isfinite(directions.sizes)
        if not usable.any():
            return None
        angles = _angles(directions.take(usable))
        return Values(
            angles, np.array([self._exact(floor, rounds, local_steps, angle) for angle in angles.tolist()])
        )

    def _settle(self, view: _View) -> None:
        """Solve a single (K, tau) for every member that is still alive."""
        box, directions = view.box, view.directions
        rounds, local_steps = box.rounds[0], box.local_steps[0]
        start, slope = self.form.progress(np.array([float(rounds * local_steps)]), box.active)
        floors = directions.offsets.copy()
        solved: dict[float, float] = {}
        closed: set[float] = set()
        while True:
            if solved:
                angles = np.array(sorted(solved))
                values = Values(angles, np.array([solved[angle] for angle in angles.tolist()]))
                floors = directions.offsets + directions.sizes * values.at(directions.angles)
            bounds = start[:, 0] + slope[:, 0] * floors
            weakest = int(bounds.argmin())
            angle = float(directions.angles[weakest])
            if bounds[weakest] >= self._threshold() or angle in closed:
                self._discard(float(bounds[weakest]))
                return
            if angle not in solved:
                solved[angle] = self._exact(view.floor, rounds, local_steps, angle)
                if self.inner.unit_cost is not None:
                    closed.add(angle)
                continue
            # The dual value does not do: find the optimum itself, as far as it could be of interest to any
            # of the members that have this inner problem in common.
            cutoff = directions.cutoff(angle, start[:, 0], slope[:, 0], self._goal())
            found = self.inner.exact(view.floor, rounds, local_steps, angle, cutoff=cutoff)
            self._try(rounds, local_steps, found.batch_sizes)
            solved[angle] = found.lower_bound
            closed.add(angle)

    def _with_fewest_rounds(self) -> Incumbent:
        """The incumbent, or the same plan with the fewest rounds at which its value is the same."""
        best = self._judge(self.best.rounds, self.best.local_steps, self.best.batch_sizes)
        fewest = fewest_rounds(self.form, best, self.ranges.rounds[0])
        if fewest == best.rounds:
            return best
        fewer = self._judge(fewest, best.local_steps, best.batch_sizes)
        return min(best, fewer, key=lambda plan: plan.rank)


def _flat(form: MonotoneForm, local_steps: Range) -> bool:
    """Whether the floors are the same at all these tau: they never fall, so the ends decide."""
    everyone = np.arange(len(form.members))
    return all(np.array_equal(*ends) for ends in floors_at(form, list(local_steps), everyone))


def _guess(
    problem: Problem, form: MonotoneForm, ranges: Ranges, inner: EqualCostOracle, deadline: float
) -> tuple[int, int, int] | None:
    """The (K, tau) and member that are best for a sample of the devices, which `inner` then follows."""
    sample = inner.sampled(len(inner.devices) // SAMPLE)
    best = Incumbent(math.inf, 0, 0, inner.problem.fleet.batch_range()[0], form.members[0])

    def found(plan: Incumbent) -> None:
        nonlocal best
        best = min(best, plan, key=lambda p: p.rank)

    def threshold() -> float:
        return best.value - SAMPLE_TOLERANCE * abs(best.value) if best.value < math.inf else math.inf

    cuts = GlobalCuts(problem, form, ranges, sample, lambda: best.value, threshold, found)
    cuts.run(deadline)
    inner.follow(sample)
    return (best.rounds, best.local_steps, form.members.index(best.bound)) if best.rounds else None


def _common(first: Range, second: Range) -> Range:
    return max(first[0], second[0]), min(first[1], second[1])


def _angles(view: Directions) -> Floats:
    """Directions to solve for so that every member lies between two of them."""
    low, high = float(view.angles.min()), float(view.angles.max())
    if high - low <= 1e-15:
        return np.array([low])
    if high - low <= NARROW:
        return np.array([low, high])
    return np.unique(np.quantile(view.angles, np.linspace(0.0, 1.0, FAMILY_DIRECTIONS)))


def _ranges_of(box: _Box, pieces: Pieces, first: int, last: int) -> tuple[Range, Range] | None:
    """The ranges of K and tau that the pieces from `first` to `last` leave of a box."""
    low, high = int(pieces.low[first]), int(pieces.high[last])
    (k1, k2), (t1, t2) = box.rounds, box.local_steps
    if t1 == t2:
        rounds, steps = (low, high), (t1, t2)
    elif k1 == k2:
        rounds, steps = (k1, k2), (low, high)
    else:
        rounds = (max(k1, -(-low // t2)), min(k2, high // t1))
        steps = (max(t1, -(-low // k2)), min(t2, high // k1))
    return None if rounds[0] > rounds[1] or steps[0] > steps[1] else (rounds, steps)
