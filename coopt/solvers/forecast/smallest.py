"""The smallest batches of a plan: those of the fleet, and those that keep training stable."""

from __future__ import annotations

from collections.abc import Callable

from coopt.objectives.forecast.forecast import Forecast
from coopt.problem.problem import Problem
from coopt.solvers.whole_units.batches import Ints

# Smallest batches that are allowed at so many local steps; None where there are none.
Smallest = Callable[[int], Ints | None]


def stable(problem: Problem, forecast: Forecast) -> Smallest:
    """The smallest batches that keep rounds stable, as the fleet allows them."""
    fleet, stability = problem.fleet, forecast.stability(problem)
    least, most = fleet.batch_range()
    known: dict[int, Ints | None] = {}

    def smallest(local_steps: int) -> Ints | None:
        if local_steps not in known:
            found = stability.smallest(local_steps, least, most)
            known[local_steps] = found if found is None or found is least else fleet.rounded_up(found)
        return known[local_steps]

    return smallest
