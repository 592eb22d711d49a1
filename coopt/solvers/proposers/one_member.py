"""A family of bounds, for solvers that take one member at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coopt.errors import SolverError
from coopt.objectives.monotone import MonotoneBound, member_values
from coopt.objectives.protocol import Bound
from coopt.problem.problem import Problem
from coopt.solvers.contract import Incumbent
from coopt.solvers.whole_units.batches import Ints

# Rounds, local steps, and batch sizes of shape (N,).
Plan = tuple[int, int, Ints]

# Each change of member lowers the value; a handful suffices in practice.
CHANGES = 10


def best_over_members(
    problem: Problem,
    bound: MonotoneBound,
    plans_for: Callable[[Bound], Sequence[Plan]],
    solver: str,
) -> Incumbent:
    """The best plan under a family, by turns: the best plans for a member, the best member for a plan.

    Raises
    ------
    SolverError
        If no plans are found.
    """
    form = bound.monotone_form(problem)
    member, best = form.members[0], None
    for _ in range(CHANGES):
        for rounds, local_steps, batches in plans_for(member):
            values = member_values(form, rounds, local_steps, batches.astype(np.float64))
            place = int(values.argmin())
            judged = Incumbent(float(values[place]), rounds, local_steps, batches, form.members[place])
            if best is None or judged.rank < best.rank:
                best = judged
        if best is None or best.bound == member:
            break
        member = best.bound
    if best is None:
        raise SolverError(f"solver {solver!r} found no plan")
    return best
