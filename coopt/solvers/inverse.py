"""The inverse questions: the cheapest, or the fastest, way to reach a given error bound.

The smallest error E(L) that a limit L on cost or time admits never rises with L, so the smallest L with
E(L) <= target is found by bracketing. Each probe is a complete minimisation with its own lower bound: where
that bound exceeds the target, no plan within the limit reaches it, and where the plan found reaches it,
what the plan really uses is a better upper end than the limit. The two ends meet to within the tolerance
with which every limit is understood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from coopt.errors import InfeasibleError
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.roundoff import LOOSENED

# A plan that uses this much less than another one is told apart from it by every limit.
DISTINCT = 2.5 * TOLERANCE
# Where nothing limits the objective, the first limit is raised by this factor, this many times.
GROWTH, GROWTHS = 16.0, 12
MOST_PROBES = 80


def search(
    problem: Problem,
    objective: str,
    target: float,
    least: float,
    minimise: Callable[[Problem], Found],
    binding: Callable[[Incumbent], tuple[str, ...]],
) -> Found:
    """Minimise cost or time subject to error <= target.

    Parameters
    ----------
    problem : Problem
        Its budget limits the objective from above, and the other quantities as usual.
    objective : {"cost", "time"}
    target : float
    least : float
        What the smallest plan uses; no plan uses less.
    minimise : callable
        Minimises the error bound of a problem.
    binding : callable
        Which limits of the problem as given hold a plan up, for the message where the target is out of reach.

    Returns
    -------
    Found
        Its lower bound is on what is minimised.

    Raises
    ------
    InfeasibleError
        If no plan within the budget reaches the target; ``smallest_error`` says what can be reached.
    """
    return _Bracket(problem, objective, target * (1.0 + LOOSENED), minimise, binding).close(least)


class _Bracket:
    def __init__(
        self,
        problem: Problem,
        objective: str,
        target: float,
        minimise: Callable[[Problem], Found],
        binding: Callable[[Incumbent], tuple[str, ...]],
    ) -> None:
        self.problem = problem
        self.objective = objective
        self.target = target
        self.minimise = minimise
        self.binding = binding
        self.probes = 0
        self.inner_solves: float = 0
        self.finished = True

    def close(self, least: float) -> Found:
        low, high, found = self._reach(least)
        best = found.best
        # No plan that uses at most `proved` reaches the target.
        proved, error_low = low, math.inf
        just_below = False
        while high > low * (1.0 + 2.0 * DISTINCT) and self.probes < MOST_PROBES:
            ceiling = high * (1.0 - DISTINCT)
            limit = ceiling if just_below else min(self._guess(low, error_low, high, best.value), ceiling)
            # Every other probe asks whether the plan at hand is already the best: a "no" ends the search.
            just_below = not just_below
            found = self._probe(limit)
            if found.best.value <= self.target:
                best, high = found.best, self._used(found.best)
            else:
                low, error_low = limit, found.best.value
                if found.lower_bound > self.target:
                    proved = max(proved, limit)
        return Found(
            best,
            min(proved * (1.0 + TOLERANCE), high),
            self.finished,
            {"inner_solves": self.inner_solves, "probes": self.probes},
            rounding=4.0 * DISTINCT,
        )

    def _reach(self, least: float) -> tuple[float, float, Found]:
        """A limit that is too small, what a plan that reaches the target uses, and that plan."""
        cap: float = getattr(self.problem.budget, self.objective)
        low = least * (1.0 - DISTINCT)
        limit = cap if cap < math.inf else 2.0 * least
        for _ in range(GROWTHS):
            found = self._probe(limit)
            if found.best.value <= self.target:
                return low, self._used(found.best), found
            if limit == cap:
                break
            if found.lower_bound > self.target:
                low = limit
            limit *= GROWTH
        best = found.best
        raise InfeasibleError(
            f"target_error = {self.target:.6g} cannot be reached: the smallest error is {best.value:.6g}, "
            f"with {best.rounds} rounds of {best.local_steps} local steps{self._what_holds(best)}",
            binding="target_error",
            smallest_error=best.value,
        )

    def _what_holds(self, best: Incumbent) -> str:
        """Name the limits that are set and bind, and what to do."""
        budget, units = self.problem.budget, {"time": " s", "energy": " J"}
        held = [
            name
            if name == "max_batch"
            else f"{name} = {float(getattr(budget, name)):.6g}{units.get(name, '')}"
            for name in self.binding(best)
        ]
        if not held:
            return ", and no limit holds it up: raise the target"
        listed = " and ".join([", ".join(held[:-1]), held[-1]] if len(held) > 1 else held)
        binds = "binds" if len(held) == 1 else "bind"
        return f", where {listed} {binds}: raise the target, or what binds"

    def _probe(self, limit: float) -> Found:
        self.probes += 1
        budget = self.problem.budget
        budget = replace(budget, cost=limit) if self.objective == "cost" else replace(budget, time=limit)
        found = self.minimise(replace(self.problem, budget=budget))
        self.inner_solves += found.trace["inner_solves"]
        self.finished &= found.finished
        return found

    def _used(self, plan: Incumbent) -> float:
        measure = self.problem.cost if self.objective == "cost" else self.problem.time
        return measure(plan.rounds, plan.local_steps, plan.batch_sizes)

    def _guess(self, low: float, error_low: float, high: float, error_high: float) -> float:
        """Where the error should meet the target: the secant in logarithms, kept inside the bracket."""
        middle = math.sqrt(low) * math.sqrt(high)
        if not (self.target > 0.0 and error_high > 0.0 and error_high < error_low < math.inf):
            return middle
        share = math.log(error_low / self.target) / math.log(error_low / error_high)
        return float(low * (high / low) ** min(max(share, 0.02), 0.98))
