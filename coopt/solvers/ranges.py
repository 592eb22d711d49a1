"""Which rounds and local steps a search has to consider."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.problem import limits
from coopt.problem.limits import BLOCK
from coopt.problem.problem import Problem
from coopt.solvers.whole_units.batches import Ints

Range = tuple[int, int]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranges:
    """Ranges of K and tau that hold every feasible plan, with the smallest batches."""

    problem: Problem
    lower: Ints
    rounds: Range
    local_steps: Range
    # The devices that can be the slowest with the smallest batches.
    places: NDArray[np.intp]
    # One long round is as good as any other plan with the same K tau.
    one_round: bool = False
    # Rounds of one step are as good as any other plan with the same K tau, up to so many.
    single_steps: int = 0
    _most_rounds: dict[int, int] = field(default_factory=dict)

    @cached_property
    def least_work(self) -> float:
        """Cost of one step with the smallest batches."""
        return limits.work(self.problem, self.lower) + self.problem.plain.fleet.whole_step_cost

    @cached_property
    def least_energy(self) -> float:
        """Energy of one step with the smallest batches [J]."""
        fleet = self.problem.plain.fleet
        return float(np.sum(fleet.sample_energy * self.lower)) + fleet.whole_step_energy

    @cached_property
    def slowest(self) -> tuple[Floats, Floats]:
        """Seconds for a step and for communication of the devices that can be the slowest."""
        step = limits.step_times(self.problem, self.lower[self.places], self.places)
        return step, self.problem.fleet.round_time[self.places]

    def most_rounds(self, local_steps: int) -> int:
        """Largest feasible K of the range at this tau; 0 if none."""
        if local_steps not in self._most_rounds:
            most = limits.most_rounds(self.problem, local_steps, self.lower, self.places)
            self._most_rounds[local_steps] = self.rounds[1] if most is None else min(most, self.rounds[1])
        return self._most_rounds[local_steps]

    def shrink(self, rounds: Range, local_steps: Range) -> tuple[Range, Range] | None:
        """The smallest box that holds the feasible plans of a box that no others match; None if none are."""
        box = self._feasible(rounds, local_steps)
        if box is None or not (self.one_round or self.single_steps):
            return box
        left = self.unmatched(np.array(box).T.reshape(4, 1))
        if left.size == 0:
            return None
        k1, t1, k2, t2 = left[:, 0].tolist()
        rest = (k1, k2), (t1, t2)
        return box if rest == box else self._feasible(*rest)

    def _feasible(self, rounds: Range, local_steps: Range) -> tuple[Range, Range] | None:
        most = min(rounds[1], self.most_rounds(local_steps[0]))
        if most < rounds[0]:
            return None
        steps = limits.most_local_steps(self.problem, rounds[0], self.lower, self.places)
        longest = local_steps[1] if steps is None else min(local_steps[1], steps)
        return (rounds[0], most), (local_steps[0], longest)

    def unmatched(self, boxes: Ints) -> Ints:
        """The boxes (K1, tau1, K2, tau2), as columns, without plans that others match."""
        k1, t1, k2, t2 = boxes
        if self.one_round:
            match, steps = k1 > self.rounds[0], self.local_steps[1]
        elif self.single_steps:
            match, steps = t1 > self.local_steps[0], self.single_steps
        else:
            return boxes
        # Of a plan that is left, more steps than that.
        k1 = np.where(match, np.maximum(k1, steps // t2 + 1), k1)
        t1 = np.where(match, np.maximum(t1, steps // k2 + 1), t1)
        return np.array([k1, t1, k2, t2])[:, (k1 <= k2) & (t1 <= t2)]

    def roots(self) -> list[tuple[Range, Range]]:
        """Boxes that together hold all plans that no others match."""
        (k1, k2), (t1, t2) = self.rounds, self.local_steps
        budget = self.problem.plain.budget
        if self.one_round and k1 < k2:
            boxes = [((k1, k1), (t1, t2)), ((k1 + 1, k2), (t1, t2))]
            # K rounds of tau that fit, fit as one of K tau: where the limits end its range, that matches all.
            ends = (
                limits.most_local_steps(self.problem, k1, self.lower, self.places)
                == t2
                != budget.max_local_steps
            )
        elif self.single_steps and t1 < t2:
            boxes = [((k1, k2), (t1, t1)), ((k1, k2), (t1 + 1, t2))]
            ends = (
                budget.round_cost == 0.0
                and limits.most_rounds(self.problem, t1, self.lower, self.places) == k2 != budget.max_rounds
            )
        else:
            return [(self.rounds, self.local_steps)]
        return boxes[:1] if ends else boxes

    def without_matched(self, flat: bool) -> Ranges:
        """The ranges with what is known of plans that match others; `flat`: tau changes no error floor.

        Limits are no tighter for one round of K tau steps than for K rounds of tau. Where rounds take neither
        time nor energy, no tighter for K tau rounds of one step, as long as these cannot cost too much.
        """
        if flat and self.rounds[0] == 1:
            return replace(self, one_round=True)
        fleet = self.problem.plain.fleet
        free = not (fleet.round_time.any() or fleet.round_energy.any())
        return (
            replace(self, single_steps=self._affordable_rounds())
            if free and self.local_steps[0] == 1
            else self
        )

    def _affordable_rounds(self) -> int:
        """So many rounds of one step meet the limit on cost with any batches that meet that on time."""
        fleet, budget = self.problem.plain.fleet, self.problem.plain.budget
        if budget.round_cost == 0.0 or budget.cost == math.inf:
            # They cost what the same number of steps costs in longer rounds.
            return self.rounds[1]
        _, upper = fleet.batch_range()
        with np.errstate(over="ignore", invalid="ignore"):
            processed = fleet.throughput * budget.time * (1.0 + limits.TOLERANCE)
        # inf * 0: what takes no time is processed in none.
        processed[np.isnan(processed)] = math.inf

        def affordable(rounds: int) -> bool:
            work = float(np.sum(fleet.sample_cost * np.minimum(rounds * upper, processed)))
            return work + rounds * (fleet.whole_step_cost + budget.round_cost) <= budget.cost

        least, most = 0, self.rounds[1]
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if affordable(middle) else (least, middle - 1)
        return least


def _slowest(problem: Problem, lower: Ints) -> NDArray[np.intp]:
    """Devices that with these batches are the slowest at some number of local steps."""
    fleet, found = problem.fleet, []
    for begin in range(0, len(fleet), BLOCK):
        block = slice(begin, begin + BLOCK)
        seconds = limits.step_times(problem, lower[block], block)
        found.append(begin + _upper_hull(seconds, fleet.round_time[block]))
    places = np.concatenate(found)
    if len(found) == 1:
        return places
    seconds = limits.step_times(problem, lower[places], places)
    return places[_upper_hull(seconds, fleet.round_time[places])]


def _upper_hull(step: Floats, wait: Floats) -> NDArray[np.intp]:
    """Places of the lines wait + tau step that are the highest at some tau > 0."""
    # Powers of two, so that products of the largest times stay within floats and no digit changes.
    step, wait = (np.ldexp(times, -np.frexp(times.max())[1]) for times in (step, wait))
    left, right = int(wait.argmax()), int(step.argmax())
    if math.isinf(step[right]) or math.isinf(wait[left]):
        return np.unique([left, right])
    found, spans = {left, right}, [(left, right, np.arange(step.size), step, wait)]
    while spans:
        left, right, among, steps, waits = spans.pop()
        across, down = step[right] - step[left], wait[left] - wait[right]
        # How far a line lies above the one through both ends, were they points.
        beyond = (steps - step[left]) * down
        beyond += (waits - wait[left]) * across
        furthest = int(beyond.argmax())
        corner = int(among[furthest])
        if beyond[furthest] > 0.0 and corner not in found:
            found.add(corner)
            rest = np.flatnonzero(beyond > 0.0)
            inside = among[rest], steps[rest], waits[rest]
            spans += [(left, corner, *inside), (corner, right, *inside)]
    return np.array(sorted(found))


def feasible_ranges(problem: Problem, rounds: int | None, local_steps: int | None) -> Ranges:
    """Ranges of all feasible plans; `rounds` and `local_steps` fix either.

    Raises
    ------
    InfeasibleError
        If not even the smallest plan fits; it names the limit and the smallest cost and time.
    InvalidProblemError
        If nothing bounds K or tau; it names what is missing.
    """
    lower, _ = problem.fleet.batch_range()
    least_rounds, least_steps = rounds or 1, local_steps or 1
    places = _slowest(problem, lower)
    if not _fits(problem, least_rounds, least_steps, lower, places):
        _require_feasible(problem, least_rounds, least_steps, lower)
    most_rounds = rounds or limits.most_rounds(problem, least_steps, lower, places)
    most_steps = local_steps or limits.most_local_steps(problem, least_rounds, lower, places)
    if most_rounds is None:
        raise _unbounded(problem, "rounds K", "max_rounds", "round")
    if most_steps is None:
        raise _unbounded(problem, "local_steps tau", "max_local_steps", "local step")
    return Ranges(problem, lower, (least_rounds, most_rounds), (least_steps, most_steps), places)


def least_use(problem: Problem, rounds: int, local_steps: int, quantity: str) -> float:
    """Cost, or time [s], of the smallest batches at (K, tau).

    Raises
    ------
    InfeasibleError
        If they break a limit of the problem.
    """
    lower, _ = problem.fleet.batch_range()
    _require_feasible(problem, rounds, local_steps, lower)
    measure = problem.cost if quantity == "cost" else problem.time
    return measure(rounds, local_steps, lower)


def _unbounded(problem: Problem, quantity: str, field: str, unit: str) -> InvalidProblemError:
    idle = problem.budget.time < math.inf
    return InvalidProblemError(
        f"{quantity} is unbounded: set Budget({field}=...), or a cost or time limit, or one on energy, "
        f"that every {unit} uses up"
        + (f"; no {unit} takes time yet: the fleet needs throughput, round_time or step_time" if idle else "")
    )


def _fits(problem: Problem, rounds: int, local_steps: int, lower: Ints, places: NDArray[np.intp]) -> bool:
    """Whether the smallest batches are seen to fit, asked only of the devices that can be the slowest."""
    budget = problem.budget
    seconds = limits.device_times(problem, rounds, local_steps, lower[places], places).max()
    return (
        rounds <= (budget.max_rounds or rounds)
        and local_steps <= (budget.max_local_steps or local_steps)
        and limits.within(limits.cost(problem, rounds, local_steps, lower), budget.cost)
        and limits.within(float(seconds), budget.time)
        and budget.energy == math.inf
    )


def _require_feasible(problem: Problem, rounds: int, local_steps: int, lower: Ints) -> None:
    broken = limits.violations(problem, rounds, local_steps, lower.astype(float))
    if not broken:
        return
    cost = limits.cost(problem, rounds, local_steps, lower)
    seconds = float(limits.device_times(problem, rounds, local_steps, lower).max())
    burnt = limits.energy(problem, rounds, local_steps, lower)
    plan = f"rounds = {rounds}, local_steps = {local_steps} and the smallest batches"
    reasons = "; ".join(str(violation) for violation in broken)
    # Of limits that hold, or are not set, nothing has to be known.
    needed = {"cost": f"{cost!r}", "time": f"{seconds!r} s", "energy": f"{burnt!r} J"}
    least = [
        f"smallest feasible {each.limit} is {needed[each.limit]}" for each in broken if each.limit in needed
    ]
    remedy = f". The {', the '.join(least)}" if least else ""
    raise InfeasibleError(
        f"no plan fits: even {plan} break a limit ({reasons}){remedy}",
        binding=broken[0].limit,
        smallest_cost=cost,
        smallest_time=seconds,
    )
